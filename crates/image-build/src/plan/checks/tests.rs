//! The checks against lists in the form that PVE sends them.

use proxmox_client::{Permissions, Release, Vmid};
use serde_json::{Value, json};

use super::*;
use crate::plan::Level;
use crate::plan::privileges::grants_with;
use crate::preset;

fn list<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn bad(report: &PlanReport) -> Vec<String> {
    report.at(Level::Error).map(ToString::to_string).collect()
}

#[track_caller]
fn one(report: &PlanReport, parts: &[&str]) {
    let bad = bad(report);
    assert_eq!(bad.len(), 1, "{bad:?}");
    for part in parts {
        assert!(bad[0].contains(part), "`{part}` is not in `{}`", bad[0]);
    }
}

fn nodes() -> Vec<Resource> {
    list(json!([
        {"id": "node/pve", "type": "node", "node": "pve", "status": "online"},
        {"id": "node/pve2", "type": "node", "node": "pve2", "status": "offline"},
        {"id": "storage/pve/local", "type": "storage", "node": "pve", "storage": "local"},
    ]))
}

#[test]
fn the_node_must_exist_and_be_there() {
    for (name, ok, parts) in [
        ("pve", true, vec![]),
        (
            "pvee",
            false,
            vec!["no node `pvee`", "did you mean `pve", "proxmox_node"],
        ),
        ("zzz", false, vec!["no node `zzz`", "one that exists: pve, pve2"]),
        ("pve2", false, vec!["`pve2` is offline"]),
    ] {
        let mut spec = preset::spec();
        spec.node = name.parse().unwrap();
        let mut report = PlanReport::default();
        assert_eq!(node(&mut report, &spec, &nodes()), ok, "{name}");
        if ok {
            assert!(report.is_ok());
        } else {
            one(&report, &parts);
        }
    }
}

fn storage_list() -> Vec<StorageStatus> {
    list(json!([
        {"storage": "local", "type": "dir", "content": "iso,vztmpl,backup", "enabled": 1, "active": 1, "avail": 100_u64 << 30},
        {"storage": "local-lvm", "type": "lvmthin", "content": "images,rootdir", "enabled": 1, "active": 1, "avail": 8_u64 << 30},
        {"storage": "nas", "type": "nfs", "content": "images,iso", "enabled": 1, "active": 0},
    ]))
}

#[test]
fn storages_must_exist_be_active_and_hold_the_content() {
    let check = |disk: &str, iso: &str| {
        let mut spec = preset::spec();
        spec.disks[0].storage = disk.parse().unwrap();
        spec.cloud_init = None;
        spec.installer.iso_storage = iso.parse().unwrap();
        let mut report = PlanReport::default();
        storages(&mut report, &spec, &storage_list(), &BTreeSet::new(), false);
        report
    };
    let report = check("local-lvm", "local");
    assert!(report.is_ok());
    let warnings: Vec<String> = report.at(Level::Warning).map(ToString::to_string).collect();
    assert!(
        warnings[0].contains("`local-lvm` has 8.0 GiB free, the disks are 32 GiB"),
        "{warnings:?}"
    );
    one(
        &check("local-lmv", "local"),
        &["no storage `local-lmv`", "did you mean `local-lvm`", "vm_storage_pool"],
    );
    one(
        &check("local", "local"),
        &[
            "`local` does not hold content `images`",
            "(local-lvm, nas)",
            "vm_storage_pool",
            "pvesm set local",
        ],
    );
    one(
        &check("local-lvm", "local-lvm"),
        &["`local-lvm` does not hold content `iso`", "alma_iso_storage_pool"],
    );
    one(&check("nas", "local"), &["`nas` is not active"]);
}

#[test]
fn the_bridge_must_be_one() {
    let networks: Vec<NetworkInterface> = list(json!([
        {"iface": "eth0", "type": "eth", "active": 1},
        {"iface": "vmbr0", "type": "bridge", "active": 1, "cidr": "192.0.2.2/24"},
        {"iface": "vmbr1", "type": "bridge"},
    ]));
    let check = |bridge: &str| {
        let mut spec = preset::spec();
        spec.nics[0].bridge = bridge.to_owned();
        let mut report = PlanReport::default();
        bridges(&mut report, &spec, &networks, &BTreeSet::new());
        report
    };
    assert_eq!(check("vmbr0").summary(), "bridge vmbr0");
    assert_eq!(check("vmbr1").at(Level::Warning).count(), 1);
    one(&check("vmbr9"), &["no bridge `vmbr9`", "vmbr0", "vm_bridge"]);
    one(&check("eth0"), &["`eth0` on node `pve` is of type `eth`, not a bridge"]);
}

#[test]
fn names_and_vmids_that_are_taken_are_told_with_their_owner() {
    let guests: Vec<Resource> = list(json!([
        {"id": "qemu/100", "type": "qemu", "vmid": 100, "name": "web", "node": "pve"},
        {"id": "qemu/9000", "type": "qemu", "vmid": 9000, "name": "alma9-k3-node-amd64-v1.29.0-v1", "node": "pve", "template": 1},
    ]));
    let guests: Vec<&Resource> = guests.iter().collect();
    let mut spec = preset::spec();
    spec.name = crate::spec::TemplateName::Fixed("alma9-k3-node-amd64-v1.29.0-v1".to_owned());
    let mut report = PlanReport::default();
    name(&mut report, &spec, &guests);
    one(&report, &["taken by template 9000", "alma9-k3-node-amd64-v1.29.0-v2"]);

    spec.name = crate::spec::TemplateName::NextFree("alma9-k3-node-amd64-v1.29.0-v1".parse().unwrap());
    let mut report = PlanReport::default();
    assert_eq!(name(&mut report, &spec, &guests), "alma9-k3-node-amd64-v1.29.0-v2");
    assert!(report.is_ok());

    spec.vmid = Some(Vmid::new(100).unwrap());
    let mut report = PlanReport::default();
    vmid_taken(&mut report, &spec, &guests);
    one(&report, &["vmid 100 is taken by 100 (web) on pve", "vm_id"]);
    spec.vmid = Some(Vmid::new(7777).unwrap());
    let mut report = PlanReport::default();
    vmid_taken(&mut report, &spec, &guests);
    one(&report, &["a guest that this login may not see"]);
}

#[test]
fn the_cpu_type_must_be_offered() {
    let spec = preset::spec();
    for (names, ok) in [
        (vec!["x86-64-v2-AES", "host"], true),
        (vec![], true),
        (vec!["kvm64", "x86-64-v2"], false),
    ] {
        let mut report = PlanReport::default();
        cpu_type(&mut report, &spec, &names);
        assert_eq!(report.is_ok(), ok, "{names:?}");
        if !ok {
            one(
                &report,
                &[
                    "does not offer the CPU type `x86-64-v2-AES`",
                    "`x86-64-v2`",
                    "vm_cpu_type",
                ],
            );
        }
    }
}

#[test]
fn old_releases_are_refused() {
    for (text, ok) in [("9.2.11", true), ("8.4-1", true), ("8.0.3", true), ("7.4-17", false)] {
        let found: Version = list(json!({"version": text, "release": text, "repoid": "x"}));
        assert_eq!(found.number(), Release::parse(text).unwrap());
        let mut report = PlanReport::default();
        version(&mut report, &found);
        assert_eq!(report.is_ok(), ok, "{text}");
    }
}

fn permissions(grants: &[Grant]) -> Permissions {
    let entries: serde_json::Map<String, Value> = grants
        .iter()
        .map(|grant| {
            let held: serde_json::Map<String, Value> =
                grant.privileges.iter().map(|p| ((*p).to_owned(), 1.into())).collect();
            (grant.path.clone(), held.into())
        })
        .collect();
    list(entries.into())
}

#[test]
fn each_privilege_taken_away_is_named_with_its_path_and_the_line_that_grants_it() {
    for major in [8, 9] {
        let all = grants_with(&preset::spec(), major, "/vms/100", &[]);
        let check = |held: &[Grant]| {
            let mut report = PlanReport::default();
            let held = Held::of(&all, &permissions(held));
            privileges(&mut report, &all, &held, "packer@pve!build");
            report
        };
        assert!(check(&all).is_ok(), "{:?}", bad(&check(&all)));
        for (index, Grant { path, privileges, .. }) in all.iter().enumerate() {
            for removed in privileges {
                let mut less = all.clone();
                less[index].privileges.retain(|privilege| privilege != removed);
                // A path without any privilege is not listed at all; something else stays on it.
                less[index].privileges.push("Sys.Syslog");
                let acl = format!("pveum acl modify {path} --users packer@pve --tokens 'packer@pve!build'");
                one(&check(&less), &[&format!("lacks {removed} on {path}"), &acl, removed]);
            }
        }
    }
}

#[test]
fn what_the_login_may_not_see_is_not_called_missing_as_well() {
    let all = grants_with(&preset::spec(), 9, "/vms/100", &[]);
    let mut report = PlanReport::default();
    let on_vms = Held::of(&all, &permissions(&all[..1]));
    let hidden = privileges(&mut report, &all, &on_vms, "packer@pve!build");
    assert_eq!(hidden, ["local", "local-lvm", "vmbr0"].map(str::to_owned).into());
    assert_eq!(report.at(Level::Error).count(), 3);
    storages(&mut report, &preset::spec(), &[], &hidden, false);
    bridges(&mut report, &preset::spec(), &[], &hidden);
    assert_eq!(report.at(Level::Error).count(), 3, "{:?}", bad(&report));
}

#[test]
fn a_token_without_any_right_is_told_about_privilege_separation() {
    let mut report = PlanReport::default();
    no_privilege(&mut report, "packer@pve!build");
    one(
        &report,
        &[
            "no privilege at all",
            "privilege separation",
            "pveum user token add packer@pve build --privsep 0",
        ],
    );
}
