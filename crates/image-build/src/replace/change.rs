//! A change of a template's settings that is made only if nobody else changes it in the same moment.

use std::time::Duration;

use proxmox_client::{ConfigView, ErrorKind, Qemu, VmConfig, VmConfigUpdate};
use tokio_util::sync::CancellationToken;

use super::RETIRED_TAG;
use crate::Error;
use crate::build::{BUILD_TAG_PREFIX, IMAGE_TAG, Pace, ask, is_id};
use crate::journal::is_passing;

/// A VM's configuration; `None` when it is gone.
///
/// # Errors
/// [`Error::Api`] when it cannot be read.
pub(crate) async fn config(vm: &Qemu, cancel: &CancellationToken) -> Result<Option<VmConfig>, Error> {
    let attempt = format!("reading template {}", vm.vmid());
    match ask(&attempt, cancel, || vm.config(ConfigView::Pending)).await {
        Ok(config) => Ok(Some(config)),
        Err(Error::Api { source, .. }) if source.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads, asks `decide` what to set, and sets it if nothing has changed in between; again until that is so. Whether anything
/// was set; `None` when the VM is gone.
///
/// # Errors
/// What `decide` refuses; any of the calls.
pub(crate) async fn change(
    vm: &Qemu,
    what: &str,
    cancel: &CancellationToken,
    limit: Duration,
    decide: impl Fn(&VmConfig) -> Result<Option<VmConfigUpdate>, Error> + Send + Sync,
) -> Result<Option<bool>, Error> {
    let mut pace = Pace::new(what, limit, cancel);
    // An answer that was lost may have been one to a change that was made.
    let mut tried = false;
    loop {
        let Some(config) = config(vm, cancel).await? else {
            return Ok(None);
        };
        let Some(update) = decide(&config)? else {
            return Ok(Some(tried));
        };
        let update = update.digest(config.digest().unwrap_or_default());
        match vm.update_config(&update).await {
            Ok(()) => return Ok(Some(true)),
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                pace.pause("somebody changes it in the same moment").await?;
            }
            Err(error) if is_passing(&error) || error.kind() == ErrorKind::Locked => {
                tried |= error.was_sent();
                pace.pause(&error.to_string()).await?;
            }
            Err(error) => return Err(Error::api(what)(error)),
        }
    }
}

/// Its tags, with one in place of another. PVE sorts them, so to and fro is as it was (`FACTS` 31).
pub(crate) fn tags_with(config: &VmConfig, with: &str, without: &str) -> Vec<String> {
    let mut tags = config.tags();
    tags.retain(|tag| tag != without && tag != with);
    tags.push(with.to_owned());
    tags
}

/// The tags of a complete image without the mark of its build, as they are on it: whoever goes on with the build, or ends it, may have
/// been asked for something else by now.
pub(crate) fn tags_of_image(config: &VmConfig) -> Vec<String> {
    let mut tags = config.tags();
    tags.retain(|tag| !is_mark(tag));
    if !tags.iter().any(|tag| tag == IMAGE_TAG) {
        tags.push(IMAGE_TAG.to_owned());
    }
    tags
}

/// The same for what stays of it beside the image.
pub(crate) fn tags_of_retired(config: &VmConfig) -> Vec<String> {
    let mut tags = tags_with(config, RETIRED_TAG, IMAGE_TAG);
    tags.retain(|tag| !is_mark(tag));
    tags
}

fn is_mark(tag: &str) -> bool {
    tag.strip_prefix(BUILD_TAG_PREFIX).is_some_and(is_id)
}
