//! The emulator under load: calls per second, a thousand VMs, start-up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxmox_client::{CreateVm, MiB, NodeName, TaskOutcome, Vmid, Wait};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process::{Served, number, run_role};
use crate::serve;
use crate::table::{Table, median, plain};

/// Connections that ask at the same time; more would only wait longer for the same two cores.
const CONNECTIONS: usize = 8;
/// How long they ask.
const LOAD: Duration = Duration::from_secs(5);
/// VMs for `cluster/resources`.
const VMS: u32 = 1000;

pub(crate) fn figures(table: &mut Table) -> Result<()> {
    let mut starts = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let served = Served::start()?;
        starts.push(began.elapsed().as_secs_f64());
        drop(served);
    }
    table.at_most(
        "emulator: start-up, process to ready (median of 5)",
        median(&mut starts),
        0.2,
        "s",
    );

    let served = Served::start()?;
    let load = run_role(&["role-load", "/version"], Some(&served.target))?;
    table.at_least(
        "emulator: GET /version per second, TLS keep-alive",
        number(&load, "per_second")?,
        5000.0,
        "/s",
    );
    table.at_most(
        "emulator: GET /version, 99 of 100 within",
        number(&load, "p99_ms")?,
        10.0,
        "ms",
    );
    plain(
        "emulator: TLS handshakes in that time",
        number(&load, "handshakes")?,
        "",
    );

    let made = run_role(&["role-thousand"], Some(&served.target))?;
    plain("emulator: 1,000 VMs created in", number(&made, "seconds")?, "s");
    table.at_most(
        "emulator: cluster/resources, 1,000 VMs (median)",
        number(&made, "median_ms")?,
        20.0,
        "ms",
    );
    plain(
        "emulator: cluster/resources, 1,000 VMs, 99 of 100 within",
        number(&made, "p99_ms")?,
        "ms",
    );
    Ok(())
}

/// A connection that is made anew when the server closes it, as PVE does after 100 requests.
struct KeepAlive {
    address: SocketAddr,
    connector: TlsConnector,
    request: Vec<u8>,
    stream: Option<TlsStream<TcpStream>>,
    handshakes: u32,
}

impl KeepAlive {
    fn new(target: &Value, path: &str) -> Result<Self> {
        let text = |key: &str| {
            target
                .get(key)
                .and_then(Value::as_str)
                .with_context(|| format!("no {key}"))
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(text("ca_pem")?.as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = text("url")?.trim_start_matches("https://").parse()?;
        let (id, secret) = (text("token_id")?, text("token_secret")?);
        let head = format!(
            "GET /api2/json{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: PVEAPIToken={id}={secret}\r\n\r\n"
        );
        Ok(Self {
            address,
            connector: TlsConnector::from(Arc::new(config)),
            request: head.into_bytes(),
            stream: None,
            handshakes: 0,
        })
    }

    /// One request and its whole answer; the bytes of the body.
    async fn get(&mut self) -> Result<usize> {
        let mut stream = if let Some(stream) = self.stream.take() {
            stream
        } else {
            self.handshakes += 1;
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            self.connector
                .connect(ServerName::try_from("localhost")?, stream)
                .await?
        };
        stream.write_all(&self.request).await?;
        let mut answer = Vec::with_capacity(1024);
        let (end, length) = loop {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended");
            let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            let head = std::str::from_utf8(answer.get(..end).unwrap_or_default())?.to_ascii_lowercase();
            ensure!(head.starts_with("http/1.1 200 "), "{head}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .context("no length")?;
            if !head.contains("\r\nconnection: close") {
                break (end + 4, length.parse::<usize>()?);
            }
            // Read to its end as well, but not used again.
            let length = length.parse::<usize>()?;
            while answer.len() < end + 4 + length {
                ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended");
            }
            return Ok(length);
        };
        while answer.len() < end + length {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the connection ended");
        }
        self.stream = Some(stream);
        Ok(length)
    }
}

/// The client's role: asks for some seconds on several connections at once.
pub(crate) async fn load(path: &str) -> Result<()> {
    let target = serve::given_target()?;
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = KeepAlive::new(&target, path)?;
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < LOAD {
                let asked = Instant::now();
                connection.get().await?;
                times.push(asked.elapsed().as_secs_f64() * 1000.0);
            }
            anyhow::Ok((times, connection.handshakes))
        }));
    }
    let (mut times, mut handshakes) = (Vec::new(), 0);
    for task in tasks {
        let (some, made) = task.await??;
        times.extend(some);
        handshakes += made;
    }
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "some ten thousand")]
    let per_second = times.len() as f64 / seconds;
    println!(
        "{}",
        json!({"per_second": per_second, "p99_ms": p99(&mut times), "handshakes": handshakes})
    );
    Ok(())
}

/// The client's role: makes the VMs and asks for all of them.
pub(crate) async fn thousand() -> Result<()> {
    let target = serve::given_target()?;
    let client = serve::client(&target)?;
    let node = client.node(&NodeName::new("pve")?);
    let began = Instant::now();
    for number in 0..VMS {
        let vm = node.qemu(Vmid::new(1000 + number)?);
        let upid = vm
            .create(&CreateVm::new().name(format!("vm{number}")).memory(MiB(512)))
            .await?;
        if number + 1 == VMS {
            let outcome = client.wait_task(&upid, Wait::at_most(Duration::from_secs(60))).await?;
            ensure!(outcome == TaskOutcome::Ok, "{outcome:?}");
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut connection = KeepAlive::new(&target, "/cluster/resources")?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let asked = Instant::now();
        let bytes = connection.get().await?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
        ensure!(bytes > 100_000, "{bytes} bytes are not 1,000 VMs");
    }
    println!(
        "{}",
        json!({"seconds": seconds, "median_ms": median(&mut times), "p99_ms": p99(&mut times)})
    );
    Ok(())
}

fn p99(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied().unwrap_or(f64::NAN)
}
