//! A typed client for the Proxmox VE API.
//!
//! It knows PVE and nothing of images: who asks ([`Auth`]), which certificate counts ([`Tls`]), one cheap handle for each branch of
//! the API ([`Node`], [`Storage`], [`Qemu`], [`QemuAgent`], [`Task`]), tasks that are waited for ([`Client::wait_task`]), and errors that
//! say what happened and may be asked ([`Error::kind`], [`Error::was_sent`], [`Error::is_retryable`], [`Error::advice`]).
//!
//! ```no_run
//! use std::time::Duration;
//! use proxmox_client::{Agent, Auth, Client, CreateVm, Drive, MiB, Net, NodeName, StorageId, Tls, Upload, Wait};
//!
//! # async fn example(secret: String) -> Result<(), proxmox_client::Error> {
//! let pve = Client::builder("https://10.23.45.10:8006")
//!     .auth(Auth::token("packer@pve!build", secret))
//!     .tls(Tls::CaFile("/etc/pve/pve-root-ca.pem".into()))
//!     .build()?;
//! println!("PVE {}", pve.version().await?);
//!
//! let node = pve.node(&NodeName::new("pve")?);
//! let local = StorageId::new("local")?;
//! let upload = Upload::iso_file("seed.iso")?.on_progress(|done, total| println!("{done} of {total} bytes"));
//! let upid = node.storage(&local).upload(&upload).await?;
//! pve.wait_task(&upid, Wait::at_most(Duration::from_secs(600))).await?;
//!
//! let vm = node.qemu(pve.next_id(None).await?);
//! let create = CreateVm::new()
//!     .name("alma9-k3-build")
//!     .memory(MiB(4096))
//!     .disk("scsi0", &Drive::allocate(&StorageId::new("local-lvm")?, 32))
//!     .net(0, &Net::virtio("vmbr0")?)
//!     .agent(&Agent::enabled(true));
//! let upid = vm.create(&create).await?;
//! pve.wait_task(&upid, Wait::at_most(Duration::from_secs(60))).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does by itself, and what not
//! - Reads are repeated twice when the connection breaks or a proxy between nodes fails (595, 596, 599); writes only when they
//!   surely were not sent. Nothing else is repeated: after a lost answer, look at the world.
//! - A password is exchanged for a ticket, which is renewed before its two hours end.
//! - Certificates are verified, or pinned by fingerprint. No redirect is followed and no proxy used that was not asked for.
//! - Answers are limited in size and time. Secrets are in no error, log or `Debug`.
//! - TLS versions 1.2 and 1.3 by rustls with ring, whatever else the process has chosen.
//!
//! # Map
//! `types` (names, property strings, replies) and `request` (parameters to method, path and body) are pure; `transport` sends;
//! `api` has the handles; `task` waits; `console` shows serial ports and screens. Comments cite facts about PVE by their number in `pve/FACTS.md`.

mod api;
mod client;
mod console;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod request;
mod task;
mod transport;
mod types;

pub use api::{agent::QemuAgent, node::Node, qemu::Qemu, storage::Storage, task::Task, upload::Upload};
pub use client::{Client, ClientBuilder};
pub use console::{
    screen::{Screen, ScreenImage},
    serial::SerialConsole,
};
pub use error::{Error, ErrorKind, MissingPrivileges, TlsProblem};
pub use http::Method;
pub use request::{
    agent::{EXEC_INPUT_MAX_BYTES, FILE_WRITE_MAX_BYTES},
    clone::CloneVm,
    config::{CreateVm, VmConfigUpdate},
    power::{DeleteVm, Shutdown},
    qemu::ConfigView,
    storage::{Checksum, DownloadUrl},
    task::TaskFilter,
    vm_option::DESCRIPTION_MAX,
};
pub use task::wait::Wait;
pub use transport::{auth::Auth, tls::Tls};
pub use types::{
    content::Content,
    fingerprint::Fingerprint,
    name::{NodeName, PoolId, StorageId},
    property::{agent::Agent, boot::Boot, cpu::Cpu, drive::Drive, net::Net, smbios::Smbios1, string::PropertyString},
    reply::{
        access::Permissions,
        agent::{AgentInterface, ExecStatus, FileContent},
        cluster::{Resource, ResourceKind},
        console::ConsoleTicket,
        node::{NetworkInterface, NodeEntry, NodeStatus, Usage},
        pool::{Pool, PoolMember},
        qemu::{DriveCounters, PendingOption, VmStatus},
        storage::{StorageStatus, Volume},
        task::{LogLine, TaskEntry, TaskExit, TaskLog, TaskOutcome, TaskStatus},
    },
    tags::{normalise_tags, split_tags},
    unit::{MiB, disk_size_bytes},
    upid::Upid,
    version::{Release, Version},
    vm_config::VmConfig,
    vmid::Vmid,
    volid::VolId,
};
