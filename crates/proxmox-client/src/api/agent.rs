//! `QemuAgent`: `/nodes/{node}/qemu/{vmid}/agent`.

use serde::Deserialize;

use crate::{
    client::Client,
    error::Error,
    request::{self, Request},
    types::{
        lenient,
        name::NodeName,
        reply::agent::{AgentInterface, ExecStatus, FileContent, RawExecStatus, RawFileContent},
        vmid::Vmid,
    },
};

/// A handle on a VM's guest agent.
///
/// Without a running VM, a configured channel or a program that answers, each call is
/// [`ErrorKind::Agent`](crate::ErrorKind::Agent) or [`ErrorKind::State`](crate::ErrorKind::State); the last of these after 3 s (`FACTS` 46).
/// What the agent itself refuses is [`ErrorKind::AgentError`](crate::ErrorKind::AgentError).
#[derive(Clone, Debug)]
pub struct QemuAgent {
    client: Client,
    node: NodeName,
    vmid: Vmid,
}

/// Most calls put the agent's answer into `result` (`FACTS` 47).
#[derive(Deserialize)]
struct InResult<T> {
    result: T,
}

#[derive(Deserialize)]
pub(crate) struct Started {
    #[serde(deserialize_with = "lenient::u64")]
    pid: u64,
}

impl QemuAgent {
    pub(crate) fn new(client: Client, node: NodeName, vmid: Vmid) -> Self {
        Self { client, node, vmid }
    }

    async fn in_result<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        self.client
            .typed::<InResult<T>>(request)
            .await
            .map(|wrapped| wrapped.result)
    }

    /// Does it answer?
    ///
    /// # Errors
    /// [`ErrorKind::Agent`](crate::ErrorKind::Agent) when not.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    ///
    /// # Privileges
    /// `VM.GuestAgent.Audit` or `VM.GuestAgent.Unrestricted` on `/vms/{vmid}`. PVE 8: `VM.Monitor` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/agent/ping`.
    pub async fn ping(&self) -> Result<(), Error> {
        self.client.done(&request::agent::ping(&self.node, self.vmid)).await
    }

    /// The guest's network interfaces with their addresses, loopback and container bridges included.
    ///
    /// # Errors
    /// Any of the agent and of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `VM.GuestAgent.Audit` or `VM.GuestAgent.Unrestricted` on `/vms/{vmid}`. PVE 8: `VM.Monitor` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces`.
    pub async fn network_interfaces(&self) -> Result<Vec<AgentInterface>, Error> {
        self.in_result(&request::agent::network_interfaces(&self.node, self.vmid))
            .await
    }

    /// Starts a program, given with its arguments, and answers its process id.
    ///
    /// # Errors
    /// 596 `Broken pipe` after 5 s when there is no such program (`FACTS` 48); it says nothing of a proxy then.
    ///
    /// # Cancel safety
    /// The program may have been started when dropped.
    ///
    /// # Privileges
    /// `VM.GuestAgent.Unrestricted` on `/vms/{vmid}`. PVE 8: `VM.Monitor` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/agent/exec`.
    pub async fn exec(&self, command: &[&str]) -> Result<u64, Error> {
        self.start(command, None).await
    }

    /// The same, with at most 64 KiB on the program's standard input.
    ///
    /// # Errors
    /// As [`exec`](Self::exec); [`Error::Invalid`] for more.
    ///
    /// # Cancel safety
    /// The program may have been started when dropped.
    ///
    /// # Privileges
    /// `VM.GuestAgent.Unrestricted` on `/vms/{vmid}`. PVE 8: `VM.Monitor` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/agent/exec`, `input-data`.
    pub async fn exec_with_input(&self, command: &[&str], input: &[u8]) -> Result<u64, Error> {
        self.start(command, Some(input)).await
    }

    async fn start(&self, command: &[&str], input: Option<&[u8]>) -> Result<u64, Error> {
        let request = request::agent::exec(&self.node, self.vmid, command, input)?;
        Ok(self.client.typed::<Started>(&request).await?.pid)
    }

    /// What became of a program. Once it has ended this answers one time only, afterwards the process id is unknown
    /// (`FACTS` 49): never ask twice, and keep what it said.
    ///
    /// # Errors
    /// [`ErrorKind::AgentError`](crate::ErrorKind::AgentError) for an unknown process id; any of the agent and of a request.
    ///
    /// # Cancel safety
    /// Not safe: dropped in the wrong moment, the end of the program is lost.
    ///
    /// # Privileges
    /// `VM.GuestAgent.Unrestricted` on `/vms/{vmid}`. PVE 8: `VM.Monitor` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/qemu/{vmid}/agent/exec-status`.
    pub async fn exec_status(&self, pid: u64) -> Result<ExecStatus, Error> {
        let request = request::agent::exec_status(&self.node, self.vmid, pid);
        self.client.typed::<RawExecStatus>(&request).await.map(Into::into)
    }

    /// Writes a file of at most [`FILE_WRITE_MAX_BYTES`](crate::FILE_WRITE_MAX_BYTES); one that is there is replaced.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a longer content; any of the agent and of a request.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.GuestAgent.FileWrite` or `VM.GuestAgent.Unrestricted` on `/vms/{vmid}`. PVE 8: `VM.Monitor` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/agent/file-write`.
    pub async fn file_write(&self, file: &str, content: &[u8]) -> Result<(), Error> {
        self.client
            .done(&request::agent::file_write(&self.node, self.vmid, file, content)?)
            .await
    }

    /// Reads a file, at most its first 16 MiB.
    ///
    /// # Errors
    /// [`ErrorKind::AgentError`](crate::ErrorKind::AgentError) when it cannot be opened; any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `VM.GuestAgent.FileRead` or `VM.GuestAgent.Unrestricted` on `/vms/{vmid}`. PVE 8: `VM.Monitor` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/qemu/{vmid}/agent/file-read`.
    pub async fn file_read(&self, file: &str) -> Result<FileContent, Error> {
        let request = request::agent::file_read(&self.node, self.vmid, file)?;
        self.client.typed::<RawFileContent>(&request).await.map(Into::into)
    }
}
