//! Figures of an upload: speed and memory beside `curl`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use proxmox_client::Upload;
use serde_json::{Value, json};

use crate::{
    process::{Served, memory_kib, number, run_role},
    serve::{client, given_target},
    table::{Table, median, plain},
};

const UPLOAD_BYTES: u64 = 4 << 30;
/// Interleaved pairs of our upload and curl's; the median of their ratios counts.
const PAIRS: usize = 3;
const MIB: f64 = 1024.0 * 1024.0;

#[expect(clippy::cast_precision_loss, reason = "a size like this is exact in f64")]
pub(crate) fn figures(table: &mut Table) -> Result<()> {
    let served = Served::start()?;
    let file = sparse_file("upload.iso", UPLOAD_BYTES)?;
    let words = ["role-upload", file.to_str().context("path")?];
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
    plain("upload of 4 GiB: speed (median of 3)", speed, "MiB/s");
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

pub(crate) async fn upload(file: &Path) -> Result<()> {
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

/// A file without blocks on disk: reading it costs the same for both programs and no disk is measured.
pub(crate) fn sparse_file(name: &str, bytes: u64) -> Result<PathBuf> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::File::create(&path)?.set_len(bytes)?;
    Ok(path)
}

pub(crate) fn curl(target: &Value, file: &Path) -> Result<()> {
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
