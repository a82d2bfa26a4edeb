//! Figures of the client: what waiting adds to a task's own time, and what an upload costs beside `curl`.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use proxmox_client::{Client, DownloadUrl, NodeName, Wait};

use crate::{
    process::{Served, run_role},
    serve::client,
    table::{Table, median, plain},
    upload::{curl, sparse_file},
};

const UPLOAD_BYTES: u64 = 1 << 30;
/// Interleaved pairs of our upload and curl's; the median of their ratios counts.
const PAIRS: usize = 5;
/// Tasks of each length, a little apart in length, so that they end at different moments between two looks. The slowest counts.
const SAMPLES: u32 = 4;

pub(crate) fn figures(table: &mut Table) -> Result<()> {
    let served = Served::start()?;
    crate::runtime()?.block_on(waits(table, &client(&served.target)?))?;
    upload_cost(table, &served)
}

// ---- waiting ----

async fn waits(table: &mut Table, client: &Client) -> Result<()> {
    for seconds in [0.2, 1.0, 5.0, 20.0_f64] {
        let mut waiting = tokio::task::JoinSet::new();
        for sample in 0..SAMPLES {
            let length = Duration::from_secs_f64(seconds) + Duration::from_millis(37) * sample;
            waiting.spawn(added(client.clone(), length, format!("t{seconds}-{sample}.iso")));
        }
        let mut worst = 0.0_f64;
        while let Some(ended) = waiting.join_next().await {
            worst = worst.max(ended??.as_secs_f64());
        }
        let what = format!("task of {seconds} s: time that waiting adds (slowest of {SAMPLES})");
        table.at_most(&what, worst, (seconds / 10.0).max(0.3), "s");
    }
    Ok(())
}

/// A task that lasts as long as the server of the file that it fetches makes it, and how much later its end is known.
async fn added(client: Client, length: Duration, name: String) -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || -> std::io::Result<()> {
        let begun = Instant::now();
        // Whoever asks gets an answer at once, until the time is over; only the body makes a task last.
        loop {
            let (mut stream, _) = listener.accept()?;
            let mut request = [0; 4096];
            let read = stream.read(&mut request)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n")?;
            if request[..read].starts_with(b"HEAD") {
                continue;
            }
            #[expect(clippy::disallowed_methods, reason = "a thread of its own, with no runtime to block")]
            std::thread::sleep(length.saturating_sub(begun.elapsed()));
            stream.write_all(b"8 bytes.")?;
            // Closed if nobody waits for it any more.
            let _ = tell.send(Instant::now());
            return Ok(());
        }
    });
    let node = NodeName::new("pve")?;
    let storage = client.node(&node).storage(&"local".parse()?);
    let upid = storage
        .download_url(&DownloadUrl::iso(format!("http://{address}/x.iso"), name))
        .await?;
    let outcome = client
        .wait_task(&upid, Wait::at_most(length + Duration::from_secs(60)))
        .await;
    let known = Instant::now();
    let _warnings = outcome.context("the download")?;
    Ok(known - told.recv()?)
}

// ---- uploading ----

fn upload_cost(table: &mut Table, served: &Served) -> Result<()> {
    let file = sparse_file("cost.iso", UPLOAD_BYTES)?;
    let words = ["role-upload", file.to_str().context("path")?];
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let (our, _) = children_cpu(|| run_role(&words, Some(&served.target)))?;
        let (their, ()) = children_cpu(|| curl(&served.target, &file))?;
        ratios.push(our / their);
        ours.push(our);
        theirs.push(their);
    }
    std::fs::remove_file(&file)?;
    plain(
        "upload of 1 GiB: CPU, user and system (median of 5)",
        median(&mut ours),
        "s",
    );
    plain("upload of 1 GiB: CPU of curl -F", median(&mut theirs), "s");
    table.at_most(
        "upload of 1 GiB: CPU against curl -F (median of 5)",
        median(&mut ratios),
        1.2,
        "x",
    );
    Ok(())
}

/// The CPU seconds, user and system, of the child processes that `work` runs to their end.
fn children_cpu<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let before = ended_children_ticks()?;
    let done = work()?;
    #[expect(clippy::cast_precision_loss, reason = "some thousand ticks")]
    let ticks = (ended_children_ticks()? - before) as f64;
    Ok((ticks / ticks_per_second()?, done))
}

/// `cutime` and `cstime` of proc(5): the 16th and 17th field, counted behind the name, which may hold spaces.
fn ended_children_ticks() -> Result<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc/self/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/self/stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).context("a field")?.parse::<u64>().context("a number");
    Ok(ticks(13)? + ticks(14)?)
}

fn ticks_per_second() -> Result<f64> {
    let output = Command::new("getconf")
        .arg("CLK_TCK")
        .output()
        .context("cannot run getconf")?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}
