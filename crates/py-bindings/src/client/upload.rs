//! `IsoUpload`: an ISO on its way to a storage, with its progress.

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proxmox_client::{Checksum, Client as Pve, Content, NodeName, StorageId, Upload};
use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use tokio::sync::mpsc::UnboundedSender;

use super::calls::{Answer, wait_task};
use super::parsed;
use crate::runtime::{Notice, Running};
use crate::seconds::Seconds;

/// How often an upload tells its callback: enough for a smooth bar, few enough to cost nothing.
const PROGRESS_CALLS: u64 = 200;

/// How far an upload is: bytes done, bytes in all.
#[derive(Debug)]
pub(super) struct Transferred(u64, u64);

impl Notice for Transferred {
    fn deliver(self, py: Python<'_>, callback: &Py<PyAny>) -> PyResult<()> {
        callback.call1(py, (self.0, self.1)).map(drop)
    }
}

/// An upload, checked before anything is sent.
#[derive(Debug)]
pub(super) struct IsoUpload {
    node: NodeName,
    storage: StorageId,
    upload: Upload,
    limit: Duration,
}

impl IsoUpload {
    pub(super) fn read(
        node_name: &str,
        storage: &str,
        path: PathBuf,
        name: Option<String>,
        checksum: Option<&str>,
        timeout: Seconds,
    ) -> PyResult<Self> {
        let name = match name {
            Some(name) => name,
            None => path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
        };
        let mut upload = parsed(Upload::file(Content::Iso, name, path))?;
        if let Some(checksum) = checksum {
            upload = upload.checksum(parsed(Checksum::parse(checksum))?);
        }
        Ok(Self {
            node: parsed(NodeName::new(node_name))?,
            storage: parsed(StorageId::new(storage))?,
            upload,
            limit: timeout.duration("timeout")?,
        })
    }

    async fn send(self, pve: Pve, notices: UnboundedSender<Transferred>) -> Answer<Uploaded> {
        let told = AtomicU64::new(0);
        let upload = self.upload.on_progress(move |done, total| {
            let share = done
                .saturating_mul(PROGRESS_CALLS)
                .checked_div(total)
                .unwrap_or(PROGRESS_CALLS);
            if share > told.swap(share, Ordering::Relaxed) {
                // Nobody listens any more once the caller has gone.
                let _ = notices.send(Transferred(done, total));
            }
        });
        let upid = pve.node(&self.node).storage(&self.storage).upload(&upload).await?;
        let warnings = wait_task(pve, upid, self.limit).await?;
        Ok(Uploaded {
            volid: format!("{}:iso/{}", self.storage, upload.file_name()),
            warnings,
        })
    }

    pub(super) fn start(self, pve: Pve, on_progress: Option<Py<PyAny>>) -> PyResult<Running<Uploaded, Transferred>> {
        Running::telling(on_progress, |notices| self.send(pve, notices))
    }
}

/// An ISO that is there, and what the server's task warned of.
#[derive(Debug)]
pub(super) struct Uploaded {
    volid: String,
    warnings: Vec<String>,
}

impl Uploaded {
    /// The volid; warnings go where Python's warnings go.
    pub(super) fn volid(self) -> PyResult<String> {
        Python::attach(|py| {
            for line in self.warnings {
                let text = CString::new(line.replace('\0', " ")).unwrap_or_default();
                PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)?;
            }
            Ok(self.volid)
        })
    }
}
