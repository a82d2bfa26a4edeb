//! An emulator, a client for it, and specs that fit it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::time::Duration;

use image_build::spec::{ImageSpecBuilder, ProvisionerSpec, ShellSpec, Timeouts};
use image_build::{Artifact, Error, Event, EventKind, ImageSpec};
use proxmox_client::{Auth, Client, Tls};
use pve_emulator::Emulator;
use tokio_util::sync::CancellationToken;

/// The ISO that every emulator here has.
pub(crate) const ISO: &str = "AlmaLinux-9.3-x86_64-minimal.iso";

pub(crate) struct Lab {
    pub(crate) pve: Emulator,
    pub(crate) client: Client,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::of(Emulator::start().await.expect("the emulator starts"))
    }

    pub(crate) fn of(pve: Emulator) -> Self {
        pve.add_file("local", "iso", ISO, b"stands for an ISO")
            .expect("the ISO is added");
        let client = client(&pve, pve.token_id(), pve.token_secret());
        Self { pve, client }
    }

    /// The image of these tests: no script reaches the network, all limits are short.
    pub(crate) fn spec(&self) -> ImageSpecBuilder {
        let limit = Duration::from_secs(30);
        ImageSpec::builder()
            .k3s_version("v1.29.0+k3s1".parse().expect("a release"))
            .name("alma9-k3-node-amd64-v1.29.0-v1")
            .node("pve")
            .vmid(9000)
            .ssh_timeout(limit)
            .provisioners(scripts())
            .seal(Some(ShellSpec::new(
                "seal.sh",
                include_str!("../../../../scripts/seal.sh"),
            )))
            .timeouts(Timeouts {
                install: limit,
                task: limit,
                shutdown: limit,
                undo: limit,
            })
    }

    /// Runs a build and collects its events.
    pub(crate) async fn build(&self, spec: ImageSpec) -> (Result<Artifact, Error>, Vec<Event>) {
        let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
        let ended = image_build::build(&self.client, spec).events(to).await;
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            seen.push(event);
        }
        (ended, seen)
    }

    /// Runs a build that is cancelled as soon as `when` says so of an event.
    pub(crate) async fn build_until(
        &self,
        spec: ImageSpec,
        when: impl Fn(&EventKind) -> bool,
    ) -> (Result<Artifact, Error>, Vec<Event>) {
        let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let build = image_build::build(&self.client, spec).events(to).cancel(cancel.clone());
        let running = tokio::spawn(async move { build.await });
        let mut seen = Vec::new();
        while let Some(event) = events.recv().await {
            if when(&event.kind) {
                cancel.cancel();
            }
            seen.push(event);
        }
        (running.await.expect("the build does not panic"), seen)
    }

    /// What a test compares before and after: guests and volumes.
    pub(crate) fn inventory(&self) -> (Vec<u32>, Vec<String>) {
        let mut volumes = self.pve.volids("pve");
        volumes.sort();
        (self.pve.vmids(), volumes)
    }
}

/// The scripts of the preset, with the version that the tests build.
pub(crate) fn scripts() -> Vec<ProvisionerSpec> {
    let script = |name: &str, text: &str| ShellSpec::new(name, text);
    vec![
        ProvisionerSpec::Shell(script("os-update.sh", include_str!("../../../../scripts/os-update.sh"))),
        ProvisionerSpec::Shell(
            script("k3s-install.sh", include_str!("../../../../scripts/k3s-install.sh"))
                .env("K3S_VERSION", "v1.29.0+k3s1")
                .env("K3S_ROLE", "server"),
        ),
    ]
}

pub(crate) fn client(pve: &Emulator, token_id: &str, secret: &str) -> Client {
    Client::builder(pve.url())
        .auth(Auth::token(token_id, secret))
        .tls(Tls::Pinned(pve.fingerprint().parse().expect("a fingerprint")))
        .build()
        .expect("a client")
}

/// Names of the steps that finished well.
pub(crate) fn finished(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::StepFinished { step, ok: true, .. } => Some(step.clone()),
            _ => None,
        })
        .collect()
}

/// All that was told, for the messages of failed assertions.
pub(crate) fn story(events: &[Event]) -> String {
    events
        .iter()
        .map(|event| format!("{:?}", event.kind))
        .collect::<Vec<_>>()
        .join("\n")
}
