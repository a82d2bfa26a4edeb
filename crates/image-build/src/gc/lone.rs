//! Guests whose names say that a build made or renamed them, while the VM with its journal is not there. People have to look at them.

use std::collections::BTreeMap;

use proxmox_client::{Client, ConfigView, NodeName, Resource};

use super::{Found, Origin, State, Thing};
use crate::Error;
use crate::build::IMAGE_TAG;
use crate::replace::{RETIRED_TAG, copied_build, retired_by, retired_name};

/// What is there of builds whose own VM is not.
pub(super) async fn lone(
    client: &Client,
    resources: &[Resource],
    builds: &BTreeMap<(Origin, String), Found>,
) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    for guest in resources.iter().filter(|resource| resource.is_qemu()) {
        let Some(name) = guest.name.as_deref() else { continue };
        if let Some(id) = copied_build(name).filter(|id| !is_known(builds, id)) {
            found.extend(copy(guest, id));
        }
        let retired = retired_by(name).filter(|(_, id)| {
            let tags = guest.tags();
            let is_retired = guest.template && tags.iter().any(|tag| tag == RETIRED_TAG);
            // The image of a build that goes on, or can be gone on with, may be without a bearer of its name for a moment.
            let mut images = builds.values().filter_map(|build| build.image.as_deref());
            is_retired && !is_known(builds, id) && !images.any(|image| retired_name(image, id) == name)
        });
        if let Some((image, id)) = retired
            && !has_heir(client, resources, guest, id).await?
        {
            found.extend(retired_template(guest, image, id));
        }
    }
    Ok(found)
}

fn is_known(builds: &BTreeMap<(Origin, String), Found>, id: &str) -> bool {
    builds.contains_key(&(Origin::Build, id.to_owned()))
}

/// A guest with the name of an unfinished copy. Whose it is its build's journal says.
fn copy(guest: &Resource, id: &str) -> Option<Found> {
    let because = format!(
        "vm {} has the name of its copy, but its own VM is not there: look at it yourself",
        guest.vmid?
    );
    found(guest, id, because)
}

/// A template that was replaced, when no guest bears the name that it had: somebody deleted the new one, perhaps before its builder had
/// ended.
fn retired_template(guest: &Resource, image: &str, id: &str) -> Option<Found> {
    let vmid = guest.vmid?;
    let mut tags = guest.tags();
    tags.retain(|tag| tag != RETIRED_TAG);
    tags.push(IMAGE_TAG.to_owned());
    // A name that was too long for both was cut, and is not known.
    let name = if retired_name(&format!("{image}x"), id) == retired_name(image, id) {
        "ITS-FORMER-NAME"
    } else {
        image
    };
    let because = format!(
        "template {vmid} was replaced by it, and what replaced it is not there: \
         `qm set {vmid} --name {name} --tags '{}'` makes it the image again",
        tags.join(";")
    );
    found(guest, id, because)
}

/// Whether another guest bears the name that a retired template had. The cluster's list can lag (`FACTS` 80), so that images and who is
/// listed without a name are asked themselves; one that does not answer may bear it.
async fn has_heir(client: &Client, resources: &[Resource], retired: &Resource, id: &str) -> Result<bool, Error> {
    let former = |name: Option<&str>| name.is_some_and(|name| Some(retired_name(name, id)) == retired.name);
    let others = resources
        .iter()
        .filter(|guest| guest.vmid.is_some() && guest.vmid != retired.vmid);
    for guest in others {
        if former(guest.name.as_deref()) {
            return Ok(true);
        }
        let may = guest.name.is_none() || guest.tags().iter().any(|tag| tag == IMAGE_TAG);
        let (true, Some(vmid), Some(node)) = (may && guest.is_qemu(), guest.vmid, guest.node.as_deref()) else {
            continue;
        };
        let node = NodeName::new(node).map_err(Error::api("reading the cluster's guests"))?;
        match client.node(&node).qemu(vmid).config(ConfigView::Pending).await {
            Ok(config) if !former(config.name()) => {}
            Err(error) if error.is_not_found() => {}
            Ok(_) | Err(_) => return Ok(true),
        }
    }
    Ok(false)
}

fn found(guest: &Resource, id: &str, because: String) -> Option<Found> {
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
