//! An emulator with simulated guests, a client for it, and specs that fit it.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod old;

use std::sync::Arc;
use std::time::Duration;

use hadris_iso::read::PathSeparator;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{InputEntry, InputTree, IsoImageWriter};
use image_build::kickstart::KickstartText;
use image_build::spec::{ImageSpecBuilder, KickstartSource, ProvisionerSpec, ShellSpec, Timeouts};
use image_build::{Artifact, Error, Event, EventKind, ImageSpec};
use proxmox_client::{Auth, Client, Tls};
use pve_emulator::engine::simulated::{SimulatedEngine, SimulatedOptions};
use pve_emulator::{Emulator, EmulatorBuilder, RequestRecord};
use tokio_util::sync::CancellationToken;

/// The ISO that every emulator here has.
pub(crate) const ISO: &str = "AlmaLinux-9.3-x86_64-minimal.iso";

pub(crate) struct Lab {
    pub(crate) pve: Emulator,
    pub(crate) guests: Arc<SimulatedEngine>,
    pub(crate) client: Client,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::of(Emulator::builder(), SimulatedOptions::default()).await
    }

    pub(crate) async fn of(builder: EmulatorBuilder, options: SimulatedOptions) -> Self {
        let guests = Arc::new(SimulatedEngine::new(options).expect("the engine starts"));
        let pve = builder
            .engine(Arc::clone(&guests) as _)
            .start()
            .await
            .expect("the emulator starts");
        pve.add_file("local", "iso", ISO, &installer_iso())
            .expect("the ISO is added");
        let client = client(&pve, pve.token_id(), pve.token_secret());
        Self { pve, guests, client }
    }

    /// The image of these tests with the seed's name and vmid.
    pub(crate) fn spec(&self) -> ImageSpecBuilder {
        self.open_spec().name("alma9-k3-node-amd64-v1.29.0-v1").vmid(9000)
    }

    /// The image of these tests, name and vmid left open: no script reaches the network. Guests take no
    /// time: no limit is reached, on a machine with much else to do either.
    pub(crate) fn open_spec(&self) -> ImageSpecBuilder {
        let limit = Duration::from_secs(120);
        ImageSpec::builder()
            .k3s_version("v1.29.0+k3s1".parse().expect("a release"))
            .node("pve")
            .ssh_port(self.guests.ssh_port())
            .ssh_timeout(limit)
            .kickstart(KickstartSource::Text {
                text: KickstartText::new(include_str!("../../../../kickstart/alma9.ks.cfg")),
                origin: "http/ks.cfg".into(),
            })
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

/// A small real volume with the label of AlmaLinux's medium.
fn installer_iso() -> Vec<u8> {
    let tree = InputTree::new(
        PathSeparator::ForwardSlash,
        vec![InputEntry::file("media.repo", b"[InstallMedia]\n".as_slice())],
    );
    let options = IsoFormatOptions {
        volume_name: "AlmaLinux-9-3-x86_64-dvd".to_owned(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: None,
        sector_size: 2048,
        path_separator: PathSeparator::ForwardSlash,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level1 {
                supports_lowercase: false,
                supports_rrip: false,
            },
            ..CreationFeatures::default()
        },
        strict_charset: false,
    };
    let empty = std::io::Cursor::new(Vec::new());
    IsoImageWriter::create(empty, tree, options)
        .expect("the volume is laid out")
        .into_inner()
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

/// The calls whose number does not depend on how long things take: all but the looks whether something has ended, and the streams that
/// are opened while a guest runs.
pub(crate) fn without_polls(requests: &[RequestRecord]) -> Vec<String> {
    let polls = ["/status", "/status/current", "/network-get-interfaces"];
    let streams = ["/termproxy", "/vncproxy", "/vncwebsocket"];
    let waits = |request: &RequestRecord| {
        let ends = |ends: &[&str]| ends.iter().any(|end| request.path.ends_with(end));
        (request.method == "GET" && ends(&polls)) || ends(&streams)
    };
    let calls = requests.iter().filter(|request| !waits(request));
    calls
        .map(|request| format!("{} {}", request.method, request.path))
        .collect()
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
