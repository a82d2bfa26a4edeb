//! A Proxmox VE API emulator with guests behind it.
//!
//! It answers as PVE 9.2 does, from the recorded facts in `pve/`: the API's own schema drives parameter checks and
//! permissions, recordings of the real server give texts, orders and quirks. It shares no code with the client that is
//! tested against it. [`EmulatorBuilder::pve_version`] lets it play 8.4 instead.
//!
//! | module | what it does |
//! | --- | --- |
//! | `server`, `wire` | HTTPS, authentication, reason phrases, error bodies, uploads |
//! | `schema` | the API tree: lookup, parameter verification |
//! | `api` | the calls, one file a branch |
//! | `state` | users, rights, storages, VMs; kept in a data directory |
//! | `tasks` | work with UPIDs, logs and exit statuses |
//! | [`engine`] | the seam to running guests: `simulated` or `qemu` |
//! | `faults` | what a test wants to go wrong |
//!
//! # What differs from the real server
//!
//! `tests/conformance.rs` replays every recorded exchange of `pve/scenarios/`: all agree in status, reason phrase, content
//! type, error map and the body's members, types and values. Known to differ, each with its reason:
//!
//! - Proxied calls answer `Connection: Keep-Alive`, not also `close` (`FACTS` 20): hyper would really close.
//! - A client that takes both gets gzip, not deflate: which one PVE prefers is not recorded.
//! - `cluster/resources` is always up to date, lists are in order, and a start right after a stop meets no clean-up lock
//!   (`FACTS` 77, 80, 81): chance would make tests fail by chance.
//! - A simulated guest's screen and its serial port show the same lines; a login prompt on the port echoes, but nobody can
//!   log in there. With `vga: serialN` there is no `vncproxy`, as on the recorded server, which had no `vncterm`.
//! - Not there and answered with 501, never with invented success: HA, backup and restore, migration, snapshots with
//!   memory, containers, SDN, ACME, OVA import, and every call that has no handler.
//! - As 8.4 it has that release's version, roles, privileges and parameters of a VM, each with its source in
//!   `schema/pve-8.4.json`. Not modelled: what else changed between 8.4 and 9.2, such as parameters that other calls gained
//!   (`with-conntrack-state` of a start, `arch` of the CPU list), replication's privileges, the texts of error messages,
//!   and the members of replies. 9.0 and 9.1 answer as 9.2 under their own number, because what they have otherwise is not
//!   known well enough.
//! - An LVM thin pool behaves as its source says (names, extents); the recordings have directories only.
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
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod media;
mod schema;
mod server;
mod state;
mod status_page;
mod tasks;
mod tls;
mod wire;

pub use emulator::{Emulator, EmulatorBuilder, NodeHandle, node_names};
pub use error::Error;
pub use faults::{Fault, FaultAction, FaultMatch, FaultPlan, Gate, TaskFault};
pub use server::RequestRecord;
pub use state::{StorageKind, StorageSpec, Timing};
