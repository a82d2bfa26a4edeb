//! One scenario from its first step to its last.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pve_emulator::{Emulator, StorageSpec};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::client::{Client, Reply};
use super::compare::{Masks, differences};
use super::guest::RecordedGuests;

/// RFC 3986: what stays as it is.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

const BOUNDARY: &str = "----scenarioboundary7d1f";

/// How a replay went.
pub(crate) struct Outcome {
    pub(crate) steps: usize,
    /// One text a step that differs.
    pub(crate) differences: Vec<String>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pve/scenarios")
}

/// The scenario files in order.
pub(crate) fn scenario_files() -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder())?.collect::<std::io::Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    let numbered = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(|c: char| c.is_ascii_digit());
    files.retain(|f| f.file_name().is_some_and(numbered));
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

/// An emulator in the state that `base.json` describes, and the secrets of its tokens.
async fn base(guests: RecordedGuests) -> Result<(Emulator, BTreeMap<String, String>)> {
    let base = read(&folder().join("base.json"))?;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
    let storages = list(&base["storages"])
        .iter()
        .map(|s| {
            StorageSpec::dir(text(&s["id"]), text(&s["path"]))
                .content(list(&s["content"]).iter().map(text))
                .total_bytes(s["total"].as_u64().unwrap_or_default())
        })
        .collect();
    let mut builder = Emulator::builder()
        .storages(storages)
        .delays(false)
        .nodes([text(&base["node"])])
        .pve_version(text(&base["version"]["data"]["version"]));
    let mut tokens = BTreeMap::new();
    for user in list(&base["users"]) {
        let userid = text(&user["userid"]);
        builder = builder.user(&userid, &text(&user["password"]));
        for key in ["comment", "email"] {
            if let Some(value) = user[key].as_str() {
                builder = builder.user_text(&userid, key, value);
            }
        }
        for token in list(&user["tokens"]) {
            let secret = text(&token["secret"]);
            builder = builder.token(&userid, &text(&token["tokenid"]), &secret, token["privsep"] == 1);
            tokens.insert(text(&token["id"]), secret);
        }
    }
    for role in list(&base["roles"]).iter().filter(|r| r["special"] == 0) {
        builder = builder.role(&text(&role["roleid"]), list(&role["privs"]).iter().map(text));
    }
    for acl in list(&base["acl"]) {
        builder = builder.acl(&text(&acl["path"]), &text(&acl["ugid"]), &text(&acl["roleid"]));
    }
    let emulator = builder.default_token(false).engine(Arc::new(guests)).start().await?;
    for volume in list(&base["volumes"]) {
        let size = usize::try_from(volume["size"].as_u64().unwrap_or_default())?;
        emulator.add_file("local", "iso", "guest.iso", &vec![0; size])?;
    }
    Ok((emulator, tokens))
}

/// Replays one file.
pub(crate) async fn replay(file: &Path) -> Result<Outcome> {
    let scenario = read(file)?;
    let answered = |what: &str| {
        let steps = scenario["steps"].as_array().into_iter().flatten();
        let mut fitting = steps.filter(|s| {
            let path = s["request"]["path"].as_str().unwrap_or_default();
            path.ends_with(what) && s["response"]["status"] == 200
        });
        fitting
            .next()
            .map(|s| s["response"]["body"]["data"]["result"].clone())
            .unwrap_or_default()
    };
    let guests = RecordedGuests::new(answered("/agent/info"), answered("/agent/network-get-interfaces"));
    let (emulator, tokens) = base(guests).await?;
    let client = Client::new(emulator.address(), emulator.ca_pem())?;
    let mut run = Run {
        client,
        tokens,
        names: BTreeMap::new(),
    };
    let fixtures = &scenario["fixtures"]["http_server"];
    let _server = if fixtures.is_null() {
        None
    } else {
        Some(FixtureServer::start(fixtures).await?)
    };
    let steps = scenario["steps"].as_array().context("no steps")?;
    let mut found = Vec::new();
    for step in steps {
        let id = step["id"].as_str().unwrap_or_default();
        let result = match run.step(step).await {
            Ok(differences) => differences,
            Err(error) => vec![format!("{error:#}")],
        };
        if !result.is_empty() {
            let request = &step["request"];
            let what = format!(
                "{} {}",
                request["method"].as_str().unwrap_or_default(),
                request["path"].as_str().unwrap_or_default()
            );
            found.push(format!("[{id}] {what}\n      {}", result.join("\n      ")));
        }
    }
    emulator.shutdown().await;
    Ok(Outcome {
        steps: steps.len(),
        differences: found,
    })
}

struct Run {
    client: Client,
    tokens: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
}

impl Run {
    async fn step(&mut self, step: &Value) -> Result<Vec<String>> {
        let expected = &step["response"];
        let reply = self.exchange(step).await?;
        let body = json_of(&reply);
        // Names are bound whatever else differs, so that later steps have a chance.
        for (name, pointer) in step["binds"].as_object().into_iter().flatten() {
            if let Some(value) = body.pointer(pointer.as_str().unwrap_or_default()) {
                self.names.insert(
                    name.clone(),
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                );
            }
        }
        let mut found = Vec::new();
        if expected.get("transport").is_some() {
            if reply.status != 0 {
                found.push(format!("expected no answer, got {} {}", reply.status, reply.reason));
            }
            return Ok(found);
        }
        let status = expected["status"].as_u64().unwrap_or_default();
        if u64::from(reply.status) != status {
            found.push(format!(
                "status: expected {status} {}, got {} {}",
                expected["reason"], reply.status, reply.reason
            ));
            if reply.status >= 400 {
                found.push(format!("body: {body}"));
            }
            return Ok(found);
        }
        let reason = expected["reason"].as_str().unwrap_or_default();
        let shape = step["reason_shape"].as_str();
        let fits = match shape {
            Some(shape) => regex_lite::Regex::new(&format!("^(?:{shape})$"))?.is_match(&reply.reason),
            None => reply.reason == reason,
        };
        if !fits {
            found.push(format!("reason: expected {reason:?}, got {:?}", reply.reason));
        }
        for header in ["content-type", "content-encoding"] {
            let wanted = expected["headers_that_matter"][header].as_str();
            if wanted != reply.header(header) {
                found.push(format!("{header}: expected {wanted:?}, got {:?}", reply.header(header)));
            }
        }
        let mut actual = match expected["body_kind"].as_str() {
            Some("json") => body,
            _ if reply.body.is_empty() => Value::Null,
            _ => String::from_utf8_lossy(&reply.body).into_owned().into(),
        };
        drop_lock_lines(&mut actual);
        found.extend(differences(&expected["body"], &actual, &Masks::of(step)));
        Ok(found)
    }

    /// Sends the request, again and again if the recording polled.
    async fn exchange(&self, step: &Value) -> Result<Reply> {
        let poll = &step["poll"];
        if poll.is_null() {
            return self.send(step).await;
        }
        let limit = Duration::from_secs_f64(poll["timeout_s"].as_f64().unwrap_or(30.0).min(20.0));
        let until = poll["until"].as_str().context("poll without until")?;
        let (what, value) = until.split_once("==").context("unknown condition")?;
        let began = Instant::now();
        loop {
            let reply = self.send(step).await?;
            let done = if what == "http" {
                reply.status.to_string() == value
            } else {
                let pointer = format!("/data/{}", what.replace('.', "/"));
                match json_of(&reply).pointer(&pointer) {
                    Some(Value::String(text)) => text == value,
                    Some(other) => other.to_string().as_str() == value,
                    None => false,
                }
            };
            if done || began.elapsed() > limit {
                return Ok(reply);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn fill(&self, text: &str, encode: bool) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let end = rest[start..].find("}}").context("open braces")? + start;
            let name = &rest[start + 2..end];
            let value = self
                .names
                .get(name)
                .with_context(|| format!("'{name}' was never bound"))?;
            out.push_str(&rest[..start]);
            if encode {
                out.extend(utf8_percent_encode(value, &UNRESERVED));
            } else {
                out.push_str(value);
            }
            rest = &rest[end + 2..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn pairs(&self, value: &Value) -> Result<String> {
        let mut parts = Vec::new();
        for pair in value.as_array().into_iter().flatten() {
            let part = |i: usize| -> Result<String> {
                let text = self.fill(pair[i].as_str().unwrap_or_default(), false)?;
                Ok(utf8_percent_encode(&text, &UNRESERVED).to_string())
            };
            parts.push(format!("{}={}", part(0)?, part(1)?));
        }
        Ok(parts.join("&"))
    }

    fn fill_json(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => self.fill(text, false)?.into(),
            Value::Array(items) => items
                .iter()
                .map(|v| self.fill_json(v))
                .collect::<Result<Vec<_>>>()?
                .into(),
            Value::Object(map) => {
                let pairs = map.iter().map(|(k, v)| Ok((k.clone(), self.fill_json(v)?)));
                Value::Object(pairs.collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    async fn send(&self, step: &Value) -> Result<Reply> {
        let request = &step["request"];
        let method = request["method"].as_str().context("no method")?;
        let mut target = self.fill(request["path"].as_str().context("no path")?, true)?;
        if request.get("query").is_some() {
            target = format!("{target}?{}", self.pairs(&request["query"])?);
        }
        let mut headers = self.identity(step["as"].as_str().unwrap_or("none"), method)?;
        for pair in request["headers"].as_array().into_iter().flatten() {
            let value = self.fill(pair[1].as_str().unwrap_or_default(), false)?;
            headers.push((pair[0].as_str().unwrap_or_default().to_owned(), value));
        }
        let body = if request.get("form").is_some() {
            headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
            Some(self.pairs(&request["form"])?.into_bytes())
        } else if request.get("json").is_some() {
            headers.push(("Content-Type".into(), "application/json".into()));
            Some(self.fill_json(&request["json"])?.to_string().into_bytes())
        } else if request.get("multipart").is_some() {
            headers.push((
                "Content-Type".into(),
                format!("multipart/form-data; boundary={BOUNDARY}"),
            ));
            Some(multipart(&request["multipart"])?)
        } else if matches!(method, "POST" | "PUT") {
            Some(Vec::new())
        } else {
            None
        };
        self.client.send(method, &target, &headers, body.as_deref()).await
    }

    fn identity(&self, who: &str, method: &str) -> Result<Vec<(String, String)>> {
        let token = |id: &str| -> Result<Vec<(String, String)>> {
            let secret = self.tokens.get(id).with_context(|| format!("no token {id}"))?;
            Ok(vec![("Authorization".into(), format!("PVEAPIToken={id}={secret}"))])
        };
        let ticket = |prefix: &str| -> Result<Vec<(String, String)>> {
            let cookie = self.fill(&format!("PVEAuthCookie={{{{{prefix}ticket}}}}"), true)?;
            let mut headers = vec![("Cookie".to_owned(), cookie)];
            if method != "GET" {
                headers.push((
                    "CSRFPreventionToken".into(),
                    self.fill(&format!("{{{{{prefix}csrf}}}}"), false)?,
                ));
            }
            Ok(headers)
        };
        match who {
            "none" => Ok(Vec::new()),
            "root-token" => token("root@pam!build"),
            "sep-token" => token("root@pam!sep"),
            "packer-token" => token("packer@pve!build"),
            "packerfull-token" => token("packer@pve!full"),
            "builder-token" => token("builder@pve!tok1"),
            "root-ticket" => ticket(""),
            "packer-ticket" => ticket("p"),
            "builder-ticket" => ticket("b"),
            other => bail!("unknown identity {other}"),
        }
    }
}

/// The body as JSON, unpacked if it was compressed; `null` if it is none.
fn json_of(reply: &Reply) -> Value {
    let mut text = Vec::new();
    let unpacked = match reply.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(&reply.body[..]).read_to_end(&mut text),
        _ => (&reply.body[..]).read_to_end(&mut text),
    };
    unpacked
        .ok()
        .and_then(|_| serde_json::from_slice(&text).ok())
        .unwrap_or(Value::Null)
}

/// Some task logs begin, by chance, with two lines about a lock; the recordings leave them out.
fn drop_lock_lines(body: &mut Value) {
    let Some(lines) = body["data"].as_array() else { return };
    let begins = |i: usize, text: &str| lines.get(i).is_some_and(|l| l["t"] == text);
    if begins(0, "trying to acquire lock...") && begins(1, " OK") {
        let rest: Vec<Value> = lines[2..].to_vec();
        body["data"] = rest.into();
    }
}

fn multipart(parts: &Value) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    for part in parts.as_array().context("no parts")? {
        let name = part["name"].as_str().context("no name")?;
        body.extend(format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"").bytes());
        match part["filename"].as_str() {
            Some(filename) => {
                body.extend(format!("; filename=\"{filename}\"\r\nContent-Type: application/octet-stream").bytes());
                body.extend(b"\r\n\r\n");
                body.extend(content(&part["content"])?);
            }
            None => body.extend(format!("\r\n\r\n{}", part["value"].as_str().unwrap_or_default()).bytes()),
        }
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    Ok(body)
}

/// The bytes of an uploaded file by the recording's rule.
fn content(rule: &Value) -> Result<Vec<u8>> {
    let size = usize::try_from(rule["size"].as_u64().unwrap_or_default())?;
    Ok(match rule["rule"].as_str().context("no rule")? {
        "repeat" => {
            let byte = rule["byte"].as_str().context("no byte")?;
            vec![u8::from_str_radix(byte.trim_start_matches("0x"), 16)?; size]
        }
        "prng" => {
            let mut bytes = Vec::with_capacity(size + 32);
            for counter in 0.. {
                if bytes.len() >= size {
                    break;
                }
                bytes.extend(Sha256::digest(format!("{}:{counter}", rule["seed"])));
            }
            bytes.truncate(size);
            bytes
        }
        "sparse" => {
            let mut bytes = vec![0; size];
            for (offset, chunk) in rule["chunks"].as_object().into_iter().flatten() {
                let at: usize = offset.parse()?;
                let data = hex::decode(chunk.as_str().unwrap_or_default())?;
                bytes[at..at + data.len()].copy_from_slice(&data);
            }
            for pair in rule["chunks"].as_array().into_iter().flatten() {
                let at = usize::try_from(pair[0].as_u64().unwrap_or_default())?;
                let data = hex::decode(pair[1].as_str().unwrap_or_default())?;
                bytes[at..at + data.len()].copy_from_slice(&data);
            }
            bytes
        }
        "text" => rule["text"].as_str().unwrap_or_default().as_bytes().to_vec(),
        other => bail!("unknown content rule {other}"),
    })
}

/// The web server that a scenario downloads from.
struct FixtureServer(tokio::task::JoinHandle<()>);

impl Drop for FixtureServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FixtureServer {
    async fn start(fixtures: &Value) -> Result<Self> {
        let address = format!("{}:{}", fixtures["bind"].as_str().unwrap_or_default(), fixtures["port"]);
        let listener = tokio::net::TcpListener::bind(&address)
            .await
            .with_context(|| address.clone())?;
        let mut files = BTreeMap::new();
        for file in fixtures["files"].as_array().into_iter().flatten() {
            let path = file["path"].as_str().unwrap_or_default().to_owned();
            let reply = match file["redirect"].as_str() {
                Some(target) => (format!("302 Found\r\nLocation: {target}"), Vec::new()),
                None if file["status"] == 500 => ("500 Internal Server Error".to_owned(), content(&file["content"])?),
                None => ("200 OK".to_owned(), content(&file["content"])?),
            };
            files.insert(path, reply);
        }
        Ok(Self(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve_one(stream, &files).await;
            }
        })))
    }
}

async fn serve_one(mut stream: tokio::net::TcpStream, files: &BTreeMap<String, (String, Vec<u8>)>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&head).into_owned();
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let missing = ("404 Not Found".to_owned(), Vec::new());
    let (status, body) = files.get(path).unwrap_or(&missing);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut reply = head.into_bytes();
    if method != "HEAD" {
        reply.extend(body);
    }
    let _ = stream.write_all(&reply).await;
    let _ = stream.shutdown().await;
}
