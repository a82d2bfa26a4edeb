//! Clones the template twice and gives each clone its name and the key to log in with.

use std::sync::Arc;

use async_trait::async_trait;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proxmox_client::{CloneVm, ConfigView, VmConfigUpdate};

use crate::Error;
use crate::build::{Reservation, Step, StepName};
use crate::verify::clones::{Clone, Cloned, Machine};
use crate::verify::context::Context;

/// How many other vmids are tried when the chosen one turns out to be taken.
const VMID_TRIES: usize = 20;

/// Makes two clones with names of their own.
#[derive(Debug)]
pub(super) struct CloneTwice;

#[async_trait]
impl Step<Context> for CloneTwice {
    fn name(&self) -> StepName {
        "clone".into()
    }

    async fn run(&mut self, context: &mut Context) -> Result<String, Error> {
        for number in 1..=2 {
            make(context, number).await?;
        }
        let how = if context.spec.full { "full" } else { "linked" };
        let vmids: Vec<String> = context.vmids().iter().map(ToString::to_string).collect();
        Ok(format!("vms {}, {how}", vmids.join(" and ")))
    }

    async fn undo(&mut self, context: &mut Context) -> Result<Option<String>, Error> {
        super::clean_up::remove_all(context).await
    }
}

async fn make(context: &mut Context, number: usize) -> Result<(), Error> {
    let template = context.template()?.clone();
    let name = context.clone_name(number);
    let cluster = context.client.endpoint().to_owned();
    context.reservations.push(Reservation::first_free(
        &cluster,
        &name,
        template.next_vmid,
        &template.taken_vmids,
    )?);
    let vmid = |context: &Context| {
        let last = context.reservations.last().map(Reservation::vmid);
        last.ok_or(Error::Missing { what: "the vmid" })
    };
    let machine = Machine::new(
        context.client.clone(),
        template.node.clone(),
        vmid(context)?,
        context.mark(&template.name),
        Arc::clone(&context.emitter),
        context.cancel.clone(),
    );
    // Written down before the call that makes it.
    context.clones.push(Clone::new(machine, name.clone()));
    let people = format!(
        "A clone of **{}** for its verification by k3simage, `{}`.\n\nIt is removed at the end of the verification. If that died, \
         `k3simage gc --yes` removes it.\n",
        template.name,
        context.tag()
    );
    let mut tries = 0;
    loop {
        let vmid = vmid(context)?;
        let mut how = CloneVm::new(vmid).name(name.as_str()).full(context.spec.full);
        if let Some(storage) = &context.spec.storage {
            how = how.storage(storage.clone());
        }
        if let Some(pool) = &context.spec.pool {
            how = how.pool(pool.clone());
        }
        let limit = context.spec.timeouts.task;
        let machine = &mut context.clone_at(number - 1)?.machine;
        machine.set_vmid(vmid);
        match machine.clone_from(template.vmid, how, &people, limit).await? {
            Cloned::Done => break,
            Cloned::Taken if tries < VMID_TRIES => tries += 1,
            Cloned::Taken => {
                return Err(Error::Taken {
                    what: format!("vmid {vmid}"),
                    by: "a guest that appeared after preflight".to_owned(),
                });
            }
        }
        if let Some(reservation) = context.reservations.last_mut() {
            reservation.move_on(&template.taken_vmids)?;
        }
    }
    configure(context, number).await
}

/// Name, key and address for cloud-init, and a mark of its own in place of the template's tags.
async fn configure(context: &mut Context, number: usize) -> Result<(), Error> {
    let template = context.template()?.clone();
    let key = context.keys()?.login_public_line().map_err(Error::keys)?;
    let ip_config = match &context.spec.ip_configs {
        Some(configs) => configs.get(number - 1).cloned(),
        None => template.ip_config.clone(),
    };
    let mut update = VmConfigUpdate::new()
        .tags([context.tag()])
        .onboot(false)
        .set("ciuser", "root")
        // PVE wants this one option percent-encoded, beside the form's own encoding.
        .set("sshkeys", utf8_percent_encode(&key, NON_ALPHANUMERIC))
        // The image is looked at as it is; updates would only take time, and need a mirror.
        .set("ciupgrade", "0")
        .set("ipconfig0", ip_config.unwrap_or_else(|| "ip=dhcp".to_owned()));
    for option in &template.drop {
        update = update.delete(*option);
    }
    let clone = context.clone_at(number - 1)?;
    clone.machine.update("telling cloud-init what to do", &update).await?;
    let attempt = format!("reading the configuration of {}", clone.machine);
    let config = clone
        .machine
        .vm()
        .config(ConfigView::Pending)
        .await
        .map_err(Error::api(attempt))?;
    clone.seen.mac = config
        .net(0)
        .ok()
        .flatten()
        .and_then(|net| net.mac().map(str::to_owned));
    Ok(())
}
