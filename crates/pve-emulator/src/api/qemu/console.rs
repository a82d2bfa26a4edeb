//! Keys and monitor commands.

use crate::api::{Call, Outcome, Routes};
use crate::engine::RunState;
use crate::wire::{Answer, Failure, Shape};

pub(super) fn add(routes: &mut Routes) {
    routes.add("PUT /nodes/{node}/qemu/{vmid}/sendkey", send_key);
    routes.add("POST /nodes/{node}/qemu/{vmid}/monitor", monitor);
}

async fn send_key(call: Call) -> Outcome {
    super::skiplock(&call)?;
    call.machine()?;
    let vmid = call.vmid();
    if call.world.engine.status(vmid).is_none() {
        return Err(Failure::die(format!("VM {vmid} not running")));
    }
    let key = call.params.required("key")?;
    call.world.engine.send_key(vmid, &key).await.map_err(|complaint| {
        // QEMU's answer ends its line with CR, which breaks the status line: a bare 400 (FACTS 2).
        tracing::debug!(vmid, key, complaint, "key refused");
        Failure::new(400, "Bad Request").with_shape(Shape::EmptyJson)
    })?;
    Ok(Answer::null())
}

async fn monitor(call: Call) -> Outcome {
    call.machine()?;
    let vmid = call.vmid();
    let command = call.params.required("command")?;
    let words: Vec<&str> = command.split_whitespace().collect();
    let Some(status) = call.world.engine.status(vmid) else {
        // The monitor's own failure is a success of the call (FACTS 42).
        return Ok(format!("ERROR: VM {vmid} not running\n").into());
    };
    match words.as_slice() {
        ["info", "status"] => {
            let word = match status.state {
                RunState::IoError => "paused (io-error)",
                other => other.as_str(),
            };
            Ok(format!("VM status: {word}\r\n").into())
        }
        ["sendkey", key] | ["sendkey", key, _] => {
            let complaint = call.world.engine.send_key(vmid, key).await.err();
            Ok(complaint.map_or_else(String::new, |c| format!("{c}\r\n")).into())
        }
        ["info", ..] => {
            if let Some(answer) = call.world.engine.monitor(vmid, &command).await {
                // The monitor's own failure is a success of the call here too.
                return Ok(answer.unwrap_or_else(|error| format!("ERROR: {error}\n")).into());
            }
            tracing::warn!(command, "monitor command not emulated");
            Err(Failure::new(501, format!("monitor command '{command}' is not emulated")).with_shape(Shape::JsonBare))
        }
        _ => Err(Failure::die(format!(
            "command '{command}' non-existent or not assigned a required permission yet, limiting to root user"
        ))),
    }
}
