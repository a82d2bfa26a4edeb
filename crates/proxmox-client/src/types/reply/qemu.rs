//! `/nodes/{node}/qemu`: the state of VMs.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::types::{lenient, tags::split_tags, vmid::Vmid};

/// A VM's state: `/nodes/{node}/qemu/{vmid}/status/current`, or an entry of `/nodes/{node}/qemu`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct VmStatus {
    /// The VM's number.
    pub vmid: Vmid,
    /// `running` or `stopped`. Firmware, a prompt, a halted and a panicked guest are all `running` (`FACTS` 72).
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub status: Option<String>,
    /// QEMU's own word, for example `running`, `paused`, `stopped`.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub qmpstatus: Option<String>,
    /// The VM's name.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub name: Option<String>,
    /// What it is locked for.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub lock: Option<String>,
    /// Is it a template?
    #[serde(default, deserialize_with = "lenient::flag")]
    pub template: bool,
    /// Has it a channel for the guest agent?
    #[serde(default, deserialize_with = "lenient::flag")]
    pub agent: bool,
    /// The process of a running VM.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub pid: Option<u64>,
    /// Seconds since its start; goes on over a reboot that the guest makes (`FACTS` 73).
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub uptime: Option<u64>,
    /// CPU load; jumps from call to call, so average it (`FACTS` 76).
    #[serde(default, deserialize_with = "lenient::opt_f64")]
    pub cpu: Option<f64>,
    /// Memory in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxmem: Option<u64>,
    /// Size of the boot disk in bytes.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub maxdisk: Option<u64>,
    /// Bytes read from all drives since the start: the progress of an installation (`FACTS` 76).
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub diskread: Option<u64>,
    /// Bytes written to all drives since the start.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub diskwrite: Option<u64>,
    /// Bytes received.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub netin: Option<u64>,
    /// Bytes sent.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub netout: Option<u64>,
    #[serde(default, deserialize_with = "lenient::opt_text")]
    tags: Option<String>,
    /// What this crate has no field for.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl VmStatus {
    /// Is the VM's process there?
    pub fn is_running(&self) -> bool {
        self.status.as_deref() == Some("running")
    }

    /// Is it surely stopped? An unknown state is neither running nor stopped.
    pub fn is_stopped(&self) -> bool {
        self.status.as_deref() == Some("stopped")
    }

    /// Has QEMU paused it because a drive gave an error or its storage has no room? It stays so until someone resumes it.
    ///
    /// # Source
    /// `RunState` in QEMU's `qapi/run-state.json`, which `qmpstatus` passes on; QEMU's `werror=enospc` is PVE's default too.
    pub fn has_io_error(&self) -> bool {
        self.qmpstatus.as_deref() == Some("io-error")
    }

    /// The VM's tags.
    pub fn tags(&self) -> Vec<String> {
        self.tags.as_deref().map(split_tags).unwrap_or_default()
    }

    /// Bytes read from and written to one drive since the start, for example `scsi0` or `ide2`.
    ///
    /// # Source
    /// `blockstat` of a running VM's status; a counter can be absent while QEMU starts.
    pub fn drive_counters(&self, slot: &str) -> Option<DriveCounters> {
        let drive = self.extra.get("blockstat")?.get(slot)?;
        let count = |key: &str| drive.get(key).and_then(Value::as_u64);
        Some(DriveCounters {
            bytes_read: count("rd_bytes")?,
            bytes_written: count("wr_bytes")?,
        })
    }
}

/// What one drive of a running VM has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriveCounters {
    /// Bytes read since the start.
    pub bytes_read: u64,
    /// Bytes written since the start.
    pub bytes_written: u64,
}

/// An entry of `/nodes/{node}/qemu/{vmid}/pending`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct PendingOption {
    /// The option.
    pub key: String,
    /// What the running VM has.
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub value: Option<String>,
    /// What it will have after its next stop (`FACTS` 39).
    #[serde(default, deserialize_with = "lenient::opt_text")]
    pub pending: Option<String>,
    /// 1: to be removed at the next stop; 2: by force.
    #[serde(default, deserialize_with = "lenient::opt_u64")]
    pub delete: Option<u64>,
}

impl PendingOption {
    /// Does something wait for the next stop?
    pub fn is_pending(&self) -> bool {
        self.pending.is_some() || self.delete.is_some_and(|delete| delete != 0)
    }
}
