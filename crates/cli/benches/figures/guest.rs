//! Figures of a real guest: files by SSH beside `scp`, and through the agent beside a medium that carries them.
//!
//! Needs a running VM of the `qemu` engine, unsealed, with the agent open and a login by key: `make bench-guest` makes one and
//! gives its facts on standard input.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use image_build::communicator::{
    AgentCommunicator, Command as InGuest, Communicator, OutputStream, Source, SshAuth, SshCommunicator, SshTarget,
    Upload, host_key,
};
use proxmox_client::{Client, Upload as VolumeUpload, VmConfigUpdate};
use serde_json::Value;

use crate::{
    serve::{client, given_target},
    table::{Table, median, plain},
};

const AGENT_MIB: usize = 64;
const SSH_MIB: usize = 256;
/// Interleaved pairs of our upload and scp's; the median of their ratios counts.
const PAIRS: usize = 3;
/// In memory, so that no disk is measured.
const PLACE: &str = "/dev/shm/k3simage-bench";

pub(crate) fn figures(table: &mut Table) -> Result<()> {
    let target = given_target()?;
    crate::runtime()?.block_on(measure(table, &target))
}

async fn measure(table: &mut Table, target: &Value) -> Result<()> {
    let text = |key: &str| target[key].as_str().with_context(|| format!("no {key} in the target"));
    let client = client(target)?;
    let vm = client.node(&text("node")?.parse()?).qemu(text("vmid")?.parse()?);
    let agent = AgentCommunicator::connect(vm, "/var/tmp/k3simage-bench".to_owned()).await?;
    let host = text("host")?;
    let port = text("ssh_port")?.parse()?;
    let key_file = Path::new(text("key_file")?);
    let ssh = SshCommunicator::connect(SshTarget {
        host: host.to_owned(),
        port,
        user: "root".to_owned(),
        auth: SshAuth::Key(Arc::new(russh::keys::load_secret_key(key_file, None)?)),
        host_key: host_key(host, port, Duration::from_secs(60)).await?,
        attempt_timeout: Duration::from_secs(60),
    })
    .await?;

    let file = random_file("guest-ssh", SSH_MIB)?;
    let (mut ratios, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let our_time = put(&ssh, &file).await?;
        let begun = Instant::now();
        scp(&file, host, port, key_file)?;
        ratios.push(begun.elapsed().as_secs_f64() / our_time);
        ours.push(our_time);
    }
    plain(
        "SSH upload of 256 MiB: speed (median of 3)",
        rate(SSH_MIB, median(&mut ours)),
        "MiB/s",
    );
    table.at_least(
        "SSH upload of 256 MiB: speed against scp (median of 3)",
        median(&mut ratios),
        0.8,
        "x",
    );

    let file = random_file("guest-agent", AGENT_MIB)?;
    let pieces = put(&agent, &file).await?;
    plain("agent, 64 MiB in pieces: speed", rate(AGENT_MIB, pieces), "MiB/s");
    let medium = by_medium(&client, target, &agent, &file).await?;
    plain("agent, 64 MiB on a medium: speed", rate(AGENT_MIB, medium), "MiB/s");
    plain("agent, 64 MiB on a medium: speed against pieces", pieces / medium, "x");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a size like this is exact in f64")]
fn rate(mib: usize, seconds: f64) -> f64 {
    mib as f64 / seconds
}

/// A file that no cipher, no file system and no medium can make smaller.
fn random_file(name: &str, mib: usize) -> Result<PathBuf> {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut random = std::fs::File::open("/dev/urandom")?;
    let mut file = std::fs::File::create(&path)?;
    std::io::copy(&mut std::io::Read::take(&mut random, (mib as u64) << 20), &mut file)?;
    Ok(path)
}

/// Seconds of an upload, its comparison and its removal.
async fn put(guest: &dyn Communicator, file: &Path) -> Result<f64> {
    let begun = Instant::now();
    let upload = Upload {
        source: Source::File(file.to_owned()),
        destination: PLACE.to_owned(),
        mode: 0o600,
    };
    guest.upload(&upload).await?;
    let seconds = begun.elapsed().as_secs_f64();
    run(guest, &InGuest::new(["rm", PLACE])).await?;
    Ok(seconds)
}

async fn run(guest: &dyn Communicator, command: &InGuest) -> Result<String> {
    let said = std::sync::Mutex::new(String::new());
    let collect = |_: OutputStream, line: &str| {
        if let Ok(mut said) = said.lock() {
            said.push_str(line);
        }
    };
    let status = guest.exec(command, &collect).await?;
    let said = said.into_inner().unwrap_or_default();
    ensure!(status.success(), "{:?}: {status}, {said}", command.argv);
    Ok(said)
}

fn scp(file: &Path, host: &str, port: u16, key: &Path) -> Result<()> {
    let output = Command::new("scp")
        .args([
            "-q",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "IdentitiesOnly=yes",
            "-i",
        ])
        .arg(key)
        .args(["-P", &port.to_string()])
        .arg(file)
        .arg(format!("root@{host}:{PLACE}"))
        .stdin(Stdio::null())
        .output()
        .context("cannot run scp: install openssh-client to compare")?;
    if !output.status.success() {
        bail!("scp failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Seconds until a file has arrived by way of an ISO: written, uploaded to a storage, put into a drive, copied, compared.
async fn by_medium(client: &Client, target: &Value, agent: &AgentCommunicator, file: &Path) -> Result<f64> {
    let node = client.node(&target["node"].as_str().unwrap_or_default().parse()?);
    let vm = node.qemu(target["vmid"].as_str().unwrap_or_default().parse()?);
    let storage = node.storage(&"local".parse()?);
    let sum = Command::new("sha256sum").arg(file).output()?;
    let sum = String::from_utf8(sum.stdout)?;
    let sum = sum.split_whitespace().next().context("sha256sum")?;
    let begun = Instant::now();
    let iso = file.with_extension("iso");
    let made = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-V", "K3SBENCH", "-o"])
        .arg(&iso)
        .arg(file)
        .output()
        .context("cannot run xorriso")?;
    ensure!(
        made.status.success(),
        "xorriso: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    storage.upload(&VolumeUpload::iso_file(&iso)?).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let drive = "local:iso/guest-agent.iso,media=cdrom";
    vm.update_config(&VmConfigUpdate::new().set("ide2", drive)).await?;
    // The drive tells of its new medium at the next look at it.
    let copy = "for n in 1 2 3 4 5 6 7 8 9 10; do d=$(blkid -c /dev/null -L K3SBENCH) && break; sleep 1; done
        m=$(mktemp -d) && mount -o ro \"$d\" \"$m\" && cp \"$m\"/* \"$1\" && umount \"$m\" && rmdir \"$m\" && sha256sum \"$1\"";
    let said = run(agent, &InGuest::sh(copy, [PLACE])).await?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(said.contains(sum), "another sum: {said}");
    run(agent, &InGuest::new(["rm", PLACE])).await?;
    vm.update_config(&VmConfigUpdate::new().set("ide2", "none,media=cdrom"))
        .await?;
    Ok(seconds)
}
