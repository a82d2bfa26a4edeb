//! Linked clones of a template: VMs whose disks are written on top of its own.

use std::collections::BTreeSet;

use proxmox_client::{Client, Content, ErrorKind, NodeName, StorageId, VmConfig, Vmid, VolId, Volume};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::build::ask;

/// The VMs that stand on a template's disks, and the storages that could not be looked at for some.
///
/// On LVM-thin a linked clone is a snapshot that outlives its origin: PVE neither shows whose it is nor keeps the template from
/// being deleted, and nothing is lost by that. Volumes of VMs that the login may not see are not listed; PVE itself refuses to
/// delete what they stand on.
///
/// # Errors
/// [`Error::Api`] when a storage cannot be listed for another reason than a missing right.
///
/// # Source
/// `GET /nodes/{node}/storage/{storage}/content`; `FACTS` 44. A clone's volume is shown as `BASE/CLONE`, and its `parent` names the
/// base (`pve/scenarios/07-template-and-clone.json`; ZFS and RBD add `@__base__` to the latter).
pub(crate) async fn linked_clones(
    client: &Client,
    node: &NodeName,
    vmid: Vmid,
    config: &VmConfig,
    cancel: &CancellationToken,
) -> Result<(BTreeSet<Vmid>, Vec<StorageId>), Error> {
    let bases: Vec<VolId> = config
        .drives()
        .filter(|(_, drive)| !drive.is_cdrom() && !drive.is_cloud_init())
        .filter_map(|(_, drive)| drive.volid())
        .collect();
    let storages: BTreeSet<StorageId> = bases.iter().map(VolId::storage).collect();
    let (mut clones, mut unseen) = (BTreeSet::new(), Vec::new());
    for storage in storages {
        let attempt = format!("listing the disks on storage {storage} of {node}");
        let on_it = client.node(node).storage(&storage);
        let volumes = match ask(&attempt, cancel, || on_it.content(Some(Content::Images))).await {
            Ok(volumes) => volumes,
            Err(Error::Api { source, .. }) if source.kind() == ErrorKind::Permission => {
                unseen.push(storage);
                continue;
            }
            Err(error) => return Err(error),
        };
        let own: Vec<&str> = bases
            .iter()
            .filter(|base| base.storage() == storage)
            .map(|base| own_name(base.name()))
            .collect();
        let stands = |volume: &Volume| own.iter().any(|base| stands_on(volume, base));
        clones.extend(
            volumes
                .iter()
                .filter(|volume| volume.vmid != Some(vmid) && stands(volume))
                .filter_map(|volume| volume.vmid),
        );
    }
    Ok((clones, unseen))
}

/// `vm 221`, `vms 221, 222`.
pub(crate) fn vms(vmids: &BTreeSet<Vmid>) -> String {
    let ids: Vec<String> = vmids.iter().map(ToString::to_string).collect();
    let what = if ids.len() == 1 { "vm" } else { "vms" };
    format!("{what} {}", ids.join(", "))
}

/// A volume's own name, without the base that it stands on itself: `222/base-222-disk-0.qcow2` of
/// `220/base-220-disk-0.raw/222/base-222-disk-0.qcow2`, `base-222-disk-0` of `base-220-disk-0/base-222-disk-0`.
fn own_name(name: &str) -> &str {
    let Some(last) = name.rfind('/') else { return name };
    let before = name[..last].rfind('/').map_or(0, |slash| slash + 1);
    let folder = &name[before..last];
    if folder.bytes().all(|byte| byte.is_ascii_digit()) {
        &name[before..]
    } else {
        &name[last + 1..]
    }
}

fn stands_on(volume: &Volume, base: &str) -> bool {
    let shown = volume
        .volid
        .name()
        .strip_prefix(base)
        .is_some_and(|rest| rest.starts_with('/'));
    let parent = volume.extra.get("parent").and_then(serde_json::Value::as_str);
    let parent = parent.map(|parent| parent.trim_start_matches("../").trim_end_matches("@__base__"));
    shown || parent == Some(base)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_on_a_disk_is_seen_on_every_kind_of_storage() {
        for (disk, volume, parent, stands) in [
            // Directories, as recorded.
            (
                "220/base-220-disk-1.qcow2",
                "220/base-220-disk-1.qcow2/221/vm-221-disk-1.qcow2",
                Some("../220/base-220-disk-1.qcow2"),
                true,
            ),
            ("220/base-220-disk-1.qcow2", "220/base-220-disk-1.qcow2", None, false),
            (
                "220/base-220-disk-1.qcow2",
                "220/base-220-disk-0.raw/221/vm-221-disk-0.qcow2",
                Some("../220/base-220-disk-0.raw"),
                false,
            ),
            ("220/base-220-disk-1.qcow2", "223/vm-223-disk-0.qcow2", None, false),
            // A template that is itself a linked clone, and a clone of that.
            (
                "220/base-220-disk-0.raw/222/base-222-disk-0.qcow2",
                "222/base-222-disk-0.qcow2/226/vm-226-disk-0.qcow2",
                Some("../222/base-222-disk-0.qcow2"),
                true,
            ),
            (
                "220/base-220-disk-0.raw/222/base-222-disk-0.qcow2",
                "220/base-220-disk-0.raw/221/vm-221-disk-0.qcow2",
                Some("../220/base-220-disk-0.raw"),
                false,
            ),
            // ZFS and RBD.
            (
                "base-220-disk-0",
                "base-220-disk-0/vm-221-disk-0",
                Some("base-220-disk-0@__base__"),
                true,
            ),
            (
                "base-220-disk-0",
                "vm-221-disk-0",
                Some("base-220-disk-0@__base__"),
                true,
            ),
            (
                "base-220-disk-1",
                "base-220-disk-10/vm-221-disk-0",
                Some("base-220-disk-10@__base__"),
                false,
            ),
            (
                "base-220-disk-0/base-222-disk-0",
                "base-222-disk-0/vm-226-disk-0",
                None,
                true,
            ),
            // LVM-thin shows none.
            ("base-220-disk-0", "vm-221-disk-0", None, false),
        ] {
            let volume: Volume =
                serde_json::from_value(json!({"volid": format!("s1:{volume}"), "parent": parent, "vmid": 221}))
                    .unwrap();
            assert_eq!(stands_on(&volume, own_name(disk)), stands, "{disk} {volume:?}");
        }
    }
}
