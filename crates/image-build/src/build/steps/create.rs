//! Creates the build VM.

use async_trait::async_trait;
use proxmox_client::{Agent, Boot, Cpu, CreateVm, Drive, ErrorKind, Net};

use super::finalise::still_alone;
use crate::Error;
use crate::build::context::{Context, Resource};
use crate::build::description;
use crate::build::pace::Pace;
use crate::build::slots;
use crate::build::step::{Step, StepName};
use crate::build::vm::{LOST_ANSWER_LIMIT, is_lost_answer, not_appeared};
use crate::journal::{self, Journal, Keeper};
use crate::spec::{Bios, Disk, Nic};

/// How many other vmids are tried when the chosen one turns out to be taken. Each try loses only against a create call of
/// someone else in the same moment.
const VMID_TRIES: usize = 20;

/// Creates the VM with all that the installation needs.
#[derive(Debug)]
pub(super) struct Create;

#[async_trait]
impl Step<Context> for Create {
    fn name(&self) -> StepName {
        "create".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        if context.resumed.is_some() {
            return Ok(format!("vm {} is there", context.vmid()?));
        }
        let mut tries = 0;
        loop {
            let vmid = context.vmid()?;
            let journal = context.first_journal()?;
            let options = options(context, &journal)?;
            let resource = Resource::Vm {
                node: context.spec.node.clone(),
                vmid,
            };
            let attempt = format!("creating vm {vmid}");
            context.created(resource.clone());
            match context.vm()?.create(&options).await {
                Ok(upid) => {
                    let limit = context.spec.timeouts.task;
                    context.finish(&upid, &attempt, limit).await?;
                }
                // PVE looks whether the id is free before it begins the task (FACTS 30): nothing of ours is there.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    context.removed(&resource);
                    if context.fixed_vmid().is_some() || tries >= VMID_TRIES {
                        return Err(Error::Taken {
                            what: format!("vmid {vmid}"),
                            by: "a guest that appeared after preflight".to_owned(),
                        });
                    }
                    tries += 1;
                    context.next_vmid()?;
                    continue;
                }
                // The answer was lost, not the request: what is there now tells what became of it.
                Err(error) if is_lost_answer(&error) => {
                    let cancel = context.cancel.clone();
                    let mut pace = Pace::new(&attempt, LOST_ANSWER_LIMIT, &cancel);
                    while !context.is_ours().await? {
                        match pace.pause("it is not there").await {
                            Err(Error::Timeout { .. }) => return Err(Error::api(not_appeared(&attempt))(error)),
                            paused => paused?,
                        }
                    }
                    context
                        .emitter
                        .warning(format!("{attempt}: the answer was lost ({error}), but the vm is there"));
                }
                Err(error) => return Err(Error::api(attempt)(error)),
            }
            context.keep(Keeper::new(&context.client, context.vm()?, context.lease, journal));
            // Of two builders that began together one mostly hears it now, not after its installation.
            still_alone(context).await?;
            return Ok(format!("vm {vmid}, {}", shape(context)));
        }
    }

    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        context.remove_vm().await
    }
}

fn shape(context: &Context) -> String {
    let hardware = &context.spec.hardware;
    let disks: u64 = context.spec.disks.iter().map(|disk| disk.size_gib).sum();
    format!(
        "{} cores, {} MiB, {disks} GiB, {}",
        hardware.cores * hardware.sockets,
        hardware.memory.0,
        hardware.bios
    )
}

fn options(context: &Context, journal: &Journal) -> Result<CreateVm, Error> {
    let bad = || Error::api("describing the vm");
    let spec = &context.spec;
    let hardware = &spec.hardware;
    let media = context.media()?;
    let name = context.vm_name()?;
    let mut tags = spec.tags.clone();
    tags.push(context.build_tag());

    // An empty disk is passed over by the firmware, so this order boots the installer first and the system ever after.
    let order = Boot::order([slots::SYSTEM_DISK, slots::INSTALLER]).map_err(bad())?;
    let mut vm = CreateVm::new()
        .name(name)
        .description(journal::write(&description::while_building(context)?, journal))
        .tags(tags)
        .ostype("l26")
        .cores(hardware.cores)
        .sockets(hardware.sockets)
        .memory(hardware.memory)
        .cpu(&Cpu::of_type(&hardware.cpu_type).map_err(bad())?)
        .bios(hardware.bios.as_str())
        .scsihw(&hardware.scsi_controller)
        .agent(&Agent::enabled(true))
        .boot(&order)
        // The installer's reboot becomes a stop, which a poll sees at once (FACTS 74).
        .reboot(false)
        .onboot(false);
    if let Some(machine) = &hardware.machine {
        vm = vm.machine(machine);
    }
    if let Some(vga) = &hardware.vga {
        vm = vm.set("vga", vga);
    }
    if hardware.serial {
        vm = vm.set("serial0", "socket");
    }
    if hardware.rng {
        vm = vm.set("rng0", "source=/dev/urandom");
    }
    if let Some(pool) = &spec.pool {
        vm = vm.pool(pool);
    }
    if hardware.bios == Bios::Ovmf {
        let storage = hardware
            .efi_storage
            .as_ref()
            .or(spec.disks.first().map(|disk| &disk.storage));
        let storage = storage.ok_or(Error::Missing {
            what: "a storage for the UEFI variables",
        })?;
        // Keys enrolled in advance switch Secure Boot on, which AlmaLinux's signed boot loader passes; left to the spec.
        vm = vm.disk("efidisk0", &Drive::efi_disk(storage));
    }
    for (index, disk) in spec.disks.iter().enumerate() {
        vm = vm.disk(format!("scsi{index}"), &drive(disk)?);
    }
    for (index, nic) in (0_u32..).zip(&spec.nics) {
        vm = vm.net(index, &net(nic)?);
    }
    vm = vm.disk(slots::INSTALLER, &Drive::cdrom(&media.installer));
    if let Some(oemdrv) = &media.oemdrv {
        vm = vm.disk(slots::OEMDRV, &Drive::cdrom(oemdrv));
    }
    vm.validate().map_err(bad())?;
    Ok(vm)
}

fn drive(disk: &Disk) -> Result<Drive, Error> {
    let mut drive = Drive::allocate(&disk.storage, disk.size_gib)
        .discard(disk.discard)
        .ssd(disk.ssd)
        .iothread(disk.iothread);
    if let Some(format) = disk.format {
        drive = drive.format(format.as_str()).map_err(Error::api("describing a disk"))?;
    }
    Ok(drive)
}

fn net(nic: &Nic) -> Result<Net, Error> {
    let bad = || Error::api(format!("describing a network device on {}", nic.bridge));
    let mut net = Net::virtio(&nic.bridge).map_err(bad())?;
    if nic.model != "virtio" {
        net = net.with("model", &nic.model).map_err(bad())?;
    }
    if let Some(vlan) = nic.vlan {
        net = net.vlan_tag(vlan).map_err(bad())?;
    }
    if nic.firewall {
        net = net.firewall(true);
    }
    Ok(net)
}
