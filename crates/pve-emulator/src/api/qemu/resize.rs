//! `PUT /nodes/{node}/qemu/{vmid}/resize`.

use std::time::Duration;

use super::options::{is_cdrom, parse};
use super::{check_lock, drive, skiplock, upid};
use crate::api::{Call, Outcome, Routes, images};
use crate::state::{StorageKind, Storages, size_text};

pub(super) fn add(routes: &mut Routes) {
    routes.add("PUT /nodes/{node}/qemu/{vmid}/resize", resize);
}

/// Bytes of `+1G` or `40G`, which the schema has checked.
fn wanted(text: &str, now: u64) -> Option<u64> {
    let (grow, rest) = text.strip_prefix('+').map_or((false, text), |r| (true, r));
    let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = rest[..rest.len() - unit.len()].parse().ok()?;
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    #[expect(clippy::cast_precision_loss, reason = "a shift of at most 40 bits is exact")]
    let bytes = number * (1_u64 << shift) as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive by the schema; too large saturates"
    )]
    let bytes = bytes as u64;
    // Sizes are whole KiB.
    (if grow { now.checked_add(bytes)? } else { bytes }).checked_next_multiple_of(1024)
}

async fn resize(call: Call) -> Outcome {
    let skiplock = skiplock(&call)?;
    let (node, vmid) = (call.node(), call.vmid());
    let (disk, size) = (call.params.required("disk")?, call.params.required("size")?);
    let digest = call.params.text("digest");
    let who = call.who.clone();
    let task = call.task("resize", &vmid.to_string(), |world, worker| async move {
        let _lock = world.lock_vm(vmid).await?;
        let machine = world.machine(&node, vmid).ok_or_else(|| {
            format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist")
        })?;
        if digest.is_some_and(|d| d != machine.digest()) {
            return Err("checksum mismatch (file change by other user?)".into());
        }
        check_lock(&machine.config, skiplock)?;
        let text = machine.config.get(&disk).ok_or_else(|| format!("disk '{disk}' does not exist"))?;
        if is_cdrom(text) {
            return Err("you can't resize a cdrom".into());
        }
        let volid = drive::volid_of(text).ok_or_else(|| format!("disk '{disk}' has no associated volume"))?.to_owned();
        let storage = volid.split(':').next().unwrap_or_default();
        world
            .access()
            .require(&who, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])
            .map_err(|f| format!("{} {}", f.status, f.message))?;
        world.spend(Duration::from_millis(100)).await;
        let found = world.storages().find(&node, &volid).map(|(s, v)| (s.clone(), v.clone()));
        let (spec, volume) = found.ok_or_else(|| format!("volume '{volid}' does not exist"))?;
        let new = wanted(&size, volume.size_bytes).ok_or("unable to parse size")?;
        if new > drive::MAX_SIZE {
            let shown = Storages::shown_file(&spec, &volume.name);
            return Err(format!("command '/usr/bin/qemu-img resize -f {} {shown} {new}' failed: exit code 1", volume.format));
        }
        if new < volume.size_bytes {
            return Err("shrinking disks is not supported".into());
        }
        if new == volume.size_bytes {
            return Ok(());
        }
        if volume.name.rsplit('/').next().is_some_and(|n| n.starts_with("base-")) && spec.kind == StorageKind::Dir {
            let shown = Storages::shown_file(&spec, &volume.name);
            let (format, how) = (&volume.format, if volume.format == "qcow2" { "metadata" } else { "off" });
            worker.log(format!(
                "qemu-img: Could not open '{shown}': Could not open '{shown}': Operation not permitted"
            ));
            return Err(format!(
                "command '/usr/bin/qemu-img resize '--preallocation={how}' -f {format} {shown} {new}' failed: exit code 1"
            ));
        }
        if world.engine.status(vmid).is_some() {
            world.engine.resize(vmid, &disk, new).await?;
        } else {
            let image = images::image(&world, &node, &spec, &volume);
            world.engine.disks().resize(&image, new).await?;
        }
        world.storages_mut().set_size(&node, &spec, &volume.name, new).map_err(|e| e.to_string())?;
        worker.log("Image resized.");
        let mut parts = parse(&disk, text).map_err(|f| f.message)?;
        parts.set("size", size_text(new));
        world.change_machine(vmid, |m| m.config.insert(disk, parts.print("file")));
        Ok(())
    });
    Ok(upid(task))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_absolute_or_more() {
        for (text, now, bytes) in [
            ("+1G", 1 << 30, Some(2 << 30)),
            ("40G", 1, Some(40 << 30)),
            ("512M", 0, Some(512 << 20)),
            ("1.5K", 0, Some(2048)),
            ("1000", 0, Some(1024)),
            ("5X", 0, None),
            ("+99999999999T", 1, None),
            ("99999999999999999999", 0, None),
        ] {
            assert_eq!(wanted(text, now), bytes, "{text}");
        }
    }
}
