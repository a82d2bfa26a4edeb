//! Uploads an ISO with a progress bar and its checksum checked by Proxmox VE, and waits for the task.
//!
//! `cargo run -p k3simage-cli --example upload_iso -- --emulator`, or with PROXMOX_URL, PROXMOX_TOKEN_ID and PROXMOX_TOKEN set and a
//! file named.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "cluster/mod.rs"]
mod cluster;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use proxmox_client::{Content, StorageId, TaskOutcome, Upload, Wait};

/// Uploads an ISO file.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    cluster: cluster::ClusterArgs,
    /// The file; with --emulator some MiB of zeros are made when none is named
    #[arg(required_unless_present = "emulator")]
    file: Option<PathBuf>,
    /// The storage; it must have the content type iso
    #[arg(long, default_value = "local")]
    storage: StorageId,
}

/// Size of the file that is made to try it out.
const TRIAL_BYTES: u64 = 32 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let file = match &options.file {
        Some(file) => file.clone(),
        None => trial_file(folder.path())?,
    };
    let cluster = options.cluster.cluster().await?;
    let storage = cluster.pve.node(&options.cluster.node).storage(&options.storage);

    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "{bytes} of {total_bytes} {wide_bar} {bytes_per_sec}",
    )?);
    let progress = bar.clone();
    let upload = Upload::iso_file(&file)?.on_progress(move |done, total| {
        progress.set_length(total);
        progress.set_position(done);
    });
    let name = upload.file_name().to_owned();
    let upid = storage.upload(&upload).await?;
    // The bytes are on the node now; its task checks the digest and moves them to the storage.
    let outcome = cluster
        .pve
        .wait_task(&upid, Wait::at_most(Duration::from_secs(600)))
        .await?;
    if let TaskOutcome::Warnings(lines) = outcome {
        bar.println(format!("warning: {}", lines.join(" | ")));
    }
    bar.finish_and_clear();

    let isos = storage.content(Some(Content::Iso)).await?;
    let volume = isos
        .iter()
        .find(|volume| volume.volid.file_name() == name)
        .context("the upload is not listed")?;
    let size = std::fs::metadata(&file)?.len();
    ensure!(
        volume.size == Some(size),
        "{} has {:?} bytes, the file has {size}",
        volume.volid,
        volume.size
    );
    println!("{} on {}: {size} bytes", volume.volid, options.cluster.node);
    cluster.close().await;
    Ok(())
}

/// A file of zeros, which takes no room on disk.
fn trial_file(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("trial.iso");
    std::fs::File::create(&path)?.set_len(TRIAL_BYTES)?;
    Ok(path)
}
