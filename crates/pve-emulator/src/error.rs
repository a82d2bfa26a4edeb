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
    /// Another emulator serves from the data directory.
    #[error("the data directory {} is in use by process {pid}: end that emulator or choose another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Process id of the other emulator.
        pid: String,
    },
    /// A file of the data directory is not what an emulator wrote.
    #[error("cannot read {}: move it away to start without it", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// A faults file cannot be read or does not say what it should.
    #[error("faults file {}: {reason}", path.display())]
    Faults {
        /// The file.
        path: PathBuf,
        /// Line, cause and what would be right.
        reason: String,
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
    /// The engine of the guests cannot work on this machine.
    #[error("the engine {name} cannot run guests: {reason}")]
    Engine {
        /// Its name.
        name: &'static str,
        /// Why not, and what to do.
        reason: String,
    },
}
