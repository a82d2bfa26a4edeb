//! `vncproxy`, `termproxy` and `vncwebsocket`: workers that wait for one connection and join it with a guest's device.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::terminal::Input;
use crate::api::{Call, Outcome, Routes};
use crate::engine::{ByteStream, StreamError};
use crate::state::{Identity, Listening, World};
use crate::tasks::Worker;
use crate::wire::{Answer, Failure};

/// Both for the connection and, in `termproxy`, for its first line. Not scaled with the emulator's timing: a client on a busy
/// machine has no more than this on the real server either.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest first line: a user's name and a ticket.
const MAX_FIRST_LINE: usize = 2048;

pub(super) fn add(routes: &mut Routes) {
    routes.add("POST /nodes/{node}/qemu/{vmid}/vncproxy", vnc_proxy);
    routes.add("POST /nodes/{node}/qemu/{vmid}/termproxy", term_proxy);
    routes.add("GET /nodes/{node}/qemu/{vmid}/vncwebsocket", vnc_websocket);
}

/// `serial0` of `serial0,memory=16` or `type=serial0`.
fn display_type(vga: &str) -> &str {
    let first = vga.split(',').next().unwrap_or(vga);
    first.strip_prefix("type=").unwrap_or(first)
}

async fn vnc_proxy(call: Call) -> Outcome {
    let machine = call.machine()?;
    let vmid = call.vmid();
    let password: String = (0..8)
        .map(|_| char::from(b'!' + rand::random::<u8>() % (b'a' - b'!')))
        .collect();
    let listening = call.world.doors.listen(&call.who, vmid, &format!("{password}:"));
    let listening = listening.map_err(Failure::die)?;
    let (port, ticket) = (listening.port, listening.ticket.clone());
    if machine
        .config
        .get("vga")
        .is_some_and(|vga| display_type(vga).starts_with("serial"))
    {
        // PVE starts `vncterm` then, which the recorded server had not (`FACTS`, `pve/traces/vnc.json`).
        call.world.delay(Duration::from_secs(5)).await;
        return Err(Failure::die(format!(
            "Timeout while waiting for port '{port}' to get ready!"
        )));
    }
    let secret = password.clone();
    let upid = call.task("vncproxy", &vmid.to_string(), |world, worker| async move {
        serve_screen(&world, &worker, vmid, listening, &secret).await
    });
    Ok(json!({
        "port": port.to_string(), "ticket": ticket, "password": password, "upid": upid, "user": call.who.full(),
        "cert": call.world.settings.certificate_pem,
    })
    .into())
}

async fn serve_screen(
    world: &World,
    worker: &Worker,
    vmid: u32,
    listening: Listening,
    password: &str,
) -> Result<(), String> {
    let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, listening.connection).await else {
        return Err("connection timed out".into());
    };
    let complaint = match world.engine.vnc(vmid, password).await {
        Ok(device) => {
            join(client, device).await;
            return Ok(());
        }
        Err(StreamError::NotRunning) => format!("VM {vmid} not running"),
        Err(StreamError::NoDevice) => {
            format!("VM {vmid} qmp command 'set_password' failed - Could not set password")
        }
        Err(StreamError::Failed(why)) => why,
    };
    worker.log(complaint);
    Err("Failed to run vncproxy.".into())
}

/// Copies both ways until one side ends.
async fn join(client: DuplexStream, device: Box<dyn ByteStream>) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_device, mut to_device) = tokio::io::split(device);
    let ended = tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_device) => ended,
        ended = tokio::io::copy(&mut from_device, &mut to_client) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a console connection broke");
    }
}

async fn term_proxy(call: Call) -> Outcome {
    let machine = call.machine()?;
    let vmid = call.vmid();
    let shown = machine.config.get("vga").map(|vga| display_type(vga).to_owned());
    let serial = call
        .params
        .text("serial")
        .or_else(|| shown.filter(|kind| kind.starts_with("serial")));
    let listening = call.world.doors.listen(&call.who, vmid, "").map_err(Failure::die)?;
    let answer = json!({ "port": listening.port.to_string(), "ticket": listening.ticket, "user": call.who.full() });
    let who = call.who.clone();
    let upid = call.task("vncproxy", &vmid.to_string(), |world, worker| async move {
        let mut command = format!(
            "/usr/bin/termproxy {} --path /vms/{vmid} --perm VM.Console --vncticket-endpoint --verify-port --ticket-fd 6 -- /usr/sbin/qm terminal {vmid} -escape 0",
            listening.port
        );
        if let Some(serial) = &serial {
            command.push_str(" -iface ");
            command.push_str(serial);
        }
        match serve_terminal(&world, &who, vmid, listening, serial.as_deref(), &worker).await {
            Ok(()) => Ok(()),
            Err(complaint) => {
                worker.log(complaint);
                Err(format!("command '{command}' failed: exit code 1"))
            }
        }
    });
    let mut answer = answer;
    answer["upid"] = upid.into();
    Ok(answer.into())
}

async fn serve_terminal(
    world: &Arc<World>,
    who: &Identity,
    vmid: u32,
    listening: Listening,
    serial: Option<&str>,
    worker: &Worker,
) -> Result<(), &'static str> {
    let Ok(Ok(mut client)) = tokio::time::timeout(PATIENCE, listening.connection).await else {
        return Err("failed waiting for client: timed out");
    };
    worker.log(format!(
        "client connection: 127.0.0.1:{}",
        32768 + u32::from(rand::random::<u16>()) % 28000
    ));
    let first = tokio::time::timeout(PATIENCE, first_line(&mut client)).await;
    let (line, rest) = first
        .map_err(|_| "failed reading ticket: timed out")?
        .map_err(|_| "failed reading ticket: connection closed")?;
    let (user, ticket) = line.split_once(':').unwrap_or_default();
    if user != who.full() || ticket != listening.ticket {
        // The daemon that is asked delays a refusal; a ticket that is none is not even asked about (recorded).
        if world.doors.knows(ticket) {
            world.delay(Duration::from_secs(3)).await;
        }
        return Err("authentication request failed");
    }
    client.write_all(b"OK").await.map_err(|_| "client left")?;
    match device(world, vmid, serial).await {
        Ok((name, device)) => {
            let greeting = format!("starting serial terminal on interface {name}\r\n");
            if client.write_all(greeting.as_bytes()).await.is_ok() {
                talk(client, device, &rest).await;
            }
        }
        Err(complaint) => {
            // The terminal has nothing behind it any more and stays open (FACTS 69).
            if client.write_all(format!("{complaint}\r\n").as_bytes()).await.is_ok() {
                until_left(client).await;
            }
        }
    }
    Ok(())
}

/// Up to the line end, and what came after it.
async fn first_line(client: &mut DuplexStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            let rest = bytes.split_off(at + 1);
            bytes.pop();
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > MAX_FIRST_LINE || client.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What `qm terminal` connects to.
async fn device(world: &World, vmid: u32, wanted: Option<&str>) -> Result<(String, Box<dyn ByteStream>), String> {
    let config = world.machines().get(&vmid).map(|machine| machine.config.clone());
    let config = config.unwrap_or_default();
    let name = match wanted {
        Some(name) if config.contains_key(name) => name.to_owned(),
        Some(name) => return Err(format!("serial interface '{name}' is not configured")),
        None => (0..4)
            .map(|number| format!("serial{number}"))
            .find(|name| config.contains_key(name))
            .ok_or("unable to find a serial interface")?,
    };
    let number = name.trim_start_matches("serial").parse().unwrap_or(0);
    match world.engine.serial(vmid, number).await {
        Ok(device) => Ok((name, device)),
        Err(StreamError::NotRunning) => Err(format!("VM {vmid} not running")),
        Err(StreamError::NoDevice) => Err(format!("serial interface '{name}' is not configured")),
        Err(StreamError::Failed(why)) => Err(why),
    }
}

/// Joins a terminal with a port. The end of the guest does not end it (`FACTS` 70), the client's leaving does.
async fn talk(client: DuplexStream, device: Box<dyn ByteStream>, rest: &[u8]) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_device, mut to_device) = tokio::io::split(device);
    let typing = async {
        let mut input = Input::default();
        let mut bytes = rest.to_vec();
        let mut guest_there = true;
        loop {
            let data = input.feed(&bytes);
            guest_there = guest_there && to_device.write_all(&data).await.is_ok();
            bytes.clear();
            match from_client.read_buf(&mut bytes).await {
                Ok(count) if count > 0 => {}
                _ => return,
            }
        }
    };
    let showing = async {
        if let Err(error) = tokio::io::copy(&mut from_device, &mut to_client).await {
            tracing::debug!(%error, "a terminal connection broke");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = typing => {}
        () = showing => {}
    }
}

async fn until_left(mut client: DuplexStream) {
    let mut ignored = [0; 1024];
    while matches!(client.read(&mut ignored).await, Ok(count) if count > 0) {}
}

/// Checks the ticket. Without an upgrade the port is all it says; with one the server connects to that port.
async fn vnc_websocket(call: Call) -> Outcome {
    let vmid = call.vmid();
    let ticket = call.params.required("vncticket")?;
    let port = call.params.required("port")?;
    let number = port.parse().unwrap_or_default();
    if !call.world.doors.fits(&ticket, &call.who, vmid, number) {
        return Err(Failure::new(401, "permission denied - invalid PVEVNC ticket").delayed());
    }
    call.machine()?;
    Ok(Answer::from(json!({ "port": port })).with_door(ticket))
}
