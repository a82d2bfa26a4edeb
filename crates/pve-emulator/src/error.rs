//! What can go wrong when an emulator starts or is filled.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An error of the emulator itself; what API calls meet is answered to the caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use or not this machine's.
    #[error("cannot listen on {address}: choose another address or port 0")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be made, read or written.
    #[error("cannot use the data directory {}: check that it exists and is writable", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No certificate could be made or loaded.
    #[error("cannot set up TLS: {reason}; remove pve-ssl.pem and pve-ssl.key from the data directory to make new ones")]
    Tls {
        /// What the TLS library said.
        reason: String,
    },
    /// The builder or a call was given something that cannot be.
    #[error("{what} '{value}' is not possible: {reason}")]
    Invalid {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
        /// Why not, and what would be.
        reason: String,
    },
}
