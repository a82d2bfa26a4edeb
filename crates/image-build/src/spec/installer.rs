//! The installer: its kickstart and the way the kickstart travels.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use proxmox_client::StorageId;
use serde::Serialize;

use super::iso::IsoSource;
use crate::boot_command::BootCommand;
use crate::kickstart::{Kickstart, KickstartText};

/// What boots first, and what it is told.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Installer {
    /// The ISO.
    pub iso: IsoSource,
    /// Where uploaded and downloaded ISOs go: the installer's, and the one with the kickstart.
    pub iso_storage: StorageId,
    /// The kickstart.
    pub kickstart: KickstartSource,
    /// How the kickstart reaches the installer.
    pub delivery: Delivery,
    /// Keys to type in the ISO's menu; `None` is the preset's for this firmware and delivery.
    pub boot_command: Option<BootCommand>,
    /// A fixed time before typing; `None` waits until the menu is there.
    pub boot_wait: Option<Duration>,
    /// Pause after each key.
    pub boot_key_interval: Duration,
}

/// Packer's pause as well. QEMU presses and lets go of a key within 20 ms of its own, firmware keeps 15 that nobody has read, and a
/// guest that its host leaves waiting for a third of a second would lose what comes at QEMU's pace.
///
/// # Source
/// `kbd_default_delay_ms` in QEMU's `ui/input.c`; the keyboard buffer of the BIOS data area.
pub(super) const KEY_INTERVAL: Duration = Duration::from_millis(100);

impl Installer {
    /// An installer with the kickstart on an `OEMDRV` volume and nothing but the preset's keys.
    pub fn new(iso: IsoSource, iso_storage: StorageId, kickstart: KickstartSource) -> Self {
        Self {
            iso,
            iso_storage,
            kickstart,
            delivery: Delivery::Oemdrv,
            boot_command: None,
            boot_wait: None,
            boot_key_interval: KEY_INTERVAL,
        }
    }
}

/// Where the kickstart's text comes from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KickstartSource {
    /// The library's own template, filled from a model.
    Model(Box<Kickstart>),
    /// A text, taken as it is.
    Text {
        /// The text, templates filled in.
        text: KickstartText,
        /// The file it came from, for messages: `http/ks.cfg`. It decides nothing, and is not written out.
        #[serde(skip)]
        origin: PathBuf,
    },
}

/// How the kickstart reaches the installer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delivery {
    /// On a small ISO labelled `OEMDRV`, which Anaconda finds by itself.
    Oemdrv,
    /// Over HTTP from this machine, for a boot command with `inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg`.
    Http {
        /// The address to listen on; `None` is every IPv4 address.
        bind: Option<IpAddr>,
        /// Ports to try.
        ports: RangeInclusive<u16>,
        /// The address at which the guest finds this machine (`{{ .HTTPIP }}`), where that is another than the one listened
        /// on: behind a NAT, or in QEMU's user-mode network. `None` takes `bind`, else the one towards Proxmox VE.
        #[serde(skip_serializing_if = "Option::is_none")]
        announce: Option<IpAddr>,
    },
}
