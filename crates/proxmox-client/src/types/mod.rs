//! The words of the API as types: names, identifiers, property strings, replies. Pure: no network, no runtime.

pub(crate) mod content;
pub(crate) mod fingerprint;
pub(crate) mod lenient;
pub(crate) mod name;
pub(crate) mod property;
pub(crate) mod reply;
pub(crate) mod tags;
pub(crate) mod unit;
pub(crate) mod upid;
pub(crate) mod version;
pub(crate) mod vm_config;
pub(crate) mod vmid;
pub(crate) mod volid;
