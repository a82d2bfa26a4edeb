//! A build that takes the place of a template of the same name: what is asked, and what its journal keeps of it.
//!
//! The new image is built beside the old one under a name of its own, verified, and given the image's name at the end; the old
//! one is renamed just before that, and deleted after it if that was asked. Where the new one is to have the old one's vmid, both are
//! moved after that by full copies: Proxmox VE gives no VM another number.

mod change;
mod copy;
mod linked;
mod old;
mod place;
mod presence;
mod remains;

pub(crate) use change::{change, config, tags_of_image, tags_of_retired, tags_with};
pub(crate) use copy::{At, FullCopy, copied_build, copy_name, own_disks, work_on};
pub(crate) use linked::{linked_clones, vms};
pub(crate) use old::{Old, Restored, Retired};
pub(crate) use place::pool_of;
pub(crate) use presence::Presence;
pub(crate) use remains::{Remains, is_image};

use std::time::Duration;

use proxmox_client::Vmid;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::build::is_id;
use crate::spec::ImageSpec;
use crate::verify::{VerifySpec, VerifyTimeouts};

/// Tag of a template that another one has taken the place of. It has lost [`IMAGE_TAG`](crate::build::IMAGE_TAG).
pub const RETIRED_TAG: &str = "k3simage-retired";

/// Longest part of a DNS name between two dots.
const LABEL_MAX: usize = 63;
/// Longest DNS name.
const NAME_MAX: usize = 253;

words! {
    /// What becomes of the template that is replaced.
    OldTemplate, "what becomes of a replaced template" {
        /// It is kept under another name.
        Retire => "retire",
        /// It is deleted, once the new one bears its name.
        Delete => "delete",
    }
}

/// How a build takes the place of a template of the same name.
///
/// ```
/// use image_build::{OldTemplate, Replace};
/// let nightly = Replace::from(OldTemplate::Delete);
/// let without_dhcp = Replace::new(OldTemplate::Retire).ip_configs(["ip=10.0.0.5/24", "ip=10.0.0.6/24"].map(str::to_owned));
/// assert!(nightly.verify && without_dhcp.ip_configs.is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replace {
    /// What becomes of the old template.
    pub old: OldTemplate,
    /// Whether the new one is verified by two clones before it takes the name; else it is trusted as it is.
    pub verify: bool,
    /// `ipconfig0` of the two clones, for networks without DHCP, as [`VerifySpec::ip_configs`].
    pub ip_configs: Option<[String; 2]>,
    /// How long a clone may take from its start to a login, and from there until its k3s is active.
    pub verify_limit: Duration,
}

impl Replace {
    /// With a verification whose clones get their addresses by DHCP.
    pub fn new(old: OldTemplate) -> Self {
        Self {
            old,
            verify: true,
            ip_configs: None,
            verify_limit: VerifyTimeouts::default().boot,
        }
    }

    /// Whether the new template is verified by clones before it takes the old one's name.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// Addresses of the two clones (`ip=10.0.0.5/24,gw=10.0.0.1`), for networks without DHCP.
    #[must_use]
    pub fn ip_configs(mut self, configs: [String; 2]) -> Self {
        self.ip_configs = Some(configs);
        self
    }

    /// How long a clone may take from its start to a login, and from there until its k3s is active; ten minutes by default.
    #[must_use]
    pub fn verify_limit(mut self, limit: Duration) -> Self {
        self.verify_limit = limit;
        self
    }

    /// What is wrong with it, before anything is asked of a cluster.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut verify = VerifySpec::new("the new template");
        verify.ip_configs.clone_from(&self.ip_configs);
        verify.check().map_err(Error::Invalid)
    }

    /// What the journal is to keep of it. `renumber`: whether the new template is to have the old one's vmid.
    pub(crate) fn of_template(&self, vmid: Vmid, renumber: bool) -> Replacing {
        Replacing {
            vmid,
            then: self.old,
            renumber,
            copy: None,
            verification: self.verify.then(|| Verification {
                id: None,
                ip_configs: self.ip_configs.clone(),
                limit: self.verify_limit.as_secs(),
            }),
        }
    }
}

impl From<OldTemplate> for Replace {
    fn from(old: OldTemplate) -> Self {
        Self::new(old)
    }
}

/// A replacement under way, as the build's journal holds it. Where the old template is, the cluster tells: it may be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replacing {
    /// The old template, and its number.
    pub(crate) vmid: Vmid,
    /// What becomes of it.
    pub(crate) then: OldTemplate,
    /// Whether the new one gets that number in the end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) renumber: bool,
    /// The number that the old one is copied to before that, from before the call that makes the copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) copy: Option<Vmid>,
    /// How the new one is verified, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verification: Option<Verification>,
}

/// How the new template is verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verification {
    /// Id of the one that was begun last: its clones stand on the new template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ip_configs: Option<[String; 2]>,
    /// [`Replace::verify_limit`] in seconds.
    pub(crate) limit: u64,
}

impl Verification {
    /// The verification of the template with this vmid, which a build of `spec` made.
    pub(crate) fn spec(&self, spec: &ImageSpec, vmid: Vmid) -> VerifySpec {
        let mut verify = VerifySpec::new(vmid.to_string());
        verify.iso_storage.clone_from(&spec.installer.iso_storage);
        verify.pool.clone_from(&spec.pool);
        verify.ip_configs.clone_from(&self.ip_configs);
        verify.ssh_port = spec.communicator.ssh.port;
        let limit = Duration::from_secs(self.limit);
        verify.timeouts = VerifyTimeouts {
            boot: limit,
            k3s: limit,
            task: spec.timeouts.task,
            undo: spec.timeouts.undo,
        };
        verify
    }
}

/// The name under which the old template is kept: the image's, as far as there is room, and the id of the build that replaced it.
pub(crate) fn retired_name(image: &str, build: &str) -> String {
    with_tail(image, &format!("-retired-{build}"))
}

/// The image's name, as far as there was room for it, and the build in the name of a template that was replaced.
pub(crate) fn retired_by(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once("-retired-").filter(|(_, id)| is_id(id))
}

/// The name under which the new template is kept at the number that it was built at, when it has its own and others need the first.
pub(crate) fn moved_name(image: &str, build: &str) -> String {
    with_tail(image, &format!("-moved-{build}"))
}

fn with_tail(image: &str, tail: &str) -> String {
    let front = image.rsplit_once('.').map_or(0, |(front, _)| front.len() + 1);
    let label_end = front + LABEL_MAX.saturating_sub(tail.len());
    let end = label_end.min(NAME_MAX - tail.len());
    // A DNS name is ASCII.
    let kept = image.get(..end.min(image.len())).unwrap_or(image);
    format!("{}{tail}", kept.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::spec::is_dns_name;

    #[test]
    fn a_retired_name_says_what_it_was_and_who_replaced_it() {
        assert_eq!(
            retired_name("alma9-k3-node-amd64-v1.29.0-v1", "7f3a12bc"),
            "alma9-k3-node-amd64-v1.29.0-v1-retired-7f3a12bc"
        );
        let long = "a".repeat(63);
        assert_eq!(
            retired_name(&long, "7f3a12bc"),
            format!("{}-retired-7f3a12bc", "a".repeat(46))
        );
        // A cut leaves no hyphen at the end of what stays.
        let hyphens = format!("{}-----{}", "a".repeat(43), "b".repeat(15));
        assert_eq!(
            retired_name(&hyphens, "7f3a12bc"),
            format!("{}-retired-7f3a12bc", "a".repeat(43))
        );
    }

    #[test]
    fn what_an_older_journal_does_not_say_is_no() {
        let old: Replacing = serde_json::from_str(r#"{"vmid":100,"then":"retire"}"#).unwrap();
        assert_eq!((old.renumber, old.copy), (false, None));
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"vmid":100,"then":"retire"}"#);
    }

    #[test]
    fn the_words_are_those_of_the_command() {
        assert_eq!(OldTemplate::WORDS, ["retire", "delete"]);
        assert_eq!(
            "keep".parse::<OldTemplate>().unwrap_err().to_string(),
            "`keep` is not what becomes of a replaced template: write retire or delete"
        );
    }

    proptest! {
        #[test]
        fn a_retired_name_is_one_that_pve_takes(
            image in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,3}",
        ) {
            prop_assume!(is_dns_name(&image));
            let retired = retired_name(&image, "7f3a12bc");
            prop_assert!(is_dns_name(&retired), "{retired}");
            prop_assert!(retired.ends_with("-retired-7f3a12bc"));
            prop_assert_eq!(retired_by(&retired).map(|(_, build)| build), Some("7f3a12bc"));
        }
    }
}
