//! Measures the figures of `docs/benchmarks.md`: `make bench`.
//!
//! One program in several roles, each a process of its own, so that memory is the operating system's account of one role:
//! `serve` is the emulator, `build` and `upload` are clients. Without a role it drives the others and prints the table.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are its output")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use image_build::{ImageSpec, spec::IsoSource};
use proxmox_client::{Auth, Client, Tls, Upload};
use pve_emulator::{Emulator, Timing};
use serde_json::{Value, json};

const ISO: &str = "AlmaLinux-9.3-x86_64-minimal.iso";
const UPLOAD_BYTES: u64 = 4 << 30;
/// Interleaved pairs of our upload and curl's; the median of their ratios counts.
const PAIRS: usize = 3;
const MIB: f64 = 1024.0 * 1024.0;

fn main() -> ExitCode {
    // `cargo bench` adds --bench to what it was given.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve"] => runtime().and_then(|rt| rt.block_on(serve())),
        ["build", count] => runtime().and_then(|rt| rt.block_on(build_role(count, None))),
        ["build-embedded", count] => runtime().and_then(|rt| rt.block_on(build_embedded(count))),
        ["upload", file] => runtime().and_then(|rt| rt.block_on(upload(Path::new(file)))),
        [] => return drive(),
        other => Err(anyhow::anyhow!("unknown role {other:?}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures {}: {error:#}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

// ---- the emulator's role ----

async fn emulator() -> Result<Emulator> {
    let pve = Emulator::builder()
        .timing(Timing::Instant)
        .delays(false)
        .start()
        .await?;
    pve.add_installer_iso("local", ISO)?;
    Ok(pve)
}

fn target(pve: &Emulator) -> Value {
    json!({
        "url": pve.url(), "fingerprint": pve.fingerprint(), "token_id": pve.token_id(),
        "token_secret": pve.token_secret(), "ssh_port": pve.guest_ssh_port(), "ca_pem": pve.ca_pem(),
    })
}

async fn serve() -> Result<()> {
    let pve = emulator().await?;
    println!("{}", target(&pve));
    // The driver holds our standard input open for as long as it needs us.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await?;
    pve.shutdown().await;
    Ok(())
}

// ---- the clients' roles ----

fn client(target: &Value) -> Result<Client> {
    let text = |key: &str| {
        target
            .get(key)
            .and_then(Value::as_str)
            .with_context(|| format!("no {key} in the target"))
    };
    Ok(Client::builder(text("url")?)
        .auth(Auth::token(text("token_id")?, text("token_secret")?))
        .tls(Tls::Pinned(text("fingerprint")?.parse()?))
        .build()?)
}

fn given_target() -> Result<Value> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

async fn build_embedded(count: &str) -> Result<()> {
    let pve = emulator().await?;
    build_role(count, Some(target(&pve))).await?;
    pve.shutdown().await;
    Ok(())
}

async fn build_role(count: &str, target: Option<Value>) -> Result<()> {
    let target = target.map_or_else(given_target, Ok)?;
    let count: u32 = count.parse()?;
    let client = client(&target)?;
    let ssh_port = u16::try_from(target["ssh_port"].as_u64().context("ssh_port")?)?;
    let begun = Instant::now();
    let mut builds = tokio::task::JoinSet::new();
    for iteration in 1..=count {
        let spec = ImageSpec::builder()
            .k3s_version("v1.29.0+k3s1".parse()?)
            .name(format!("alma9-k3-node-amd64-v1.29.0-v{iteration}"))
            .node("pve")
            .iso(IsoSource::Volid(format!("local:iso/{ISO}").parse()?))
            .ssh_port(ssh_port)
            .build()?;
        builds.spawn(image_build::build(&client, spec).into_future());
    }
    while let Some(ended) = builds.join_next().await {
        ended?.context("a build failed")?;
    }
    let wall_s = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({ "requests": client.request_count(), "wall_s": wall_s, "peak_kib": memory_kib("VmHWM")? })
    );
    Ok(())
}

async fn upload(file: &Path) -> Result<()> {
    let target = given_target()?;
    let client = client(&target)?;
    // The handshake and the first answer belong to every program; what counts is the growth with the file.
    client.version().await?;
    let before_kib = memory_kib("VmHWM")?;
    let storage = client.node(&"pve".parse()?).storage(&"local".parse()?);
    let upid = storage.upload(&Upload::iso_file(file)?.without_checksum()).await?;
    println!(
        "{}",
        json!({ "upid": upid.to_string(), "growth_kib": memory_kib("VmHWM")? - before_kib })
    );
    Ok(())
}

/// A line of `/proc/self/status` in KiB: `VmHWM` is the peak of the resident memory.
fn memory_kib(key: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let words = line
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("no {key}"))?;
    Ok(words.parse()?)
}

// ---- the driver ----

struct Served {
    child: Child,
    input: Option<ChildStdin>,
    target: Value,
}

impl Served {
    fn start() -> Result<Self> {
        let mut child = role(&["serve"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        Ok(Self {
            child,
            input,
            target: serde_json::from_str(&line).context("the emulator did not start")?,
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.input.take());
        // Nothing to do about a failure here: the figures are taken already.
        let _ = self.child.wait();
    }
}

fn role(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| PathBuf::from("figures")));
    command.args(words);
    command
}

fn run_role(words: &[&str], target: Option<&Value>) -> Result<Value> {
    let mut child = role(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let (Some(mut input), Some(target)) = (child.stdin.take(), target) {
        writeln!(input, "{target}")?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "role {words:?} failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Prints figures beside what they are to reach, and remembers whether one was missed.
#[derive(Default)]
struct Table {
    missed: bool,
}

impl Table {
    fn at_most(&mut self, what: &str, value: f64, limit: f64, unit: &str) {
        self.row(what, value, &format!("<= {limit} {unit}"), unit, value <= limit);
    }

    fn at_least(&mut self, what: &str, value: f64, limit: f64, unit: &str) {
        self.row(what, value, &format!(">= {limit} {unit}"), unit, value >= limit);
    }

    fn row(&mut self, what: &str, value: f64, goal: &str, unit: &str, ok: bool) {
        self.missed |= !ok;
        println!(
            "{what:<58} {value:>9.2} {unit:<9} {goal:<16} {}",
            if ok { "ok" } else { "MISSED" }
        );
    }
}

fn drive() -> ExitCode {
    let mut table = Table::default();
    match figures(&mut table) {
        Ok(()) if table.missed => ExitCode::from(1),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts and KiB of these sizes are exact in f64"
)]
fn figures(table: &mut Table) -> Result<()> {
    let number = |value: &Value, key: &str| value[key].as_f64().with_context(|| format!("no {key} in {value}"));

    let served = Served::start()?;
    let mut walls = Vec::new();
    let mut one = Value::Null;
    for _ in 0..5 {
        // Each on an emulator of its own: the name is taken once it was built.
        let served = Served::start()?;
        one = run_role(&["build", "1"], Some(&served.target))?;
        walls.push(number(&one, "wall_s")?);
    }
    table.at_most("one build: API requests", number(&one, "requests")?, 60.0, "");
    table.at_most(
        "one build: wall, the guest taking no time (median of 5)",
        median(&mut walls),
        1.0,
        "s",
    );
    table.at_most(
        "one build: peak memory of the builder",
        number(&one, "peak_kib")? / 1024.0,
        64.0,
        "MiB",
    );
    let embedded = run_role(&["build-embedded", "1"], None)?;
    table.at_most(
        "one build: peak memory, emulator embedded",
        number(&embedded, "peak_kib")? / 1024.0,
        64.0,
        "MiB",
    );

    let many = run_role(&["build-embedded", "100"], None)?;
    table.at_most(
        "100 builds at once, emulator embedded: peak memory",
        number(&many, "peak_kib")? / 1024.0,
        256.0,
        "MiB",
    );
    println!(
        "{:<58} {:>9.2} s",
        "100 builds at once, emulator embedded: wall",
        number(&many, "wall_s")?
    );

    let file = sparse_file()?;
    let words = ["upload", file.to_str().context("path")?];
    let (mut ratios, mut ours_s, mut growth) = (Vec::new(), Vec::new(), 0.0_f64);
    for _ in 0..PAIRS {
        let begun = Instant::now();
        let ours = run_role(&words, Some(&served.target))?;
        let our_time = begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        curl(&served.target, &file)?;
        ratios.push(begun.elapsed().as_secs_f64() / our_time);
        ours_s.push(our_time);
        growth = growth.max(number(&ours, "growth_kib")?);
    }
    let speed = UPLOAD_BYTES as f64 / MIB / median(&mut ours_s);
    println!("{:<58} {speed:>9.2} MiB/s", "upload of 4 GiB: speed (median of 3)");
    table.at_least(
        "upload of 4 GiB: speed against curl -F (median of 3)",
        median(&mut ratios),
        0.9,
        "x",
    );
    table.at_most("upload of 4 GiB: growth of memory", growth / 1024.0, 32.0, "MiB");
    std::fs::remove_file(&file)?;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// 4 GiB without blocks on disk: reading it costs the same for both programs and no disk is measured.
fn sparse_file() -> Result<PathBuf> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("upload.iso");
    std::fs::File::create(&path)?.set_len(UPLOAD_BYTES)?;
    Ok(path)
}

fn curl(target: &Value, file: &Path) -> Result<()> {
    let text = |key: &str| target[key].as_str().unwrap_or_default();
    let ca = file.with_extension("pem");
    std::fs::write(&ca, text("ca_pem"))?;
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--cacert"])
        .arg(&ca)
        .arg("--header")
        .arg(format!(
            "Authorization: PVEAPIToken={}={}",
            text("token_id"),
            text("token_secret")
        ))
        // PVE never answers `Expect: 100-continue` (FACTS 21), and curl would wait a second for it.
        .args(["--header", "Expect:", "--form", "content=iso", "--form"])
        .arg(format!("filename=@{};filename=curl.iso", file.display()))
        .arg(format!("{}/api2/json/nodes/pve/storage/local/upload", text("url")))
        .output()
        .context("cannot run curl: install it to compare")?;
    if !output.status.success() {
        bail!("curl failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
