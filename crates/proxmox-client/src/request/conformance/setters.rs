//! Each way to fill in a parameter, alone, against the schema: constructors, setters and public fields, as the sources list them.

use std::{collections::BTreeSet, time::Duration};

use super::{
    faults, local, pve,
    schema::schema,
    sources::{fields, public_functions},
    vmid,
};
use crate::{
    request::{
        Request,
        clone::CloneVm,
        config::{CreateVm, VmConfigUpdate},
        power::{DeleteVm, Shutdown},
        qemu,
        storage::{self, Checksum, DownloadUrl},
        task::{self, TaskFilter},
    },
    types::{
        content::Content,
        name::PoolId,
        property::{agent::Agent, boot::Boot, cpu::Cpu, drive::Drive, net::Net, smbios::Smbios1},
        unit::MiB,
        vmid::Vmid,
        volid::VolId,
    },
};

const GOOD: &str = "each is well formed";

fn create(vm: &CreateVm) -> Request {
    qemu::create(&pve(), vmid(), vm).expect(GOOD)
}

fn update(update: &VmConfigUpdate) -> Request {
    qemu::update_config(&pve(), vmid(), update).expect(GOOD)
}

/// The same setters on what creates and what changes.
macro_rules! both {
    ($($call:tt)*) => {
        vec![create(&CreateVm::new().$($call)*), update(&VmConfigUpdate::new().$($call)*)]
    };
}

fn drive(drive: &Drive) -> Vec<Request> {
    both!(disk("scsi1", drive))
}

fn efi(drive: &Drive) -> Vec<Request> {
    both!(disk("efidisk0", drive))
}

fn net(net: &Net) -> Vec<Request> {
    both!(net(7, net))
}

fn clone(clone: &CloneVm) -> Vec<Request> {
    vec![qemu::clone_vm(&pve(), vmid(), clone).expect(GOOD)]
}

fn download(download: &DownloadUrl) -> Vec<Request> {
    vec![storage::download_url(&pve(), &local(), download).expect(GOOD)]
}

fn tasks(filter: &TaskFilter) -> Vec<Request> {
    vec![task::tasks(&pve(), filter)]
}

/// By name as in the sources: what it makes of a request.
fn rows() -> Vec<(&'static str, Vec<Request>)> {
    let pool = PoolId::new("parent/child").expect(GOOD);
    let iso = VolId::new("local:iso/a.iso").expect(GOOD);
    let hex = "ab".repeat(32);
    let url = "https://repo.almalinux.org/a.iso";
    let allocated = || Drive::allocate(&local(), 8);
    let virtio = || Net::virtio("vmbr0").expect(GOOD);
    let cloned = || CloneVm::new(Vmid::MAX);
    let fetched = || DownloadUrl::iso(url, "a.iso");
    let deleted = |what: &DeleteVm| vec![qemu::delete(&pve(), vmid(), what)];
    let shut = |how: &Shutdown| vec![qemu::shutdown(&pve(), vmid(), how)];
    vec![
        ("option_setters::set", both!(set("balloon", 0))),
        ("option_setters::flag", both!(flag("numa", true))),
        ("option_setters::name", both!(name("alma9-k3-node-amd64-v1.29.0-v1"))),
        ("option_setters::description", both!(description("ä\nb".repeat(2730)))),
        ("option_setters::tags", both!(tags(["K3simage", "alma9"]))),
        ("option_setters::memory", both!(memory(MiB(16)))),
        ("option_setters::cores", both!(cores(1))),
        ("option_setters::sockets", both!(sockets(1))),
        ("option_setters::cpu", both!(cpu(&Cpu::of_type("host").expect(GOOD)))),
        ("option_setters::disk", drive(&allocated())),
        ("option_setters::net", net(&virtio())),
        (
            "option_setters::boot",
            both!(boot(&Boot::order(["scsi0"]).expect(GOOD))),
        ),
        ("option_setters::agent", both!(agent(&Agent::enabled(false)))),
        (
            "option_setters::smbios1",
            both!(smbios1(&Smbios1::default().with_text("sku", "x").expect(GOOD))),
        ),
        (
            "option_setters::bios",
            [both!(bios("seabios")), both!(bios("ovmf"))].concat(),
        ),
        (
            "option_setters::machine",
            [both!(machine("q35")), both!(machine("pc-i440fx-9.2+pve1"))].concat(),
        ),
        ("option_setters::ostype", both!(ostype("l26"))),
        ("option_setters::scsihw", both!(scsihw("virtio-scsi-single"))),
        (
            "option_setters::reboot",
            [both!(reboot(false)), both!(reboot(true))].concat(),
        ),
        ("option_setters::onboot", both!(onboot(true))),
        ("CreateVm::new", vec![create(&CreateVm::new())]),
        ("CreateVm::pool", vec![create(&CreateVm::new().pool(&pool))]),
        ("CreateVm::storage", vec![create(&CreateVm::new().storage(&local()))]),
        ("CreateVm::start", vec![create(&CreateVm::new().start(true))]),
        ("VmConfigUpdate::new", vec![update(&VmConfigUpdate::new().cores(1))]),
        (
            "VmConfigUpdate::delete",
            vec![update(&VmConfigUpdate::new().delete("ide2").delete("unused0"))],
        ),
        (
            "VmConfigUpdate::revert",
            vec![update(&VmConfigUpdate::new().revert("memory"))],
        ),
        (
            "VmConfigUpdate::digest",
            vec![update(&VmConfigUpdate::new().cores(2).digest("ab".repeat(20)))],
        ),
        (
            "VmConfigUpdate::force",
            vec![update(&VmConfigUpdate::new().delete("unused0").force(true))],
        ),
        ("Drive::allocate", drive(&Drive::allocate(&local(), u64::MAX))),
        ("Drive::efi_disk", efi(&Drive::efi_disk(&local()))),
        (
            "Drive::volume",
            drive(&Drive::volume(&VolId::new("local-lvm:vm-9000-disk-0").expect(GOOD))),
        ),
        ("Drive::cdrom", drive(&Drive::cdrom(&iso))),
        ("Drive::empty_cdrom", drive(&Drive::empty_cdrom())),
        ("Drive::cloud_init", drive(&Drive::cloud_init(&local()))),
        ("Drive::import", drive(&Drive::import(&local(), &iso))),
        (
            "Drive::discard",
            [drive(&allocated().discard(true)), drive(&allocated().discard(false))].concat(),
        ),
        ("Drive::ssd", drive(&allocated().ssd(true))),
        ("Drive::iothread", drive(&allocated().iothread(true))),
        ("Drive::format", drive(&allocated().format("qcow2").expect(GOOD))),
        (
            "Drive::pre_enrolled_keys",
            efi(&Drive::efi_disk(&local()).pre_enrolled_keys(true)),
        ),
        ("Net::virtio", net(&Net::virtio("a-bridge_12345").expect(GOOD))),
        (
            "Net::with_mac",
            net(&virtio().with_mac("BC:24:11:00:00:02").expect(GOOD)),
        ),
        (
            "Net::vlan_tag",
            [
                net(&virtio().vlan_tag(1).expect(GOOD)),
                net(&virtio().vlan_tag(4094).expect(GOOD)),
            ]
            .concat(),
        ),
        ("Net::firewall", net(&virtio().firewall(true))),
        ("Agent::enabled", both!(agent(&Agent::enabled(true)))),
        (
            "Agent::fstrim_cloned_disks",
            both!(agent(&Agent::enabled(true).fstrim_cloned_disks(true))),
        ),
        (
            "Boot::order",
            both!(boot(&Boot::order(["scsi0", "ide2", "net0"]).expect(GOOD))),
        ),
        ("Cpu::of_type", both!(cpu(&Cpu::of_type("x86-64-v2-AES").expect(GOOD)))),
        (
            "Smbios1::with_text",
            both!(smbios1(&Smbios1::default().with_text("serial", "a=b,c").expect(GOOD))),
        ),
        ("CloneVm::new", clone(&cloned())),
        ("CloneVm::name", clone(&cloned().name("c1.example.com"))),
        ("CloneVm::description", clone(&cloned().description("d"))),
        (
            "CloneVm::full",
            [clone(&cloned().full(true)), clone(&cloned().full(false))].concat(),
        ),
        ("CloneVm::storage", clone(&cloned().full(true).storage(local()))),
        ("CloneVm::pool", clone(&cloned().pool(pool.clone()))),
        ("CloneVm::target", clone(&cloned().target(pve()))),
        ("Shutdown::new", shut(&Shutdown::new())),
        (
            "Shutdown::timeout",
            [
                shut(&Shutdown::new().timeout(Duration::ZERO)),
                shut(&Shutdown::new().timeout(Duration::from_secs(1 << 31))),
            ]
            .concat(),
        ),
        ("Shutdown::force_stop", shut(&Shutdown::new().force_stop(true))),
        ("DeleteVm::new", deleted(&DeleteVm::new())),
        ("DeleteVm::purge", deleted(&DeleteVm::new().purge(true))),
        (
            "DeleteVm::unreferenced_disks",
            deleted(&DeleteVm::new().unreferenced_disks(true)),
        ),
        (
            "Checksum::sha256",
            download(&fetched().checksum(Checksum::sha256(&hex).expect(GOOD))),
        ),
        (
            "Checksum::parse",
            [
                ("md5", 32),
                ("sha1", 40),
                ("sha224", 56),
                ("sha256", 64),
                ("sha384", 96),
                ("sha512", 128),
            ]
            .into_iter()
            .flat_map(|(name, digits)| {
                let text = format!("{name}:{}", "a".repeat(digits));
                download(&fetched().checksum(Checksum::parse(&text).expect(GOOD)))
            })
            .collect(),
        ),
        ("DownloadUrl::iso", download(&fetched())),
        (
            "DownloadUrl::new",
            [
                download(&DownloadUrl::new(Content::Vztmpl, url, "a.tar.zst")),
                download(&DownloadUrl::new(Content::Import, url, "a.qcow2")),
            ]
            .concat(),
        ),
        (
            "DownloadUrl::checksum",
            download(&fetched().checksum(Checksum::sha256(&hex).expect(GOOD))),
        ),
        ("DownloadUrl::insecure", download(&fetched().insecure())),
        (
            "TaskFilter.vmid",
            tasks(&TaskFilter {
                vmid: Some(vmid()),
                ..TaskFilter::default()
            }),
        ),
        (
            "TaskFilter.kind",
            tasks(&TaskFilter {
                kind: Some("qmcreate".into()),
                ..TaskFilter::default()
            }),
        ),
        (
            "TaskFilter.with_active",
            tasks(&TaskFilter {
                with_active: true,
                ..TaskFilter::default()
            }),
        ),
        (
            "TaskFilter.only_errors",
            tasks(&TaskFilter {
                only_errors: true,
                ..TaskFilter::default()
            }),
        ),
        (
            "TaskFilter.limit",
            tasks(&TaskFilter {
                limit: Some(u64::from(u32::MAX)),
                ..TaskFilter::default()
            }),
        ),
    ]
}

/// The least that can be sent, to which each setter must add something.
fn bare() -> Vec<Request> {
    let fetched = DownloadUrl::new(Content::Iso, "https://x/y.iso", "y.iso");
    let mut bare = vec![create(&CreateVm::new()), update(&VmConfigUpdate::new().revert("cores"))];
    bare.extend(clone(&CloneVm::new(Vmid::MAX)));
    bare.extend(download(&fetched));
    bare.extend(tasks(&TaskFilter::default()));
    bare.push(qemu::delete(&pve(), vmid(), &DeleteVm::new()));
    bare.push(qemu::shutdown(&pve(), vmid(), &Shutdown::new()));
    bare
}

#[test]
fn what_each_setter_sends_fits_the_schema() {
    let (schema, bare) = (schema(), bare());
    for (name, requests) in rows() {
        assert!(!requests.is_empty(), "{name}");
        for request in requests {
            assert_eq!(faults(&schema, &request), Vec::<String>::new(), "{name}: {request:?}");
            assert!(
                name.ends_with("::new") || !bare.contains(&request),
                "{name} changes nothing"
            );
        }
    }
}

/// What gives back its own type fills in a parameter. What only reads or writes such texts, and what never travels, is named.
#[test]
fn no_setter_is_left_out() {
    let folders = ["request", "types/property"];
    let never_sent = [
        "PropertyString::new",
        "PropertyString::parse",
        "property_type::with",
        "property_type::without",
    ];
    let functions = public_functions(&folders).into_iter();
    let setters = functions
        .filter(|function| function.signature.contains("-> Self {") || function.signature.contains("-> Result<Self, "));
    let mut made: BTreeSet<String> = setters.map(|function| function.name).collect();
    made.extend(fields(&["request"]));
    for name in never_sent {
        assert!(made.remove(name), "{name} is no longer there");
    }
    let listed: BTreeSet<String> = rows().into_iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(made, listed);
}
