//! Rights on the emulator, as PVE 9.2 and as 8.4: the documented role is enough and has nothing too much, and the lines that
//! a plan prints really grant what it misses.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

#[path = "../common/mod.rs"]
mod common;
mod login;

use std::collections::BTreeSet;

use common::{Lab, story};
use image_build::plan::{Grant, Level};
use image_build::spec::{CommunicatorKind, ImageSpecBuilder};
use image_build::verify::{VerifySpec, preflight, verify_grants};
use image_build::{ImageSpec, OldTemplate, PlanReport, Replace};
use login::{Rights, TOKEN};
use proxmox_client::Method;

/// The editions that the emulator plays, with their major version.
const EDITIONS: [(&str, u32); 2] = [("8.4", 8), ("9.2", 9)];

/// The page that tells people which rights to grant.
const PAGE: &str = include_str!("../../../../docs/reference/privileges.md");

fn errors(report: &PlanReport) -> Vec<String> {
    report.at(Level::Error).map(ToString::to_string).collect()
}

/// Specs that differ in what they need, and so in their paths and privileges.
fn kinds(lab: &Lab) -> Vec<(&'static str, ImageSpec)> {
    let with = |change: &dyn Fn(ImageSpecBuilder) -> ImageSpecBuilder| change(lab.spec()).build().unwrap();
    let mut vlan = with(&|s| s);
    vlan.nics[0].vlan = Some(12);
    let mut pooled = with(&|s| s);
    pooled.pool = Some("images".parse().unwrap());
    let mut download = with(&|s| s);
    download.installer.iso = image_build::spec::IsoSource::Url {
        url: "https://repo.almalinux.org/almalinux/9.3/isos/x86_64/x.iso"
            .parse()
            .unwrap(),
        checksum: image_build::spec::IsoChecksum::Unchecked,
    };
    vec![
        ("ssh", with(&|s| s.communicator(CommunicatorKind::Ssh))),
        ("agent", with(&|s| s.communicator(CommunicatorKind::Agent))),
        ("vlan", vlan),
        ("pool", pooled),
        ("download", download),
    ]
}

/// For each privilege on each path: without it the plan names just that one, and the line that it prints grants it.
#[tokio::test]
async fn each_missing_privilege_is_named_alone_and_its_line_grants_it() {
    let mut looked_at = 0;
    for (version, major) in EDITIONS {
        let kinds = kinds(&Rights::new(version).await.lab);
        for (kind, spec) in kinds {
            let grants = image_build::plan::grants(&spec, major);
            let rights = Rights::new(version).await;
            rights.give(&grants).await;
            let report = rights.plan(&spec).await;
            assert!(report.is_ok(), "{version} {kind}: {:?}", errors(&report));
            for (index, grant) in grants.iter().enumerate() {
                for removed in &grant.privileges {
                    let what = format!("{version} {kind}: without {removed} on {}", grant.path);
                    let mut rest = grant.privileges.clone();
                    rest.retain(|privilege| privilege != removed);
                    // A role that holds nothing would let what is above through.
                    if rest.is_empty() {
                        rest.push("Sys.Syslog");
                    }
                    rights.hold(index, &rest).await;
                    let report = rights.plan(&spec).await;
                    let found = errors(&report);
                    assert_eq!(found.len(), 1, "{what}: {found:?}");
                    let start = format!("privileges: `{TOKEN}` lacks {removed} on {}", grant.path);
                    assert!(found[0].starts_with(&start), "{what}: {found:?}");
                    let finding = report.at(Level::Error).next().expect("one");
                    let fix = finding.fix.as_deref().expect("a line to run");
                    let line = fix.strip_prefix("run on a node: ").expect("a line to run");
                    // Twice, as people do.
                    rights.shell(line).await;
                    rights.shell(line).await;
                    let report = rights.plan(&spec).await;
                    assert!(report.is_ok(), "{what}, after `{line}`: {:?}", errors(&report));
                    rights.take_back(grant).await;
                    rights.hold(index, &grant.privileges).await;
                    looked_at += 1;
                }
            }
        }
    }
    assert!(looked_at > 150, "{looked_at}");
}

/// The same for a verification: its grants are enough for a whole one, and each privilege that is missing is named alone, with the
/// line that grants it.
#[tokio::test]
async fn a_verification_needs_its_grants_and_names_each_that_is_missing() {
    let mut looked_at = 0;
    for (version, major) in EDITIONS {
        for pool in [None, Some("images".parse::<proxmox_client::PoolId>().unwrap())] {
            let rights = Rights::new(version).await;
            let built = image_build::build(&rights.root, rights.lab.spec().build().unwrap()).await;
            let artifact = built.unwrap_or_else(|error| panic!("{}", error.chain()));
            let mut spec = VerifySpec::new(artifact.name);
            spec.ssh_port = rights.lab.guests.ssh_port();
            spec.pool.clone_from(&pool);
            let disks = BTreeSet::from(["local-lvm".parse().unwrap()]);
            let nets = [proxmox_client::Net::virtio("vmbr0").unwrap()];
            let grants = verify_grants(&spec, major, &disks, &nets);
            rights.give(&grants).await;
            for (index, grant) in grants.iter().enumerate() {
                for removed in &grant.privileges {
                    let what = format!("{version} {pool:?}: without {removed} on {}", grant.path);
                    let mut rest = grant.privileges.clone();
                    rest.retain(|privilege| privilege != removed);
                    // A role that holds nothing would let what is above through.
                    if rest.is_empty() {
                        rest.push("Sys.Syslog");
                    }
                    rights.hold(index, &rest).await;
                    let report = preflight(&rights.lab.client, &spec).await.unwrap();
                    let found = errors(&report);
                    assert_eq!(found.len(), 1, "{what}: {found:?}");
                    let start = format!("privileges: `{TOKEN}` lacks {removed} on {}", grant.path);
                    assert!(found[0].starts_with(&start), "{what}: {found:?}");
                    let finding = report.at(Level::Error).next().expect("one");
                    let fix = finding.fix.as_deref().expect("a line to run");
                    let line = fix.strip_prefix("run on a node: ").expect("a line to run");
                    rights.shell(line).await;
                    rights.shell(line).await;
                    let report = preflight(&rights.lab.client, &spec).await.unwrap();
                    assert!(report.is_ok(), "{what}, after `{line}`: {:?}", errors(&report));
                    rights.take_back(grant).await;
                    rights.hold(index, &grant.privileges).await;
                    looked_at += 1;
                }
            }
            let report = image_build::verify(&rights.lab.client, spec).await;
            let report = report.unwrap_or_else(|error| panic!("{version} {pool:?}: {}", error.chain()));
            assert!(report.ok, "{version} {pool:?}: {:#?}", report.checks);
        }
    }
    assert!(looked_at >= 48, "{looked_at}");
}

/// The page's lines are the grants of a verification, for Proxmox VE 9.
#[test]
fn the_page_has_the_roles_of_a_verification() {
    let disks = BTreeSet::from(["local-lvm".parse().unwrap()]);
    let nets = [proxmox_client::Net::virtio("vmbr0").unwrap()];
    let mut roles: Vec<(String, String, Vec<&str>)> = Vec::new();
    for grant in verify_grants(&VerifySpec::new("x"), 9, &disks, &nets) {
        match roles
            .iter_mut()
            .find(|(path, role, _)| *path == grant.path && *role == grant.role)
        {
            Some((_, _, privileges)) => privileges.extend(grant.privileges),
            None => roles.push((grant.path, grant.role, grant.privileges)),
        }
    }
    let lines: Vec<String> = roles
        .iter()
        .flat_map(|(path, role, privileges)| {
            [
                format!("pveum role add {role} --privs {}", privileges.join(",")),
                format!("pveum acl modify {path} --users packer@pve --tokens 'packer@pve!build' --roles {role}"),
            ]
        })
        .collect();
    assert_eq!(block("verify").lines().collect::<Vec<_>>(), lines);
}

/// The code block that follows a heading of the page.
fn block(heading: &str) -> &'static str {
    let after = PAGE
        .split_once(&format!("## {heading}\n"))
        .unwrap_or_else(|| panic!("the page has no heading `{heading}`"))
        .1;
    after
        .split("```")
        .nth(1)
        .expect("a block")
        .trim_start_matches("sh")
        .trim()
}

/// What the block of the page must be, from the code's own list.
fn lines(grants: &[Grant]) -> String {
    let mut lines = vec![
        "pveum user add packer@pve".to_owned(),
        "pveum user token add packer@pve build --privsep 1".to_owned(),
    ];
    for Grant {
        path, role, privileges, ..
    } in grants
    {
        lines.push(format!("pveum role add {role} --privs {}", privileges.join(",")));
        lines.push(format!(
            "pveum acl modify {path} --users packer@pve --tokens 'packer@pve!build' --roles {role}"
        ));
    }
    lines.join("\n")
}

const BLOCKS: [(&str, &str, u32, CommunicatorKind); 4] = [
    ("Proxmox VE 9", "9.2", 9, CommunicatorKind::Ssh),
    ("Proxmox VE 9, communicator agent", "9.2", 9, CommunicatorKind::Agent),
    ("Proxmox VE 8", "8.4", 8, CommunicatorKind::Ssh),
    ("Proxmox VE 8", "8.4", 8, CommunicatorKind::Agent),
];

#[tokio::test]
async fn the_documented_role_is_the_code_s_own_and_builds_an_image() {
    for (heading, version, major, communicator) in BLOCKS {
        let rights = Rights::new(version).await;
        let spec = rights.lab.spec().communicator(communicator).build().unwrap();
        let wanted = lines(&image_build::plan::grants(&spec, major));
        assert_eq!(block(heading), wanted, "{heading}, {communicator:?}:\n{wanted}\n");
        for line in block(heading).lines() {
            rights.shell(line).await;
        }
        let (ended, seen) = rights.lab.build(spec).await;
        let artifact = ended.unwrap_or_else(|error| panic!("{heading}: {}\n{}", error.chain(), story(&seen)));
        assert!(artifact.pve_version.starts_with(version), "{}", artifact.pve_version);
        let config = rights.lab.pve.vm_config(9000).expect("the template");
        assert_eq!(config["template"], "1");
        let refused: Vec<String> = rights
            .lab
            .pve
            .requests()
            .iter()
            .filter(|request| request.status == 403)
            .map(|request| format!("{} {}", request.method, request.path))
            .collect();
        assert!(refused.is_empty(), "{heading}: {refused:?}");
    }
}

/// What a replacement needs is what its grants say: with them alone the old template is renamed or deleted and the new one verified.
#[tokio::test]
async fn a_replacement_needs_its_grants_and_no_other() {
    for (version, major) in EDITIONS {
        for (old, pool) in [(OldTemplate::Retire, None), (OldTemplate::Delete, Some("images"))] {
            let rights = Rights::new(version).await;
            let spec = || {
                let spec = rights.lab.open_spec().name("alma9-k3-node-amd64-v1.29.0-v1");
                let mut spec = spec.build().unwrap();
                spec.pool = pool.map(|pool| pool.parse().unwrap());
                spec
            };
            let built = image_build::build(&rights.root, spec()).await;
            built.unwrap_or_else(|error| panic!("{}", error.chain()));
            let replace = Replace::new(old);
            rights
                .give(&image_build::plan::grants_replacing(&spec(), major, &replace))
                .await;
            let before = rights.lab.pve.requests().len();
            let artifact = image_build::build(&rights.lab.client, spec()).replace(replace).await;
            let artifact = artifact.unwrap_or_else(|error| panic!("{version} {old}: {}", error.chain()));
            assert_eq!(
                artifact.replaced.unwrap().kept_as.is_some(),
                old == OldTemplate::Retire,
                "{version} {old}"
            );
            let refused: Vec<String> = rights.lab.pve.requests()[before..]
                .iter()
                .filter(|request| request.status == 403)
                .map(|request| format!("{} {}", request.method, request.path))
                .collect();
            assert!(refused.is_empty(), "{version} {old}: {refused:?}");
        }
    }
}

/// Without a privilege that only a replacement needs, the plan names it before anything is built.
#[tokio::test]
async fn what_a_replacement_lacks_is_named_before_the_build() {
    let rights = Rights::new("9.2").await;
    let spec = || {
        let spec = rights.lab.open_spec().name("alma9-k3-node-amd64-v1.29.0-v1");
        spec.build().unwrap()
    };
    let built = image_build::build(&rights.root, spec()).await;
    built.unwrap_or_else(|error| panic!("{}", error.chain()));
    rights.give(&image_build::plan::grants(&spec(), 9)).await;
    let replace = Replace::new(OldTemplate::Delete);
    let report = image_build::plan::plan_replacing(&rights.lab.client, &spec(), &replace)
        .await
        .unwrap();
    let found = errors(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with(&format!("privileges: `{TOKEN}` lacks VM.Clone on /vms")),
        "{found:?}"
    );
    let finding = report.at(Level::Error).next().expect("one");
    let fix = finding.fix.as_deref().expect("a line to run");
    rights.shell(fix.strip_prefix("run on a node: ").unwrap()).await;
    let report = image_build::plan::plan_replacing(&rights.lab.client, &spec(), &replace)
        .await
        .unwrap();
    assert!(report.is_ok(), "{:?}", errors(&report));
}

/// The same where the new template gets the vmid of the old one, by full copies; one that is kept stays in its pool.
#[tokio::test]
async fn an_exchange_of_vmids_needs_its_grants_and_no_other() {
    for (version, major) in EDITIONS {
        for (old, pool, verify) in [
            (OldTemplate::Retire, None, true),
            (OldTemplate::Retire, None, false),
            (OldTemplate::Retire, Some("images"), false),
            (OldTemplate::Delete, Some("images"), false),
        ] {
            let what = format!("{version} {old} {pool:?} {verify}");
            let rights = Rights::new(version).await;
            let spec = || {
                let mut spec = rights.lab.spec().build().unwrap();
                spec.pool = pool.map(|pool| pool.parse().unwrap());
                spec
            };
            let built = image_build::build(&rights.root, spec()).await;
            built.unwrap_or_else(|error| panic!("{}", error.chain()));
            let replace = Replace::new(old).verify(verify);
            rights
                .give(&image_build::plan::grants_replacing(&spec(), major, &replace))
                .await;
            let before = rights.lab.pve.requests().len();
            let artifact = image_build::build(&rights.lab.client, spec()).replace(replace).await;
            let artifact = artifact.unwrap_or_else(|error| panic!("{what}: {}", error.chain()));
            assert_eq!(artifact.vmid, 9000, "{what}");
            let refused: Vec<String> = rights.lab.pve.requests()[before..]
                .iter()
                .filter(|request| request.status == 403)
                .map(|request| format!("{} {}", request.method, request.path))
                .collect();
            assert!(refused.is_empty(), "{what}: {refused:?}");
            let Some(pool) = pool else { continue };
            let members = rights
                .root
                .request(Method::GET, &format!("/pools/{pool}"), &[])
                .await
                .unwrap();
            let members: BTreeSet<u64> = members["members"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|member| member["vmid"].as_u64())
                .collect();
            let kept = artifact.replaced.unwrap().vmid;
            assert_eq!(members, BTreeSet::from([9000, u64::from(kept)]), "{what}");
        }
    }
}

/// Without the right to clone, the plan names it before anything is built; one line grants it for both templates.
#[tokio::test]
async fn what_an_exchange_of_vmids_lacks_is_named_before_the_build() {
    let rights = Rights::new("9.2").await;
    let spec = || rights.lab.spec().build().unwrap();
    let built = image_build::build(&rights.root, spec()).await;
    built.unwrap_or_else(|error| panic!("{}", error.chain()));
    rights.give(&image_build::plan::grants(&spec(), 9)).await;
    let replace = Replace::new(OldTemplate::Retire).verify(false);
    let plan = async || {
        image_build::plan::plan_replacing(&rights.lab.client, &spec(), &replace)
            .await
            .unwrap()
    };
    let report = plan().await;
    let found = errors(&report);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with(&format!("privileges: `{TOKEN}` lacks VM.Clone on /vms")),
        "{found:?}"
    );
    let finding = report.at(Level::Error).next().expect("one");
    let fix = finding.fix.as_deref().expect("a line to run");
    rights.shell(fix.strip_prefix("run on a node: ").unwrap()).await;
    let report = plan().await;
    assert!(report.is_ok(), "{:?}", errors(&report));
}

/// The page's lines are the grants that a replacement adds, for Proxmox VE 9.
#[test]
fn the_page_has_the_roles_of_a_replacement() {
    let spec = || {
        ImageSpec::builder()
            .k3s_version("v1.29.0+k3s1".parse().unwrap())
            .node("pve")
    };
    for (heading, spec, replace) in [
        ("replace", spec(), Replace::new(OldTemplate::Delete)),
        (
            "replace, with the same vmid",
            spec().vmid(9000),
            Replace::new(OldTemplate::Retire),
        ),
    ] {
        let spec = spec.build().unwrap();
        let mut added: Vec<Grant> = Vec::new();
        for grant in image_build::plan::grants_replacing(&spec, 9, &replace) {
            if !["K3simageReplace", "K3simageVerify"].contains(&grant.role.as_str()) {
                continue;
            }
            match added.iter_mut().find(|known| known.role == grant.role) {
                Some(known) => known.privileges.extend(grant.privileges),
                None => added.push(grant),
            }
        }
        let wanted = lines(&added);
        let wanted: Vec<&str> = wanted.lines().skip(2).collect();
        assert_eq!(block(heading).lines().collect::<Vec<_>>(), wanted, "{heading}");
    }
}
