//! A Proxmox VE API emulator with guests behind it.
//!
//! It answers as PVE 9.2 does, from the recorded facts in `pve/`: the API's own schema drives parameter checks and
//! permissions, recordings of the real server give texts, orders and quirks. It shares no code with the client that is
//! tested against it.
//!
//! | module | what it does |
//! | --- | --- |
//! | `server`, `wire` | HTTPS, authentication, reason phrases, error bodies, uploads |
//! | `schema` | the API tree: lookup, parameter verification |
//! | `api` | the calls, one file a branch |
//! | `state` | users, rights, storages, VMs; kept in a data directory |
//! | `tasks` | work with UPIDs, logs and exit statuses |
//! | [`engine`] | the seam to running guests |
//! | `faults` | what a test wants to go wrong |
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use pve_emulator::Emulator;
//!
//! let pve = Emulator::start().await?;
//! assert!(pve.url().starts_with("https://127.0.0.1:"));
//! pve.shutdown().await;
//! # Ok::<_, pve_emulator::Error>(()) }).unwrap();
//! ```

mod api;
mod crypt;
mod emulator;
pub mod engine;
mod error;
mod faults;
mod media;
mod schema;
mod server;
mod state;
mod tasks;
mod tls;
mod wire;

pub use emulator::{Emulator, EmulatorBuilder};
pub use error::Error;
pub use faults::{Fault, FaultAction, FaultMatch};
pub use server::RequestRecord;
pub use state::{StorageKind, StorageSpec, Timing};
