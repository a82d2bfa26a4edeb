//! Downloads by the node: `download-url` and `query-url-metadata`.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, Response, Url, redirect};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::storage::spec;
use super::upload::{checksum_of, volume_name};
use super::{Call, Outcome, Routes};
use crate::state::{Storages, World, file_volume};
use crate::tasks::Worker;
use crate::wire::{Failure, Shape, TemporaryFile};

/// wget follows so many redirects.
const MAX_REDIRECTS: usize = 20;

/// A server that says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

pub(super) fn add(routes: &mut Routes) {
    routes.add("GET /nodes/{node}/query-url-metadata", metadata);
    routes.add("POST /nodes/{node}/storage/{storage}/download-url", download);
}

/// A client that follows no redirects by itself: each hop is logged.
fn client(verify: bool) -> Result<Client, String> {
    Client::builder()
        .tls_backend_preconfigured(crate::tls::client_config(verify).map_err(|e| e.to_string())?)
        .redirect(redirect::Policy::none())
        .connect_timeout(SILENCE)
        .read_timeout(SILENCE)
        .no_proxy()
        .build()
        .map_err(|e| e.to_string())
}

fn place(url: &Url) -> String {
    format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default()
    )
}

/// `404 Not Found`.
fn status_text(response: &Response) -> String {
    let status = response.status();
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())
}

/// Why no connection came about, in the system's words.
fn cause(error: &reqwest::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::ConnectionRefused => "Connection refused".into(),
                std::io::ErrorKind::TimedOut => "Connection timed out".into(),
                _ => io.to_string(),
            };
        }
        source = inner.source();
    }
    error.to_string()
}

async fn metadata(call: Call) -> Outcome {
    let given = call.params.required("url")?;
    let mut url = Url::parse(&given).map_err(|e| Failure::param("url", e.to_string()))?;
    let client = client(call.params.flag("verify-certificates") != Some(false)).map_err(Failure::die)?;
    for _ in 0..=MAX_REDIRECTS {
        let response = client.request(Method::HEAD, url.clone()).send().await.map_err(|e| {
            let text = format!("500 Can't connect to {} ({})", place(&url), cause(&e));
            Failure::die(format!("invalid server response: '{text}'"))
        })?;
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        if response.status().is_redirection()
            && let Some(next) = header(LOCATION).and_then(|l| url.join(&l).ok())
        {
            url = next;
            continue;
        }
        if !response.status().is_success() {
            return Err(Failure::die(format!(
                "invalid server response: '{}'",
                status_text(&response)
            )));
        }
        let named = header(CONTENT_DISPOSITION).and_then(|d| {
            let (_, rest) = d.split_once("filename=")?;
            Some(
                rest.split(';')
                    .next()
                    .unwrap_or(rest)
                    .trim()
                    .trim_matches('"')
                    .to_owned(),
            )
        });
        let last = given
            .split(['?', '#'])
            .next()
            .and_then(|u| u.rsplit('/').next())
            .unwrap_or_default();
        let mut answer = json!({ "filename": named.unwrap_or_else(|| last.to_owned()) });
        let length = header(reqwest::header::CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok());
        if let Some(length) = length {
            answer["size"] = length.into();
        }
        if let Some(kind) = header(CONTENT_TYPE) {
            answer["mimetype"] = kind.split(';').next().unwrap_or_default().trim().into();
        }
        return Ok(answer.into());
    }
    Err(Failure::die("invalid server response: too many redirects"))
}

/// What a download task does.
struct Download {
    url: String,
    node: String,
    spec: crate::state::StorageSpec,
    /// Volume name, `iso/alma.iso`.
    name: String,
    checksum: Option<(String, String)>,
    decompress: bool,
    verify: bool,
}

async fn download(call: Call) -> Outcome {
    let spec = spec(&call)?;
    let content = call.params.required("content")?;
    if !spec.holds(&content) {
        let text = format!("storage '{}' is not configured for content-type '{content}'", spec.id);
        return Err(Failure::die(text));
    }
    let decompress = match call.params.text("compression").as_deref() {
        None => false,
        Some("gz") => true,
        Some(other) => {
            let text = format!("decompression of '{other}' is not emulated");
            return Err(Failure::new(501, text).with_shape(Shape::JsonBare));
        }
    };
    let name = volume_name(&content, &call.params.required("filename")?).map_err(|e| Failure::param("filename", e))?;
    let id = name.rsplit('/').next().unwrap_or_default().to_owned();
    let work = Download {
        url: call.params.required("url")?,
        node: call.node(),
        spec,
        name,
        checksum: call.params.text("checksum-algorithm").zip(call.params.text("checksum")),
        decompress,
        verify: call.params.flag("verify-certificates") != Some(false),
    };
    let upid = call.task("download", &id, |world, worker| async move {
        work.run(&world, &worker).await
    });
    Ok(upid.into())
}

impl Download {
    async fn run(self, world: &Arc<World>, worker: &Worker) -> Result<(), String> {
        let target = Storages::shown_file(&self.spec, &self.name);
        let file = world.storages().file(&self.node, &self.spec, &self.name);
        worker.log(format!("downloading {} to {target}", self.url));
        if file.exists() {
            let Some((algorithm, expected)) = self.checksum else {
                return Err(format!("refusing to override existing file '{target}'"));
            };
            worker.log("calculating checksum of existing file...");
            let found = sum(&file, &algorithm).await?;
            if !found.eq_ignore_ascii_case(&expected) {
                return Err(format!(
                    "checksum mismatch: got '{found}' != expect '{expected}', aborting"
                ));
            }
            worker.append("OK, got correct file already, no need to download");
            return Ok(());
        }
        let number = rand::random::<u16>();
        let shown = format!("{target}.tmp_dwnl.{number}");
        let dir = world.settings.data_dir.join("tmp");
        tokio::fs::create_dir_all(&dir).await.map_err(|e| e.to_string())?;
        let temporary = TemporaryFile::new(dir.join(format!("download-{}", hex::encode(rand::random::<[u8; 16]>()))));
        let room = {
            let storages = world.storages();
            self.spec
                .total_bytes
                .saturating_sub(storages.used(&self.node, &self.spec))
        };
        self.fetch(worker, &shown, temporary.path(), room).await?;
        if let Some((algorithm, expected)) = &self.checksum {
            worker.log("calculating checksum...");
            let found = sum(temporary.path(), algorithm).await?;
            if !found.eq_ignore_ascii_case(expected) {
                return Err(format!("checksum mismatch: got '{found}' != expect '{expected}'"));
            }
            worker.append("OK, checksum verified");
        }
        if self.decompress {
            let plain = format!("{target}.tmp_dcom.{number}");
            worker.log(format!("decompressing {shown} to {plain}"));
            let path = temporary.path().to_owned();
            let inflated = tokio::task::spawn_blocking(move || inflate(&path, room))
                .await
                .map_err(|e| e.to_string())?;
            if inflated
                .as_ref()
                .is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull)
            {
                worker.log("");
                worker.log("gzip: stdout: No space left on device");
                return Err(format!("command 'zcat {shown}' failed: exit code 1"));
            }
            if inflated.is_err() {
                worker.log("");
                worker.log(format!("gzip: {shown}: not in gzip format"));
                return Err(format!("command 'zcat {shown}' failed: exit code 1"));
            }
        }
        if self
            .name
            .rsplit_once('.')
            .is_some_and(|(_, e)| e.eq_ignore_ascii_case("qcow2"))
        {
            let mut magic = [0; 4];
            let read =
                std::fs::File::open(temporary.path()).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut magic));
            if read.is_err() || magic != *b"QFI\xfb" {
                worker.log(format!(
                    "command '/usr/bin/qemu-img info '--output=json' {shown} -f qcow2' failed: exit code 1"
                ));
                let text = format!("qemu-img: Could not open '{shown}': Image is not in qcow2 format");
                return Err(format!("failed to verify file: {text}"));
            }
        }
        let size = std::fs::metadata(temporary.path()).map_err(|e| e.to_string())?.len();
        let mut storages = world.storages_mut();
        storages
            .place(&self.node, &self.spec, file_volume(&self.name, size), temporary.path())
            .map_err(|e| e.to_string())?;
        worker.log(format!("download of '{}' to '{target}' finished", self.url));
        Ok(())
    }

    /// Fetches the file, with the lines that wget prints.
    async fn fetch(&self, worker: &Worker, shown: &str, into: &Path, room: u64) -> Result<(), String> {
        let client = client(self.verify)?;
        let mut url = Url::parse(&self.url).map_err(|e| e.to_string())?;
        let mut connected: Option<String> = None;
        for _ in 0..=MAX_REDIRECTS {
            worker.log(format!("--{}--  {url}", clock()));
            let place = place(&url);
            let response = client
                .get(url.clone())
                .send()
                .await
                .map_err(|e| format!("download failed: Connecting to {place}... failed: {}.", cause(&e)))?;
            if connected.as_ref() == Some(&place) {
                worker.log(format!("Reusing existing connection to {place}."));
            } else {
                worker.log(format!("Connecting to {place}... connected."));
                connected = Some(place);
            }
            worker.log(format!(
                "HTTP request sent, awaiting response... {}",
                status_text(&response)
            ));
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
            if response.status().is_redirection()
                && let Some(next) = location.and_then(|l| url.join(l).ok())
            {
                worker.log(format!("Location: {next} [following]"));
                url = next;
                continue;
            }
            if !response.status().is_success() {
                let text = status_text(&response);
                let (code, reason) = text.split_once(' ').unwrap_or_default();
                worker.log(format!("{} ERROR {code}: {reason}.", clock()));
                return Err("download failed: exit code 8".into());
            }
            return self.save(worker, shown, into, response, room).await;
        }
        Err("download failed: exit code 8".into())
    }

    async fn save(
        &self,
        worker: &Worker,
        shown: &str,
        into: &Path,
        mut response: Response,
        room: u64,
    ) -> Result<(), String> {
        let kind = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("text/plain");
        let length = response.content_length();
        match length {
            Some(length) => worker.log(format!("Length: {length}{} [{kind}]", in_brackets(length))),
            None => worker.log(format!("Length: unspecified [{kind}]")),
        }
        worker.log(format!("Saving to: '{shown}'"));
        let began = Instant::now();
        let mut file = tokio::fs::File::create(into).await.map_err(|e| e.to_string())?;
        let mut got: u64 = 0;
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|_| "download failed: exit code 4".to_owned())?
        {
            got += piece.len() as u64;
            if got > room {
                worker.log("");
                worker.log(format!("Cannot write to '{shown}' (No space left on device)."));
                return Err("download failed: exit code 3".into());
            }
            file.write_all(&piece).await.map_err(|e| e.to_string())?;
        }
        file.flush().await.map_err(|e| e.to_string())?;
        let time = began.elapsed().as_secs_f64();
        for line in progress(got, time) {
            worker.log(line);
        }
        let (number, unit) = rate(got, time);
        let of = length.unwrap_or(got);
        worker.log(format!(
            "{} ({number} {unit}B/s) - '{shown}' saved [{got}/{of}]",
            clock()
        ));
        Ok(())
    }
}

async fn sum(file: &Path, algorithm: &str) -> Result<String, String> {
    let (file, algorithm) = (file.to_owned(), algorithm.to_owned());
    let found = tokio::task::spawn_blocking(move || checksum_of(&file, &algorithm)).await;
    found.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

/// Replaces a gzip file by what is in it.
fn inflate(path: &Path, room: u64) -> std::io::Result<()> {
    let plain = path.with_extension("plain");
    let decoder = flate2::read::MultiGzDecoder::new(std::fs::File::open(path)?);
    let mut limited = std::io::Read::take(decoder, room.saturating_add(1));
    let result = std::fs::File::create(&plain).and_then(|mut out| std::io::copy(&mut limited, &mut out));
    match result {
        Ok(bytes) if bytes > room => {
            std::fs::remove_file(plain)?;
            Err(std::io::ErrorKind::StorageFull.into())
        }
        Ok(_) => std::fs::rename(plain, path),
        Err(error) => {
            std::fs::remove_file(plain)?;
            Err(error)
        }
    }
}

/// The node's time as wget prints it; emulated nodes live in UTC.
fn clock() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// ` (49K)` for sizes of 1 KiB and more.
fn in_brackets(bytes: u64) -> String {
    if bytes < 1024 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "a text for people")]
    let mut value = bytes as f64;
    for unit in ["", "K", "M"] {
        if value < 1000.0 || unit.is_empty() && value < 1024.0 {
            return if value < 10.0 {
                format!(" ({value:.1}{unit})")
            } else {
                format!(" ({value:.0}{unit})")
            };
        }
        value /= 1024.0;
    }
    if value < 10.0 {
        format!(" ({value:.1}G)")
    } else {
        format!(" ({value:.0}G)")
    }
}

/// Number and unit of a rate.
fn rate(bytes: u64, seconds: f64) -> (String, &'static str) {
    if bytes == 0 {
        return ("0.00".into(), "");
    }
    #[expect(clippy::cast_precision_loss, reason = "a text for people")]
    let mut value = bytes as f64 / seconds.max(1e-6);
    for unit in ["", "K", "M"] {
        if value < 1000.0 {
            return (three_digits(value), unit);
        }
        value /= 1024.0;
    }
    (three_digits(value), "G")
}

fn three_digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// wget's dots in its style `giga`: one dot a MiB, 32 a line.
fn progress(bytes: u64, seconds: f64) -> Vec<String> {
    let (number, unit) = rate(bytes, seconds);
    let time = if seconds < 0.001 || bytes == 0 {
        "0".to_owned()
    } else {
        format!("{seconds:.3}")
    };
    let dots = bytes >> 20;
    let mut lines = Vec::new();
    let rows = dots.div_ceil(32).max(1);
    for row in 0..rows {
        let here = (dots - row * 32).min(32);
        let mut area = String::new();
        for dot in 0..here {
            if dot > 0 && dot % 8 == 0 {
                area.push(' ');
            }
            area.push('.');
        }
        let mut line = format!("{:>6}K {area:<35}", row * 32 * 1024);
        let done = if row + 1 == rows {
            100
        } else {
            (row + 1) * 32 * 100 / dots.max(1)
        };
        // Nothing of nothing is no percentage.
        let percent = if bytes == 0 {
            String::new()
        } else {
            format!("{done:>3}%")
        };
        let end = if row + 1 == rows {
            format!("={time}s")
        } else {
            " 0s".to_owned()
        };
        let _ = write!(
            line,
            "{percent} {:>5}{end}",
            format!("{number}{}", if bytes == 0 { " " } else { unit })
        );
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_wget_writes_them() {
        for (bytes, text) in [
            (0, ""),
            (1000, ""),
            (5000, " (4.9K)"),
            (50_000, " (49K)"),
            (196_616, " (192K)"),
            (1 << 20, " (1.0M)"),
        ] {
            assert_eq!(in_brackets(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn progress_is_dotted() {
        assert_eq!(
            progress(50_000, 0.0002),
            ["     0K                                    100%  238M=0s"]
        );
        assert_eq!(
            progress(1 << 20, 0.005),
            ["     0K .                                  100%  200M=0.005s"]
        );
        assert_eq!(
            progress(0, 0.0),
            ["     0K                                     0.00 =0s"]
        );
        assert_eq!(progress(40 << 20, 1.0).len(), 2);
    }
}
