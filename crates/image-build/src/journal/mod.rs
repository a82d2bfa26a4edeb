//! The journal of a build: what its VM says of it, so that any machine can go on with a build whose builder died, or
//! collect it.
//!
//! It is one line at the end of the VM's description, a Markdown comment that the web interface does not show. Proxmox VE
//! replicates it with the VM's configuration and compares it before it changes it (`digest`), so it needs no store and no
//! coordinator of ours. It holds no secret: whoever may look at the VM can read it.

mod inputs;
mod keeper;
mod text;

pub(crate) use inputs::Inputs;
pub(crate) use keeper::{Heartbeat, Keeper, is_passing, new_holder};
pub(crate) use text::{JournalError, read, strip, write};

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proxmox_client::{Client, Vmid, VolId};
use serde::{Deserialize, Serialize};

use crate::replace::Replacing;

/// How long a builder that gives no sign of life counts as living.
pub(crate) const LEASE: Duration = Duration::from_secs(5 * 60);

/// What a build's VM says of the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Short id of the build.
    pub(crate) build: String,
    /// UUID of the run, for the manifest.
    pub(crate) run: String,
    /// Name that the template is to have.
    pub(crate) image: String,
    /// The VM that this is written on. A clone of it carries the text along and is not the build's.
    pub(crate) vmid: Vmid,
    /// The step that was begun last.
    pub(crate) step: String,
    /// How many provisioners have ended well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) provisioned: usize,
    /// The process that drives the build; a random word.
    pub(crate) holder: String,
    /// Until when that process counts as living, by the server's clock.
    pub(crate) lease: Timestamp,
    /// The volume with the kickstart, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oemdrv: Option<VolId>,
    /// Fingerprint of the login key that the kickstart installs; one that cannot be made again is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<String>,
    /// How often the guest had been booted when its seal was begun: one more undoes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) boots: Option<usize>,
    /// The template that it takes the place of, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replacing: Option<Replacing>,
    /// What the build was asked for, part by part.
    pub(crate) inputs: Inputs,
}

impl Journal {
    /// Whether its builder counts as living at that time.
    pub(crate) fn is_held(&self, now: Timestamp) -> bool {
        self.lease > now
    }
}

/// The server's time.
pub(crate) fn now(client: &Client) -> Timestamp {
    Timestamp::try_from(client.server_time()).unwrap_or(Timestamp::MAX)
}

/// The end of a lease that begins now, to the second.
pub(crate) fn lease_until(client: &Client, lease: Duration) -> Timestamp {
    let span = SignedDuration::try_from(lease).unwrap_or(SignedDuration::MAX);
    let end = now(client).checked_add(span).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(end.as_second()).unwrap_or(end)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
