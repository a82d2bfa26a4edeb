//! `/nodes/{node}/qemu/{vmid}/agent`.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{Request, path};
use crate::{
    error::Error,
    types::{name::NodeName, reply::agent::text_of_bytes, vmid::Vmid},
};

/// The most bytes that [`exec_with_input`](crate::QemuAgent::exec_with_input) can give to a program's standard input (`maxLength` of the API schema).
pub const EXEC_INPUT_MAX_BYTES: usize = 65_536;

/// The most bytes that one `file_write` can carry: 61,440 characters of base64 (`FACTS` 49).
pub const FILE_WRITE_MAX_BYTES: usize = 61_440 / 4 * 3;

/// POST only (`FACTS` 47).
pub(crate) fn ping(node: &NodeName, vmid: Vmid) -> Request {
    Request::post(path::qemu(node, vmid, &["agent", "ping"]))
}

pub(crate) fn network_interfaces(node: &NodeName, vmid: Vmid) -> Request {
    // A broken agent answers 596 after 5 s (FACTS 48): whoever polls asks again by itself.
    Request::get(path::qemu(node, vmid, &["agent", "network-get-interfaces"])).only_once()
}

/// A program with its arguments, not a shell's line: one string is one argument (`FACTS` 48).
pub(crate) fn exec(node: &NodeName, vmid: Vmid, command: &[&str], input: Option<&[u8]>) -> Result<Request, Error> {
    match command.first() {
        Some(program) if !program.is_empty() => {}
        _ => {
            return Err(Error::invalid(
                "command",
                "it is empty; give the program and its arguments",
            ));
        }
    }
    let mut request = Request::post(path::qemu(node, vmid, &["agent", "exec"]));
    for argument in command {
        request = request.param("command", argument);
    }
    if let Some(input) = input {
        if input.len() > EXEC_INPUT_MAX_BYTES {
            return Err(Error::invalid(
                "input-data",
                format!(
                    "{} bytes are too long: PVE takes at most {EXEC_INPUT_MAX_BYTES}",
                    input.len()
                ),
            ));
        }
        request = request.param("input-data", text_of_bytes(input));
    }
    Ok(request)
}

/// The end of a program can be asked once: afterwards its pid is unknown (`FACTS` 49).
pub(crate) fn exec_status(node: &NodeName, vmid: Vmid, pid: u64) -> Request {
    Request::get(path::qemu(node, vmid, &["agent", "exec-status"]))
        .param("pid", pid)
        .only_once()
}

pub(crate) fn file_write(node: &NodeName, vmid: Vmid, file: &str, content: &[u8]) -> Result<Request, Error> {
    if content.len() > FILE_WRITE_MAX_BYTES {
        return Err(Error::invalid(
            "content",
            format!(
                "{} bytes are too long: one call writes at most {FILE_WRITE_MAX_BYTES}",
                content.len()
            ),
        ));
    }
    check_guest_path(file)?;
    // Encoded here: left to PVE, characters above U+00FF would break it and others would become Latin-1.
    Ok(Request::post(path::qemu(node, vmid, &["agent", "file-write"]))
        .param("file", file)
        .param("content", BASE64_STANDARD.encode(content))
        .flag("encode", false))
}

pub(crate) fn file_read(node: &NodeName, vmid: Vmid, file: &str) -> Result<Request, Error> {
    check_guest_path(file)?;
    Ok(Request::get(path::qemu(node, vmid, &["agent", "file-read"]))
        .param("file", file)
        .only_once())
}

fn check_guest_path(file: &str) -> Result<(), Error> {
    if file.is_empty() || file.chars().any(char::is_control) {
        return Err(Error::invalid("file", format!("{file:?} is not a path in the guest")));
    }
    Ok(())
}
