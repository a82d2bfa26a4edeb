//! How the kickstart travels to the installer, and settings to a clone.

mod config_volume;
mod data_volume;
mod fixed_times;
mod http_server;
mod oemdrv;
mod volume;

pub use config_volume::{CONFIG_VOLUME_LABEL, ConfigVolume, ConfigVolumeError};
pub use data_volume::{DataVolume, TAKE_FROM_VOLUME};
pub use http_server::{HttpRequestSeen, KickstartServer, OnRequest};
pub use oemdrv::{OEMDRV_LABEL, OemdrvError, oemdrv};
