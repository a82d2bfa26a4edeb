//! Guests whose names say that a build made or renamed them, while the VM with its journal is not there. People have to look at them.

use proxmox_client::Resource;

use super::{Found, Origin, State, Thing};
use crate::build::IMAGE_TAG;
use crate::replace::{RETIRED_TAG, copied_build, retired_by, retired_name};

/// A guest with the name of an unfinished copy. Whose it is its build's journal says.
pub(super) fn lone_copy(guest: &Resource) -> Option<Found> {
    let id = copied_build(guest.name.as_deref()?)?;
    let because = format!(
        "vm {} has the name of its copy, but its own VM is not there: look at it yourself",
        guest.vmid?
    );
    lone(guest, id, because)
}

/// A template that was replaced, when no guest bears the name that it had: somebody deleted the new one, perhaps before its builder had
/// ended. The name is the retired one's front, but for one that was too long for it.
pub(super) fn lone_retired(guest: &Resource, all: &[Resource]) -> Option<Found> {
    let name = guest.name.as_deref()?;
    let (image, id) = retired_by(name)?;
    let mut tags = guest.tags();
    if !guest.template || !tags.iter().any(|tag| tag == RETIRED_TAG) {
        return None;
    }
    let bears_its_name = |guest: &Resource| {
        guest
            .name
            .as_deref()
            .is_some_and(|other| retired_name(other, id) == name)
    };
    if all.iter().any(bears_its_name) {
        return None;
    }
    tags.retain(|tag| tag != RETIRED_TAG);
    tags.push(IMAGE_TAG.to_owned());
    let vmid = guest.vmid?;
    let because = format!(
        "template {vmid} was replaced by it, and what replaced it is not there: \
         `qm set {vmid} --name {image} --tags '{}'` makes it the image again",
        tags.join(";")
    );
    lone(guest, id, because)
}

fn lone(guest: &Resource, id: &str, because: String) -> Option<Found> {
    Some(Found {
        id: id.to_owned(),
        of: Origin::Build,
        image: None,
        step: None,
        state: State::Unclear,
        because,
        things: vec![Thing::Vm {
            node: guest.node.clone()?,
            vmid: guest.vmid?.get(),
            template: guest.template,
        }],
    })
}
