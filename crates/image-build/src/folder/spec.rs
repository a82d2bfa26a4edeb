//! From values to `ImageSpec`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use proxmox_client::{MiB, NodeName, StorageId, Vmid};
use secrecy::SecretString;

use super::template::{lines_stand, render, texts};
use super::{files, iso};
use crate::boot_command::BootCommand;
use crate::diagnostic::Diagnostic;
use crate::error::Error;
use crate::k3s_version::K3sVersion;
use crate::kickstart::KickstartText;
use crate::preset::{self, ScriptOptions};
use crate::spec::{
    Bios, CommunicatorKind, Delivery, Disk, DiskFormat, ImageSpec, K3s, K3sRole, KickstartSource, Nic, OnError,
    ProvisionerSpec, ShellSpec, TemplateName,
};
use crate::variables::{KICKSTART_TEMPLATE as TEMPLATE, Reader, Values};

/// Reads the image; `None` when so much is wrong that it cannot be described, which is noted then.
pub(super) fn read(dir: &Path, values: &Values, reader: &mut Reader<'_>) -> Result<Option<ImageSpec>, Error> {
    let mut spec = preset::spec();
    let mut whole = true;
    match iso::read(dir, reader) {
        Some(iso) => spec.installer.iso = iso,
        None => whole = false,
    }
    if reader.text("proxmox_node").is_none() {
        reader.missing("proxmox_node");
    }
    set(&mut spec.node, reader.parse::<NodeName>("proxmox_node"));
    image(&mut spec, reader);
    machine(&mut spec, reader);
    let storage = reader.parse::<StorageId>("alma_iso_storage_pool");
    set(&mut spec.installer.iso_storage, storage);
    delivery(&mut spec, reader);
    communicator(&mut spec, reader);
    let files = super::uploads::read(dir, reader);
    spec.provisioners.extend(files.into_iter().map(ProvisionerSpec::File));
    scripts(dir, &mut spec, reader)?;
    match kickstart_source(dir, values, reader)? {
        Some(source) => spec.installer.kickstart = source,
        None => whole = false,
    }
    if whole {
        let problems = spec.check();
        reader.take(problems);
    }
    Ok(whole.then_some(spec))
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// A word of a fixed list.
fn word<T: FromStr<Err = crate::UnknownWord>>(field: &mut T, name: &str, reader: &mut Reader<'_>) {
    let value = reader.parse::<T>(name);
    set(field, value);
}

fn image(spec: &mut ImageSpec, reader: &mut Reader<'_>) {
    let mut k3s: K3s = preset::k3s();
    if let Some(text) = reader.text("k3s_version") {
        match text.parse::<K3sVersion>() {
            Ok(version) => k3s.version = version,
            Err(error) => {
                let help = error.likely().map(|likely| format!("did you mean {likely}?"));
                reader.error("k3s_version", error.headline(), help);
                // What was likely meant keeps the other checks from complaining about the default.
                set(&mut k3s.version, error.likely().and_then(|likely| likely.parse().ok()));
            }
        }
    }
    word::<K3sRole>(&mut k3s.role, "k3s_role", reader);
    k3s.mirror_url = reader.text("k3s_mirror_url").map(str::to_owned);
    if let Some(mirror) = &k3s.mirror_url {
        let unproven = |name: &str| reader.text(name).is_none();
        let lacks = match mirror.starts_with("http://") {
            true if unproven("k3s_sha256") => Some("k3s_sha256"),
            true if reader.flag("k3s_airgap_images") && unproven("k3s_airgap_sha256") => Some("k3s_airgap_sha256"),
            _ => None,
        };
        if let Some(lacks) = lacks {
            reader.error(
                "k3s_mirror_url",
                "over http:// the mirror's own list of checksums proves nothing",
                Some(format!("set {lacks} too, or use https://")),
            );
        }
    }
    // A name that is only a default gives way to a version that somebody chose; one that was chosen too must agree.
    let name_is_default = reader
        .setting("image_version")
        .is_none_or(|setting| setting.origin.is_default());
    let version_is_default = reader
        .setting("k3s_version")
        .is_none_or(|setting| setting.origin.is_default());
    let next_free = TemplateName::NextFree(preset::image_name(&spec.installer.iso, &k3s.version));
    spec.name = match reader.text("image_version") {
        Some(name) if !name_is_default || version_is_default => TemplateName::Fixed(name.to_owned()),
        _ => next_free,
    };
    spec.k3s = Some(k3s);
    spec.description = reader.text("description").map(str::to_owned);
    spec.tags = reader.texts("tags");
    spec.tags.sort();
    spec.tags.dedup();
    word::<OnError>(&mut spec.on_error, "on_error", reader);
    for (field, name) in [
        (&mut spec.timeouts.install, "install_timeout"),
        (&mut spec.timeouts.task, "task_timeout"),
        (&mut spec.timeouts.shutdown, "shutdown_timeout"),
    ] {
        let limit = reader.duration(name);
        set(field, limit);
    }
}

fn machine(spec: &mut ImageSpec, reader: &mut Reader<'_>) {
    match reader.number::<u32>("vm_id") {
        None | Some(0) => {}
        Some(id) => {
            if let Ok(vmid) = Vmid::new(id) {
                spec.vmid = Some(vmid);
            } else {
                let help = "write 100 to 999999999, or 0 for the next free one".to_owned();
                reader.error("vm_id", format!("{id} is no VM id"), Some(help));
            }
        }
    }
    spec.pool = reader.parse("vm_pool");
    let hardware = &mut spec.hardware;
    set(&mut hardware.cores, reader.number("vm_cores"));
    set(&mut hardware.sockets, reader.number("vm_sockets"));
    set(&mut hardware.memory, reader.number("vm_memory").map(MiB));
    set(&mut hardware.cpu_type, reader.text("vm_cpu_type").map(str::to_owned));
    word::<Bios>(&mut hardware.bios, "vm_bios", reader);
    hardware.machine = reader.text("vm_machine").map(str::to_owned);
    set(
        &mut hardware.scsi_controller,
        reader.text("vm_scsi_controller").map(str::to_owned),
    );

    let storage = reader
        .parse::<StorageId>("vm_storage_pool")
        .unwrap_or_else(|| spec.disks[0].storage.clone());
    let size = reader.size_gib("vm_disk_size").unwrap_or(preset::DISK_GIB);
    let mut disk = Disk::new(storage.clone(), size);
    disk.format = reader.parse::<DiskFormat>("vm_disk_format");
    spec.disks = vec![disk];
    spec.cloud_init = match reader.text("vm_cloud_init_storage_pool") {
        None => Some(storage),
        Some("none") => None,
        Some(_) => reader.parse("vm_cloud_init_storage_pool"),
    };
    let mut nic = Nic::virtio(reader.text("vm_bridge").unwrap_or(preset::BRIDGE));
    nic.vlan = reader.number::<u16>("vm_vlan_tag").filter(|tag| *tag != 0);
    spec.nics = vec![nic];
}

fn delivery(spec: &mut ImageSpec, reader: &mut Reader<'_>) {
    match reader.text("kickstart_delivery") {
        None | Some("oemdrv") => {}
        Some("http") => {
            let bind = reader
                .parse::<IpAddr>("http_bind_address")
                .filter(|address| !address.is_unspecified());
            let announce = reader.parse::<IpAddr>("http_address");
            if announce.is_some_and(|address| address.is_unspecified()) {
                let help = "http_bind_address is where to listen; leave http_address empty unless a NAT lies between"
                    .to_owned();
                reader.error("http_address", "it is no address that a guest can ask", Some(help));
            }
            let from = reader.number("http_port_min").unwrap_or(8000);
            let to = reader.number("http_port_max").unwrap_or(9000);
            spec.installer.delivery = Delivery::Http {
                bind,
                ports: from..=to,
                announce,
            };
        }
        Some(other) => {
            reader.error(
                "kickstart_delivery",
                format!("`{other}` is no way for a kickstart"),
                Some("write oemdrv or http".to_owned()),
            );
        }
    }
    let lines = reader.texts("boot_command");
    if !lines.is_empty() {
        match BootCommand::from_lines(&lines) {
            Ok(command) => spec.installer.boot_command = Some(command),
            Err(error) => reader.error("boot_command", error.to_string(), error.help().map(str::to_owned)),
        }
    }
    spec.installer.boot_wait = reader.duration("boot_wait");
    set(
        &mut spec.installer.boot_key_interval,
        reader.duration("boot_key_interval"),
    );
}

fn communicator(spec: &mut ImageSpec, reader: &mut Reader<'_>) {
    word::<CommunicatorKind>(&mut spec.communicator.kind, "communicator", reader);
    let ssh = &mut spec.communicator.ssh;
    set(&mut ssh.username, reader.text("ssh_username").map(str::to_owned));
    ssh.password = reader.secret("ssh_password");
    ssh.host = reader.text("ssh_host").map(str::to_owned);
    set(&mut ssh.port, reader.number("ssh_port"));
    set(&mut ssh.timeout, reader.duration("ssh_timeout"));
}

/// The SHA-256 of a file of a release of k3s.
fn sha256(reader: &mut Reader<'_>, name: &str, file: &str) -> Option<String> {
    let sum = reader.text(name)?.to_owned();
    if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()) {
        let help = format!("write the 64 hex digits of the line for `{file}` in sha256sum-amd64.txt");
        reader.error(name, "it is no SHA-256", Some(help));
    }
    Some(sum)
}

fn scripts(dir: &Path, spec: &mut ImageSpec, reader: &mut Reader<'_>) -> Result<(), Error> {
    let Some(k3s) = spec.k3s.clone() else { return Ok(()) };
    let options = ScriptOptions {
        os_update: reader.flag("os_update"),
        hardening_oscap: reader.flag("hardening_oscap"),
        hardening_profile: reader.text("hardening_profile").unwrap_or("cis_server_l1").to_owned(),
        airgap_images: reader.flag("k3s_airgap_images"),
        k3s_sha256: sha256(reader, "k3s_sha256", "k3s"),
        airgap_sha256: sha256(reader, "k3s_airgap_sha256", "k3s-airgap-images-amd64.tar.zst"),
    };
    let environment = preset::environment(&k3s, &options);
    let listed = reader.texts("scripts");
    let limit = reader.duration("script_timeout");
    let disconnecting = reader.texts("expect_disconnect");
    for name in disconnecting.iter().filter(|name| !listed.contains(name)) {
        let near = crate::diagnostic::nearest(name, listed.iter().map(String::as_str));
        let help = near.first().map(|near| format!("did you mean {near}?"));
        reader.error(
            "expect_disconnect",
            format!("{name} is none of the scripts that run"),
            help,
        );
    }
    for name in &listed {
        match files::read(dir, &format!("scripts/{name}")) {
            Ok(Some(content)) => {
                let mut shell = ShellSpec {
                    env: environment.clone(),
                    expect_disconnect: disconnecting.contains(name),
                    ..ShellSpec::new(name.as_str(), content)
                };
                set(&mut shell.timeout, limit);
                spec.provisioners.push(ProvisionerSpec::Shell(shell));
            }
            Ok(None) => {
                let there = files::scripts(dir);
                let near = crate::diagnostic::nearest(name, there.iter().map(String::as_str));
                let help = match near.first() {
                    Some(near) => format!("did you mean {near}?"),
                    None => "k3simage init writes the scripts; the variable `scripts` lists those to run".to_owned(),
                };
                reader.error("scripts", format!("scripts/{name} does not exist"), Some(help));
            }
            Err(error) => outside(error, reader)?,
        }
    }
    match files::read(dir, &format!("scripts/{}", preset::SEAL)) {
        Ok(Some(content)) => spec.seal = Some(ShellSpec::new(preset::SEAL, content)),
        Ok(None) => spec.seal = Some(preset::seal()),
        Err(error) => outside(error, reader)?,
    }
    if let Some(seal) = &mut spec.seal {
        set(&mut seal.timeout, limit);
    }
    reader.take_all(files::unlisted(dir, &listed, preset::SEAL));
    Ok(())
}

/// Notes that a file lies outside of the folder; every other error goes on.
fn outside(error: Error, reader: &mut Reader<'_>) -> Result<(), Error> {
    match error {
        Error::Invalid(problems) => {
            for problem in problems {
                reader.error(
                    "scripts",
                    problem.message,
                    Some("keep the scripts in the folder itself".to_owned()),
                );
            }
            Ok(())
        }
        other => Err(other),
    }
}

const PLAIN: &str = "http/ks.cfg";

fn kickstart_source(dir: &Path, values: &Values, reader: &mut Reader<'_>) -> Result<Option<KickstartSource>, Error> {
    let (plain, template) = match (files::read(dir, PLAIN), files::read(dir, TEMPLATE)) {
        (Err(Error::Invalid(problems)), _) | (_, Err(Error::Invalid(problems))) => {
            reader.take_all(problems);
            return Ok(None);
        }
        (plain, template) => (plain?, template?),
    };
    let (text, file) = match (plain, template) {
        (Some(_), Some(_)) => {
            reader.take_all(
                Diagnostic::error(
                    "kickstart",
                    format!("{PLAIN} and {TEMPLATE} are both there, and only one can be meant"),
                )
                .help("take one of them away")
                .into(),
            );
            return Ok(None);
        }
        (None, None) => {
            reader.take_all(
                Diagnostic::error("kickstart", format!("there is no {PLAIN}"))
                    .help("`k3simage init` in a new folder writes one to start from")
                    .into(),
            );
            return Ok(None);
        }
        (Some(text), None) => (text, PLAIN),
        (None, Some(template)) => match render(&template, &dir.join(TEMPLATE), values) {
            Ok(text) if lines_stand(&template, &text) => (text, TEMPLATE),
            // Its lines are no longer those of the file.
            Ok(text) => (text, "http/ks.cfg.j2 (filled in)"),
            Err(diagnostic) => {
                reader.take_all((*diagnostic).into());
                return Ok(None);
            }
        },
    };
    Ok(Some(KickstartSource::Text {
        text: KickstartText::new(text).with_secrets(secrets(values)),
        origin: PathBuf::from(file),
    }))
}

/// Every text of a sensitive variable.
fn secrets(values: &Values) -> Vec<SecretString> {
    let sensitive = values.settings.values().filter(|setting| setting.sensitive);
    sensitive
        .flat_map(|setting| texts(&setting.value))
        .map(SecretString::from)
        .collect()
}
