//! The space that the full copies of an exchange of vmids take.

use std::collections::BTreeMap;

use proxmox_client::{StorageStatus, VmConfig};

use super::CHECK;
use crate::plan::report::PlanReport;
use crate::replace::OldTemplate;
use crate::spec::ImageSpec;
use crate::text::human_bytes;

/// Sizes of disks, by storage.
type Sizes = BTreeMap<String, u64>;

/// The copies for people: `two full copies (60 GiB)`.
pub(super) fn copies(spec: &ImageSpec, old: &VmConfig, then: OldTemplate) -> String {
    let new: u64 = of_spec(spec).values().sum();
    match then {
        OldTemplate::Delete => format!("one full copy, {}", human_bytes(new)),
        OldTemplate::Retire => {
            let old: u64 = of_config(old).values().sum();
            format!("two full copies, {}", human_bytes(new + old))
        }
    }
}

/// Warns of a storage that has room for the new template, as the plan asks in any case, but not for the copies beside it.
///
/// The most is in use when the new template is there twice; an old one that is kept is there twice too before that, and its first disks
/// are given back in between.
pub(super) fn check(
    report: &mut PlanReport,
    spec: &ImageSpec,
    storages: &[StorageStatus],
    old: &VmConfig,
    then: OldTemplate,
) {
    let (new, old) = (of_spec(spec), of_config(old));
    for storage in storages {
        let (Some(name), Some(avail)) = (storage.storage.as_ref(), storage.avail) else {
            continue;
        };
        let on = |sizes: &Sizes| sizes.get(name.as_str()).copied().unwrap_or_default();
        let (new, old) = (on(&new), on(&old));
        let most = match then {
            OldTemplate::Retire => new + new.max(old),
            OldTemplate::Delete => new.max((2 * new).saturating_sub(old)),
        };
        if new <= avail && avail < most {
            report.warning(
                CHECK,
                format!(
                    "storage `{name}` has {} free, and the new template with the copies for the exchange of vmids takes up to {}",
                    human_bytes(avail),
                    human_bytes(most)
                ),
                "that is enough only where space is taken as it is written (thin): make room, or set vm_id to 0, which needs no copies",
            );
        }
    }
}

fn of_spec(spec: &ImageSpec) -> Sizes {
    let mut sizes = Sizes::new();
    for disk in &spec.disks {
        *sizes.entry(disk.storage.to_string()).or_default() += disk.size_gib << 30;
    }
    sizes
}

fn of_config(config: &VmConfig) -> Sizes {
    let mut sizes = Sizes::new();
    for (_, drive) in config
        .drives()
        .filter(|(slot, drive)| !slot.starts_with("unused") && !drive.is_cdrom())
    {
        if let (Some(volid), Some(size)) = (drive.volid(), drive.size_bytes()) {
            *sizes.entry(volid.storage().to_string()).or_default() += size;
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_most_that_is_in_use_is_counted_by_storage() {
        let mut spec = crate::preset::spec();
        spec.disks[0].storage = "fast".parse().unwrap();
        spec.disks[0].size_gib = 30;
        let old = VmConfig::from_json(
            serde_json::from_value(json!({
                "scsi0": "fast:base-100-disk-0,size=20G", "scsi1": "slow:base-100-disk-1,size=10G",
                "ide2": "fast:vm-100-cloudinit,media=cdrom,size=4M", "unused0": "fast:vm-100-disk-9"
            }))
            .unwrap(),
        );
        let warned = |avail_gib: u64, then| {
            let storages: Vec<StorageStatus> = serde_json::from_value(json!([
                {"storage": "fast", "avail": avail_gib << 30}, {"storage": "slow", "avail": avail_gib << 30}
            ]))
            .unwrap();
            let mut report = PlanReport::default();
            check(&mut report, &spec, &storages, &old, then);
            report
                .findings
                .iter()
                .map(|finding| finding.message.clone())
                .collect::<Vec<_>>()
        };
        assert!(warned(60, OldTemplate::Retire).is_empty());
        let short = warned(59, OldTemplate::Retire);
        assert_eq!(short.len(), 1, "{short:?}");
        assert!(short[0].contains("`fast`") && short[0].contains("60"), "{short:?}");
        assert!(warned(40, OldTemplate::Delete).is_empty());
        assert_eq!(warned(39, OldTemplate::Delete).len(), 1);
        // Too little for the disks alone is told by the check of those.
        assert!(warned(29, OldTemplate::Retire).is_empty());
        assert_eq!(copies(&spec, &old, OldTemplate::Retire), "two full copies, 60 GiB");
        assert_eq!(copies(&spec, &old, OldTemplate::Delete), "one full copy, 30 GiB");
    }
}
