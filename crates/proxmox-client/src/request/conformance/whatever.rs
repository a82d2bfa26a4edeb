//! Whatever text a caller gives: it is refused here with the name of what is wrong, or it fits the schema's formats.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{
    faults, local, pve,
    schema::{Schema, schema},
    vmid,
};
use crate::{
    error::{Error, ErrorKind},
    request::{
        Request, agent,
        clone::CloneVm,
        config::{CreateVm, VmConfigUpdate},
        qemu,
        storage::{self, Checksum, DownloadUrl},
    },
    types::{
        content::Content,
        name::{NodeName, PoolId, StorageId},
        property::{boot::Boot, cpu::Cpu, drive::Drive, net::Net, smbios::Smbios1},
        unit::MiB,
        volid::VolId,
    },
};

static SCHEMA: LazyLock<Schema> = LazyLock::new(schema);

/// Neither a fault by the schema, nor a refusal of another kind than the caller's.
fn judge(made: Result<Request, Error>) -> Result<(), TestCaseError> {
    match made {
        Ok(request) => prop_assert_eq!(faults(&SCHEMA, &request), Vec::<String>::new(), "{:?}", request),
        Err(error) => {
            prop_assert_eq!(error.kind(), ErrorKind::Invalid);
            prop_assert!(!error.was_sent());
        }
    }
    Ok(())
}

fn create(vm: &CreateVm) -> Result<Request, Error> {
    qemu::create(&pve(), vmid(), vm)
}

/// Texts near what is asked for, and far from it.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9._+-]{0,20}",
        "[a-z][a-z0-9]{0,6}(;[a-z0-9]{0,6}){0,3}",
        "[A-Za-z0-9:/,=;_.+ -]{0,24}",
        "\\+?[0-9]{0,4}(\\.[0-9]{0,3}){0,2}[KMGTP]?",
        "([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}",
        "\\PC{0,16}",
        any::<String>(),
        "[a-z.-]{60,300}",
    ]
}

proptest! {
    #[test]
    fn names_fit(text in text()) {
        judge(create(&CreateVm::new().name(text.as_str())))?;
        judge(create(&CreateVm::new().tags([text.as_str(), "b"])))?;
        judge(create(&CreateVm::new().description(text.repeat(40))))?;
        judge(qemu::clone_vm(&pve(), vmid(), &CloneVm::new(vmid()).name(text.as_str())))?;
        judge(qemu::clone_vm(&pve(), vmid(), &CloneVm::new(vmid()).description(text.repeat(600))))?;
        judge(PoolId::new(text.as_str()).and_then(|pool| create(&CreateVm::new().pool(&pool))))?;
        judge(StorageId::new(text.as_str()).map(|storage| storage::status(&pve(), &storage)))?;
        judge(NodeName::new(text.as_str()).map(|node| qemu::start(&node, vmid())))?;
        judge(VolId::new(text.as_str()).map(|volume| storage::delete(&pve(), &volume, None)))?;
        judge(VolId::of(&local(), &text).map(|volume| storage::delete(&pve(), &volume, None)))?;
    }

    #[test]
    fn property_strings_fit(text in text(), other in text(), tag: u16, gib: u64) {
        judge(Net::virtio(&text).and_then(|net| create(&CreateVm::new().net(0, &net))))?;
        let net = Net::virtio("vmbr0").expect("a bridge");
        judge(net.clone().with_mac(&text).and_then(|net| create(&CreateVm::new().net(31, &net))))?;
        judge(net.vlan_tag(tag).and_then(|net| create(&CreateVm::new().net(1, &net))))?;
        judge(create(&CreateVm::new().disk("scsi0", &Drive::allocate(&local(), gib))))?;
        judge(VolId::new(text.as_str()).and_then(|volume| create(&CreateVm::new().disk("sata0", &Drive::cdrom(&volume)))))?;
        judge(VolId::new(text.as_str()).and_then(|volume| create(&CreateVm::new().disk("scsi0", &Drive::volume(&volume)))))?;
        judge(VolId::new(text.as_str()).and_then(|volume| create(&CreateVm::new().disk("scsi0", &Drive::import(&local(), &volume)))))?;
        judge(Boot::order([&text, &other]).and_then(|boot| create(&CreateVm::new().boot(&boot))))?;
        judge(Cpu::of_type(&text).and_then(|cpu| create(&CreateVm::new().cpu(&cpu))))?;
        judge(Smbios1::default().with_text("serial", &text).and_then(|smbios| create(&CreateVm::new().smbios1(&smbios))))?;
    }

    #[test]
    fn numbers_fit(mib in 0..100_u64, cores in 0..3_u32, sockets in 0..3_u32) {
        judge(create(&CreateVm::new().memory(MiB(mib)).cores(cores).sockets(sockets)))?;
    }

    #[test]
    fn single_parameters_fit(text in text(), bytes: Vec<u8>) {
        judge(qemu::resize(&pve(), vmid(), "scsi0", &text))?;
        judge(qemu::send_key(&pve(), vmid(), &text))?;
        judge(qemu::update_config(&pve(), vmid(), &VmConfigUpdate::new().cores(1).digest(text.as_str())))?;
        judge(qemu::update_config(&pve(), vmid(), &VmConfigUpdate::new().delete(text.as_str())))?;
        judge(agent::exec(&pve(), vmid(), &[text.as_str(), &text], Some(&bytes)))?;
        judge(agent::file_write(&pve(), vmid(), &text, &bytes))?;
        judge(agent::file_read(&pve(), vmid(), &text))?;
        for content in [Content::Iso, Content::Vztmpl, Content::Import, Content::Images] {
            judge(storage::download_url(&pve(), &local(), &DownloadUrl::new(content, "https://x/y", format!("{text}.iso"))))?;
        }
        judge(storage::download_url(&pve(), &local(), &DownloadUrl::iso(text.as_str(), "y.iso")))?;
        let checked = Checksum::parse(&text).map(|checksum| DownloadUrl::iso("https://x/y", "y.iso").checksum(checksum));
        judge(checked.and_then(|download| storage::download_url(&pve(), &local(), &download)))?;
    }
}
