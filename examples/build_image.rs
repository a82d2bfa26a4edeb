//! Builds an image without a template folder: a spec in code, events as they come, the artifact at the end.
//!
//! `cargo run -p k3simage-cli --example build_image -- --emulator`, or with PROXMOX_URL, PROXMOX_TOKEN_ID and PROXMOX_TOKEN set.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "cluster/mod.rs"]
mod cluster;

use anyhow::Result;
use clap::Parser;
use image_build::{Event, EventKind, ImageSpec, K3sVersion};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

/// Builds an image with k3s inside.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    cluster: cluster::ClusterArgs,
    /// The k3s release
    #[arg(long, default_value = "v1.31.3+k3s1")]
    k3s_version: K3sVersion,
}

const ISO: &str = "AlmaLinux-9.3-x86_64-minimal.iso";

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let cluster = options.cluster.cluster().await?;

    let mut spec = ImageSpec::builder()
        .k3s_version(options.k3s_version)
        .node(options.cluster.node.clone());
    if let Some(emulator) = &cluster.emulator {
        emulator.add_installer_iso("local", ISO)?;
        spec = spec.ssh_port(emulator.guest_ssh_port());
    }
    let spec = spec.build()?;

    // Ctrl-C ends the build in order: what it made is removed before the error is returned.
    let cancel = CancellationToken::new();
    let on_interrupt = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.cancel();
        }
    });

    let (events, mut told) = unbounded_channel::<Event>();
    let shown = tokio::spawn(async move {
        while let Some(event) = told.recv().await {
            if let EventKind::StepFinished {
                step, seconds, summary, ..
            } = event.kind
            {
                println!("{step:<10} {seconds:>6.1} s  {summary}");
            }
        }
    });
    let built = image_build::build(&cluster.pve, spec)
        .events(events)
        .cancel(cancel)
        .await;
    shown.await?;
    cluster.close().await;

    let artifact = built?;
    println!(
        "template {} (vmid {}) on {}, {} API requests",
        artifact.name, artifact.vmid, artifact.node, artifact.api_requests
    );
    Ok(())
}
