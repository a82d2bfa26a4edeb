//! The embedded emulator as the cluster of one build: what the folder asks for is there, the pipeline is the same.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use image_build::spec::{Delivery, ImageSpec, IsoSource};
use image_build::{Connection, Credentials, TlsTrust};
use pve_emulator::engine::qemu::{Accel, QemuOptions};
use pve_emulator::{Emulator, StorageSpec, Timing};

use crate::args::{AccelArg, EngineArg, QemuArgs};
use crate::output::Problem;

/// Guests run this many times faster than real: an install of some minutes takes a second or two, and every step can be seen.
const TIME_SCALE: f64 = 200.0;

/// The ISO that a fresh template folder names, and its storage.
pub(crate) const ISO: &str = "AlmaLinux-9.3-x86_64-minimal.iso";
pub(crate) const ISO_STORAGE: &str = "local";

/// Starts an emulator with the node and storages that `spec` names. For simulated guests the ISO that it names is there too;
/// real ones need a real one.
pub(crate) async fn start(
    spec: &ImageSpec,
    engine: EngineArg,
    qemu: QemuArgs,
    data: Option<&Path>,
) -> Result<Emulator, Box<Problem>> {
    let mut builder = Emulator::builder()
        .nodes([spec.node.to_string()])
        .storages(storages(spec));
    if let Some(dir) = data {
        builder = builder.data_dir(dir);
    }
    builder = match engine {
        EngineArg::Simulated => builder.timing(Timing::Scaled(TIME_SCALE)),
        EngineArg::Qemu => builder.timing(Timing::Real).qemu(qemu_options(qemu, 0)),
    };
    let emulator = builder.start().await.map_err(|error| {
        let what = "starting the embedded emulator";
        match error {
            // Nothing was begun: QEMU is not there, or cannot do what is asked.
            pve_emulator::Error::Engine { .. } => Problem::bad_input(what).because(&error),
            _ => Problem::failed(what).because(&error),
        }
    })?;
    if let (EngineArg::Simulated, IsoSource::Volid(volid)) = (engine, &spec.installer.iso) {
        emulator
            .add_installer_iso(volid.storage().as_str(), volid.file_name())
            .map_err(|error| Problem::bad_input(format!("putting {volid} on the embedded emulator")).because(&error))?;
    }
    Ok(emulator)
}

/// The settings of the engine qemu.
pub(crate) fn qemu_options(args: QemuArgs, ssh_port: u16) -> QemuOptions {
    QemuOptions {
        accel: args.accel.map(|accel| match accel {
            AccelArg::Kvm => Accel::Kvm,
            AccelArg::Tcg => Accel::Tcg,
        }),
        ssh_port,
        ..QemuOptions::default()
    }
}

/// Starts an emulator on a data directory that an earlier one has left, with the nodes that are in it.
pub(crate) async fn open(engine: EngineArg, qemu: QemuArgs, data: &Path) -> Result<Emulator, Box<Problem>> {
    let what = || format!("opening the emulator's folder {}", data.display());
    let mut nodes: Vec<String> = std::fs::read_dir(data.join("nodes"))
        .map_err(|error| {
            Problem::bad_input(what())
                .because(&error)
                .help("make it with `k3simage build DIR --emulator --data FOLDER`")
        })?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    nodes.sort();
    let builder = Emulator::builder().data_dir(data).nodes(nodes);
    let builder = match engine {
        EngineArg::Simulated => builder.timing(Timing::Scaled(TIME_SCALE)),
        EngineArg::Qemu => builder.timing(Timing::Real).qemu(qemu_options(qemu, 0)),
    };
    builder.start().await.map_err(|error| match error {
        // Nothing was begun: QEMU is not there, or cannot do what is asked.
        pve_emulator::Error::Engine { .. } => Problem::bad_input(what()).because(&error),
        _ => Problem::failed(what()).because(&error),
    })
}

/// What a build on `emulator` must be told, and nothing else: where it answers, as whom, whom to trust, and the port at which its
/// guests are reached.
pub(crate) fn connect(spec: &mut ImageSpec, emulator: &Emulator) -> Result<Connection, Box<Problem>> {
    spec.communicator.ssh.port = emulator.guest_ssh_port();
    // An address of the user's own network leads nowhere here; the guest agent tells the simulated one.
    spec.communicator.ssh.host = None;
    if let (Some(host), Delivery::Http { bind, announce, .. }) = (emulator.host_address(), &mut spec.installer.delivery)
    {
        // Guests reach what listens on loopback, and nobody else has to.
        *bind = Some(Ipv4Addr::LOCALHOST.into());
        *announce = Some(host.into());
    }
    connection(emulator)
}

/// The connection to `emulator` with its own token.
pub(crate) fn connection(emulator: &Emulator) -> Result<Connection, Box<Problem>> {
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        Problem::failed("connecting to the embedded emulator").because(error)
    };
    let url = emulator.url().parse().map_err(|error: url::ParseError| wrong(&error))?;
    let fingerprint = emulator
        .fingerprint()
        .parse()
        .map_err(|error: proxmox_client::Error| wrong(&error))?;
    let credentials = Credentials::Token {
        id: emulator.token_id().to_owned(),
        secret: emulator.token_secret().to_owned().into(),
    };
    Ok(Connection::new(url, credentials, TlsTrust::Pinned(fingerprint)))
}

/// The variables that point a template folder to `emulator`.
pub(crate) fn variables(emulator: &Emulator) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("proxmox_url", emulator.url()),
        ("proxmox_username", emulator.token_id().to_owned()),
        ("proxmox_token", emulator.token_secret().to_owned()),
        ("proxmox_fingerprint", emulator.fingerprint().to_owned()),
        ("ssh_port", emulator.guest_ssh_port().to_string()),
    ];
    variables.extend(emulator.host_address().map(|host| ("http_address", host.to_string())));
    variables
}

/// The storages of a plain Proxmox VE, and those that the spec names beside them.
fn storages(spec: &ImageSpec) -> Vec<StorageSpec> {
    let mut storages = BTreeMap::new();
    storages.insert("local".to_owned(), StorageSpec::dir("local", "/var/lib/vz"));
    storages.insert("local-lvm".to_owned(), StorageSpec::lvmthin("local-lvm"));
    let mut files = vec![spec.installer.iso_storage.to_string()];
    if let IsoSource::Volid(volid) = &spec.installer.iso {
        files.push(volid.storage().to_string());
    }
    for name in files {
        storages
            .entry(name.clone())
            .or_insert_with(|| StorageSpec::dir(&name, format!("/mnt/pve/{name}")));
    }
    let disks = spec.disks.iter().map(|disk| &disk.storage).chain(&spec.cloud_init);
    for name in disks {
        storages
            .entry(name.to_string())
            .or_insert_with(|| StorageSpec::lvmthin(name.as_str()));
    }
    storages.into_values().collect()
}
