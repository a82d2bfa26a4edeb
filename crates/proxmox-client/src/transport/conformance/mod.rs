//! Each answer that was recorded from the real PVE, given to the decoding: none panics, none is lost, each error has its kind.

mod fields;
mod kinds;
mod sentences;
mod typed;

use std::{collections::BTreeMap, sync::LazyLock};

use http::Method;
use serde_json::Value;

use super::reply::{Envelope, Reply};
use crate::error::Error;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pve");

/// A recorded exchange, as far as a client sees it.
struct Exchange {
    /// Folder and name of the recording.
    file: String,
    origin: String,
    method: Method,
    /// Below `/api2/json`, without a query.
    path: String,
    status: u16,
    reason: String,
    body: Vec<u8>,
}

impl Exchange {
    fn decode(&self) -> Result<Envelope, Error> {
        Reply {
            method: &self.method,
            path: &self.path,
            status: self.status,
            reason: &self.reason,
            body: &self.body,
        }
        .decode()
    }
}

/// The recorded body as the bytes that came. Scenarios keep it parsed only; traces cut the exact text at 3,000 characters.
fn body_of(response: &Value) -> Vec<u8> {
    match &response["body"] {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        parsed => parsed.to_string().into_bytes(),
    }
}

fn exchange(file: &str, origin: String, request: &Value, response: &Value) -> Option<Exchange> {
    // Transcripts and series of measurements have no status; switched protocols are no answers of the API.
    let status = u16::try_from(response["status"].as_u64()?).expect("a status code");
    let whole = request["path"].as_str()?;
    let path = whole.split('?').next().unwrap_or_default();
    // Answers outside of /api2/json are of another form (extjs, pages).
    let path = path.strip_prefix("/api2/json").filter(|_| status != 101)?;
    // This client never asks for a compressed body, and so never gets one (FACTS 21).
    let compressed = request["headers"].get("Accept-Encoding").is_some();
    if compressed && status == 200 {
        return None;
    }
    let method = request["method"].as_str().unwrap_or("GET").parse().expect("a method");
    let reason = response["reason"].as_str().unwrap_or_default().to_owned();
    Some(Exchange {
        file: file.to_owned(),
        origin,
        method,
        path: path.to_owned(),
        status,
        reason,
        body: body_of(response),
    })
}

fn files(folder: &str) -> Vec<(String, Value)> {
    let entries = std::fs::read_dir(format!("{ROOT}/{folder}")).expect("the recordings are in the repository");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let json = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    json.map(|path| {
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("JSON"))
    })
    .collect()
}

/// Read once: it takes a while.
fn recorded() -> &'static [Exchange] {
    static ALL: LazyLock<Vec<Exchange>> = LazyLock::new(read_all);
    &ALL
}

fn read_all() -> Vec<Exchange> {
    let mut all = Vec::new();
    for (name, file) in files("traces") {
        for entry in file.as_array().expect("a list") {
            let origin = format!("{name}: {}", entry["name"].as_str().unwrap_or_default());
            all.extend(exchange(
                &format!("traces/{name}"),
                origin,
                &entry["request"],
                &entry["response"],
            ));
        }
    }
    for (name, file) in files("scenarios") {
        let folder = format!("scenarios/{name}");
        for step in file["steps"].as_array().into_iter().flatten() {
            let origin = format!("{name}: {}", step["id"].as_str().unwrap_or_default());
            all.extend(exchange(
                &folder,
                format!("{origin} (first)"),
                &step["request"],
                &step["poll"]["first"],
            ));
            all.extend(exchange(&folder, origin, &step["request"], &step["response"]));
        }
    }
    all
}

/// Does the path fit a pattern in which `*` stands for one name?
fn fits(pattern: &str, path: &str) -> bool {
    let (wanted, given): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    wanted.len() == given.len()
        && wanted
            .iter()
            .zip(&given)
            .all(|(wanted, given)| *wanted == "*" || wanted == given)
}

/// What is wrong with how an exchange is taken; nothing is right.
fn differences(exchange: &Exchange) -> Vec<String> {
    let mut found = Vec::new();
    match exchange.decode() {
        Ok(envelope) => {
            if exchange.status != 200 {
                found.push(format!("status {} is taken for data", exchange.status));
            }
            if let Some(Err(error)) = typed::read(exchange, envelope.data) {
                found.push(format!(
                    "{error}: {}",
                    std::error::Error::source(&error).map_or_else(String::new, ToString::to_string)
                ));
            }
        }
        // A log as a plain file (`download=1`), which this client never asks for: an error that says so, not a panic.
        Err(error @ Error::Decode { .. }) => {
            if !exchange.origin.contains("download=1") || exchange.status != 200 {
                found.push(error.to_string());
            }
        }
        Err(error) => {
            if error.status() != Some(exchange.status) || exchange.status == 200 {
                found.push(format!("status {} became {error}", exchange.status));
            }
            // The reason phrase is not lost: its words are in the message.
            let first = exchange.reason.split_whitespace().collect::<Vec<_>>().join(" ");
            if !matches!(&error, Error::Api { message, .. } if message.starts_with(&first)) {
                found.push(format!("{error:?} lost {first:?}"));
            }
            found.extend(kinds::fault_of(&error));
            found.extend(sentences::fault_of(&error));
        }
    }
    found
}

/// Prints a line for each file, each difference, and how many agree in all.
#[test]
fn recorded_answers_agree() {
    let all = recorded();
    let mut files: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut differ = 0;
    for exchange in all {
        let (good, of) = files.entry(exchange.file.as_str()).or_default();
        *of += 1;
        let differences = differences(exchange);
        if differences.is_empty() {
            *good += 1;
        }
        for difference in &differences {
            println!("  {}: {difference}", exchange.origin);
        }
        differ += usize::from(!differences.is_empty());
    }
    for (file, (good, of)) in &files {
        println!("{file:40} {good:5} of {of:5}");
    }
    println!("client: {} of {} exchanges agree", all.len() - differ, all.len());
    assert_eq!(differ, 0, "all agreed before");
    // Counted once and written down, so that no recording falls out of this test unseen.
    assert_eq!((files.len(), all.len()), (42, 4229));
}
