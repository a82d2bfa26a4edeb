//! Requests for a VM's screen and serial ports.

use secrecy::{ExposeSecret as _, SecretString};

use super::{Request, path};
use crate::{
    error::Error,
    types::{name::NodeName, vmid::Vmid},
};

/// `websocket` only matters to versions before 9; the answer is the same (`pve/traces/vnc.json`).
pub(crate) fn vnc_proxy(node: &NodeName, vmid: Vmid) -> Request {
    Request::post(path::qemu(node, vmid, &["vncproxy"])).flag("websocket", true)
}

/// Serial port 0 to 3.
pub(crate) fn term_proxy(node: &NodeName, vmid: Vmid, port: u8) -> Result<Request, Error> {
    if port > 3 {
        return Err(Error::invalid("serial port", format!("{port} is not one of 0 to 3")));
    }
    Ok(Request::post(path::qemu(node, vmid, &["termproxy"])).param("serial", format!("serial{port}")))
}

/// A ticket serves once, so this is never repeated.
pub(crate) fn websocket(node: &NodeName, vmid: Vmid, port: u16, ticket: &SecretString) -> Request {
    Request::get(path::qemu(node, vmid, &["vncwebsocket"]))
        .param("port", port)
        .param("vncticket", ticket.expose_secret())
        .only_once()
}
