//! `Qemu`: `/nodes/{node}/qemu/{vmid}`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::agent::QemuAgent;
use crate::{
    client::Client,
    console::{screen::Screen, serial::SerialConsole},
    error::Error,
    request::{
        clone::CloneVm,
        config::{CreateVm, VmConfigUpdate},
        console,
        power::{DeleteVm, Shutdown},
        qemu::{self, ConfigView},
    },
    types::{
        name::NodeName,
        reply::{
            console::ConsoleTicket,
            qemu::{PendingOption, VmStatus},
        },
        upid::Upid,
        vm_config::VmConfig,
        vmid::Vmid,
    },
};

/// A handle on a VM. What answers a [`Upid`] has only been started: wait for it with
/// [`Client::wait_task`](crate::Client::wait_task).
#[derive(Clone, Debug)]
pub struct Qemu {
    client: Client,
    node: NodeName,
    vmid: Vmid,
}

impl Qemu {
    pub(crate) fn new(client: Client, node: NodeName, vmid: Vmid) -> Self {
        Self { client, node, vmid }
    }

    /// The VM's number.
    pub fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// The node it is on.
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// A handle on its guest agent. Nothing is sent.
    pub fn agent(&self) -> QemuAgent {
        QemuAgent::new(self.client.clone(), self.node.clone(), self.vmid)
    }

    /// Creates it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) for a taken vmid; [`Error::Invalid`] for an option that cannot be,
    /// or that needs a newer server. A missing ISO fails in the task (`FACTS` 32).
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.Allocate` on `/vms/{vmid}` or on `/pool/{pool}`, `Datastore.AllocateSpace` on the storage of each disk, `SDN.Use` on
    /// each bridge or VLAN. Most options need one of `VM.Config.*` as well (`FACTS` 13). `VM.Backup` is for restoring only.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu`.
    pub async fn create(&self, vm: &CreateVm) -> Result<Upid, Error> {
        let request = qemu::create(&self.node, self.vmid, vm)?;
        self.client.check_bounds(&vm.bounds()).await?;
        self.client.typed(&request).await
    }

    /// Its configuration. While it is being created that is nothing but a lock (`FACTS` 32).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such VM on this node.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `VM.Audit` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/qemu/{vmid}/config`.
    pub async fn config(&self, view: ConfigView) -> Result<VmConfig, Error> {
        let map: Map<String, Value> = self.client.typed(&qemu::config(&self.node, self.vmid, view)).await?;
        Ok(VmConfig::from_json(map))
    }

    /// Changes its configuration, done when answered. Allocating a disk this way can meet the request's time limit:
    /// [`set_config_task`](Self::set_config_task) is for that.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when the digest no longer fits, [`ErrorKind::Busy`](crate::ErrorKind::Busy)
    /// after 10 s without the VM's lock, [`ErrorKind::Locked`](crate::ErrorKind::Locked) during a backup and the like.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.Config.Disk` or `VM.Config.CDROM` or `VM.Config.CPU` or `VM.Config.Memory` or `VM.Config.Network` or
    /// `VM.Config.HWType` or `VM.Config.Options` or `VM.Config.Cloudinit` on `/vms/{vmid}`. Each option needs its own of these.
    ///
    /// # Source
    /// `PUT /nodes/{node}/qemu/{vmid}/config`; `FACTS` 36, 37, 45.
    pub async fn update_config(&self, update: &VmConfigUpdate) -> Result<(), Error> {
        let request = qemu::update_config(&self.node, self.vmid, update)?;
        self.client.check_bounds(&update.bounds()).await?;
        self.client.done(&request).await
    }

    /// Changes its configuration in a task; none when it was done within `delay` (whole seconds, 1 to 30).
    ///
    /// # Errors
    /// As [`update_config`](Self::update_config); what fails later fails in the task.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.Config.Disk` or `VM.Config.CDROM` or `VM.Config.CPU` or `VM.Config.Memory` or `VM.Config.Network` or
    /// `VM.Config.HWType` or `VM.Config.Options` or `VM.Config.Cloudinit` on `/vms/{vmid}`. Each option needs its own of these.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/config`.
    pub async fn set_config_task(
        &self,
        update: &VmConfigUpdate,
        delay: Option<Duration>,
    ) -> Result<Option<Upid>, Error> {
        let request = qemu::set_config_task(&self.node, self.vmid, update, delay)?;
        self.client.check_bounds(&update.bounds()).await?;
        self.client.typed(&request).await
    }

    /// Its options, with the changes that wait for the next stop.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `VM.Audit` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/qemu/{vmid}/pending`.
    pub async fn pending(&self) -> Result<Vec<PendingOption>, Error> {
        self.client.typed(&qemu::pending(&self.node, self.vmid)).await
    }

    /// Its state.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such VM on this node.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `VM.Audit` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `GET /nodes/{node}/qemu/{vmid}/status/current`.
    pub async fn status(&self) -> Result<VmStatus, Error> {
        self.client.typed(&qemu::status(&self.node, self.vmid)).await
    }

    /// Starts it. A running, missing or template VM fails in the task (`FACTS` 41); so can a start soon after a stop, and that one
    /// may be repeated ([`Error::cause_kind`] is [`ErrorKind::Busy`](crate::ErrorKind::Busy), `FACTS` 77).
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.PowerMgmt` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/status/start`.
    pub async fn start(&self) -> Result<Upid, Error> {
        self.client.typed(&qemu::start(&self.node, self.vmid)).await
    }

    /// Asks the guest to shut down. A stopped VM is fine.
    ///
    /// # Errors
    /// Any of a request; a guest that does not listen fails in the task (`FACTS` 75).
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.PowerMgmt` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/status/shutdown`.
    pub async fn shutdown(&self, how: &Shutdown) -> Result<Upid, Error> {
        self.client.typed(&qemu::shutdown(&self.node, self.vmid, how)).await
    }

    /// Ends its process at once. A stopped VM is fine.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.PowerMgmt` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/status/stop`.
    pub async fn stop(&self) -> Result<Upid, Error> {
        self.client.typed(&qemu::stop(&self.node, self.vmid)).await
    }

    /// Destroys it with its disks.
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::ErrorKind::State) for a running or protected VM; a template with linked clones fails in the task
    /// (`FACTS` 43, 44).
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.Allocate` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `DELETE /nodes/{node}/qemu/{vmid}`.
    pub async fn delete(&self, what: &DeleteVm) -> Result<Upid, Error> {
        self.client.typed(&qemu::delete(&self.node, self.vmid, what)).await
    }

    /// Clones it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) for a taken vmid.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.Clone` on `/vms/{vmid}` and (`VM.Allocate` on `/vms/{newid}` or `VM.Allocate` on `/pool/{pool}` (with `pool`)).
    /// Besides, `Datastore.AllocateSpace` on the storage of the new disks and `SDN.Use` on each network.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/clone`; `FACTS` 30, 44.
    pub async fn clone_to(&self, clone: &CloneVm) -> Result<Upid, Error> {
        self.client.typed(&qemu::clone_vm(&self.node, self.vmid, clone)?).await
    }

    /// Makes a template of it: its disks become bases for linked clones. It cannot be started any more.
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::ErrorKind::State) for a template, or with snapshots.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.Allocate` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/template`.
    pub async fn convert_to_template(&self) -> Result<Upid, Error> {
        self.client.typed(&qemu::template(&self.node, self.vmid)).await
    }

    /// Grows a disk: to `40G`, or by `+8G`. What is too small fails in the task.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text that is no size.
    ///
    /// # Cancel safety
    /// It may have been carried out when dropped.
    ///
    /// # Privileges
    /// `VM.Config.Disk` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `PUT /nodes/{node}/qemu/{vmid}/resize`.
    pub async fn resize(&self, slot: &str, size: &str) -> Result<Upid, Error> {
        self.client
            .typed(&qemu::resize(&self.node, self.vmid, slot, size)?)
            .await
    }

    /// Types one key or combination, in QEMU's names: `ret`, `shift-a`, `ctrl-alt-delete`.
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::ErrorKind::State) when it does not run; an unknown key is a bare 400 (`FACTS` 2).
    ///
    /// # Cancel safety
    /// The key may have been typed when dropped.
    ///
    /// # Privileges
    /// `VM.Console` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `PUT /nodes/{node}/qemu/{vmid}/sendkey`.
    pub async fn send_key(&self, key: &str) -> Result<(), Error> {
        self.client.done(&qemu::send_key(&self.node, self.vmid, key)?).await
    }

    /// Lets a worker wait for a connection to its screen. [`screen`](Self::screen) does that and connects.
    ///
    /// # Errors
    /// [`Error::Api`], and those below it.
    ///
    /// # Cancel safety
    /// A worker that nobody connects to ends after 10 s.
    ///
    /// # Privileges
    /// `VM.Console` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/vncproxy`; `FACTS` 59, 60, 63.
    pub async fn vncproxy(&self) -> Result<ConsoleTicket, Error> {
        self.client.typed(&console::vnc_proxy(&self.node, self.vmid)).await
    }

    /// Lets a worker wait for a connection to serial port 0 to 3. [`serial_console`](Self::serial_console) does that and connects.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another port; [`Error::Api`], and those below it.
    ///
    /// # Cancel safety
    /// A worker that nobody connects to ends after 10 s.
    ///
    /// # Privileges
    /// `VM.Console` on `/vms/{vmid}`.
    ///
    /// # Source
    /// `POST /nodes/{node}/qemu/{vmid}/termproxy`; `FACTS` 68.
    pub async fn termproxy(&self, port: u8) -> Result<ConsoleTicket, Error> {
        self.client
            .typed(&console::term_proxy(&self.node, self.vmid, port)?)
            .await
    }

    /// Attaches to serial port 0 to 3 of the running guest. Each attachment is a task on the node; keep one for as long as it
    /// is needed.
    ///
    /// # Errors
    /// Those of [`termproxy`](Self::termproxy); [`Error::Console`] when it does not run or has no such port;
    /// [`Error::Timeout`] after 20 s.
    ///
    /// # Cancel safety
    /// A ticket is used up when dropped; nothing else.
    ///
    /// # Privileges
    /// `VM.Console` on `/vms/{vmid}`.
    ///
    /// # Source
    /// [`termproxy`](Self::termproxy) and `GET /nodes/{node}/qemu/{vmid}/vncwebsocket`; `FACTS` 68 to 71.
    pub async fn serial_console(&self, port: u8) -> Result<SerialConsole, Error> {
        let ticket = self.termproxy(port).await?;
        let request = console::websocket(&self.node, self.vmid, ticket.port, &ticket.ticket);
        SerialConsole::attach(&self.client, &ticket, &request).await
    }

    /// Opens the screen of the running guest.
    ///
    /// # Errors
    /// Those of [`vncproxy`](Self::vncproxy); [`Error::Transport`] when it does not run or has no display, of which PVE says
    /// nothing but in the task's log (`FACTS` 67); [`Error::Console`] when somebody else opened it in the same moment.
    ///
    /// # Cancel safety
    /// A ticket is used up when dropped; nothing else.
    ///
    /// # Privileges
    /// `VM.Console` on `/vms/{vmid}`.
    ///
    /// # Source
    /// [`vncproxy`](Self::vncproxy) and `GET /nodes/{node}/qemu/{vmid}/vncwebsocket`; `FACTS` 59 to 67.
    pub async fn screen(&self) -> Result<Screen, Error> {
        let ticket = self.vncproxy().await?;
        let request = console::websocket(&self.node, self.vmid, ticket.port, &ticket.ticket);
        Screen::open(&self.client, &ticket, &request).await
    }
}
