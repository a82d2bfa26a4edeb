//! A change of a template's settings that is made only if nobody else changes it in the same moment.

use std::time::Duration;

use proxmox_client::{ConfigView, ErrorKind, Qemu, VmConfig, VmConfigUpdate};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::build::{Pace, ask};
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
