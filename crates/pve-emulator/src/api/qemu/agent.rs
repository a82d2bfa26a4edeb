//! `/nodes/{node}/qemu/{vmid}/agent/*`: the QEMU guest agent.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::status::agent_enabled;
use crate::api::{Call, Outcome, Routes, nodes};
use crate::engine::AgentError;
use crate::wire::{Answer, Failure, Shape};

/// Reading stops here (`file-read` in PVE::API2::Qemu::Agent).
const MAX_READ: usize = 16 << 20;

/// Commands that pass through: the method, PVE's name and the agent's.
const PLAIN: [(&str, &str); 20] = [
    (
        "POST /nodes/{node}/qemu/{vmid}/agent/fsfreeze-freeze",
        "guest-fsfreeze-freeze",
    ),
    (
        "POST /nodes/{node}/qemu/{vmid}/agent/fsfreeze-status",
        "guest-fsfreeze-status",
    ),
    (
        "POST /nodes/{node}/qemu/{vmid}/agent/fsfreeze-thaw",
        "guest-fsfreeze-thaw",
    ),
    ("POST /nodes/{node}/qemu/{vmid}/agent/fstrim", "guest-fstrim"),
    ("POST /nodes/{node}/qemu/{vmid}/agent/ping", "guest-ping"),
    ("POST /nodes/{node}/qemu/{vmid}/agent/shutdown", "guest-shutdown"),
    (
        "POST /nodes/{node}/qemu/{vmid}/agent/suspend-disk",
        "guest-suspend-disk",
    ),
    (
        "POST /nodes/{node}/qemu/{vmid}/agent/suspend-hybrid",
        "guest-suspend-hybrid",
    ),
    ("POST /nodes/{node}/qemu/{vmid}/agent/suspend-ram", "guest-suspend-ram"),
    ("GET /nodes/{node}/qemu/{vmid}/agent/get-fsinfo", "guest-get-fsinfo"),
    (
        "GET /nodes/{node}/qemu/{vmid}/agent/get-host-name",
        "guest-get-host-name",
    ),
    (
        "GET /nodes/{node}/qemu/{vmid}/agent/get-memory-block-info",
        "guest-get-memory-block-info",
    ),
    (
        "GET /nodes/{node}/qemu/{vmid}/agent/get-memory-blocks",
        "guest-get-memory-blocks",
    ),
    ("GET /nodes/{node}/qemu/{vmid}/agent/get-osinfo", "guest-get-osinfo"),
    ("GET /nodes/{node}/qemu/{vmid}/agent/get-time", "guest-get-time"),
    ("GET /nodes/{node}/qemu/{vmid}/agent/get-timezone", "guest-get-timezone"),
    ("GET /nodes/{node}/qemu/{vmid}/agent/get-users", "guest-get-users"),
    ("GET /nodes/{node}/qemu/{vmid}/agent/get-vcpus", "guest-get-vcpus"),
    ("GET /nodes/{node}/qemu/{vmid}/agent/info", "guest-info"),
    (
        "GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces",
        "guest-network-get-interfaces",
    ),
];

pub(super) fn add(routes: &mut Routes) {
    for (key, command) in PLAIN {
        routes.add(key, move |call: Call| async move { plain(&call, command).await });
    }
    routes.add("GET /nodes/{node}/qemu/{vmid}/agent", async |_| {
        Ok(nodes::index("/nodes/{node}/qemu/{vmid}/agent", "name"))
    });
    routes.add("POST /nodes/{node}/qemu/{vmid}/agent", async |call: Call| {
        let command = format!("guest-{}", call.params.required("command")?);
        plain(&call, &command).await
    });
    routes.add("POST /nodes/{node}/qemu/{vmid}/agent/set-user-password", set_password);
    routes.add("POST /nodes/{node}/qemu/{vmid}/agent/exec", exec);
    routes.add("GET /nodes/{node}/qemu/{vmid}/agent/exec-status", exec_status);
    routes.add("POST /nodes/{node}/qemu/{vmid}/agent/file-write", file_write);
    routes.add("GET /nodes/{node}/qemu/{vmid}/agent/file-read", file_read);
}

/// Sends one command to the agent of the call's VM.
async fn ask(call: &Call, command: &str, arguments: Value) -> Result<Value, Failure> {
    let machine = call.machine()?;
    let vmid = call.vmid();
    if !agent_enabled(&machine.config) {
        return Err(Failure::die("No QEMU guest agent configured"));
    }
    if call.world.engine.status(vmid).is_none() {
        return Err(Failure::die(format!("VM {vmid} is not running")));
    }
    let asked = std::time::Instant::now();
    match call.world.engine.agent(vmid, command, arguments).await {
        Ok(value) => Ok(value),
        Err(AgentError::NotRunning) => {
            // A real agent was waited for already.
            call.world
                .delay(Duration::from_secs(3).saturating_sub(asked.elapsed()))
                .await;
            Err(Failure::die("QEMU guest agent is not running"))
        }
        Err(AgentError::Timeout) => Err(Failure::die(format!(
            "VM {vmid} qga command '{command}' failed - got timeout"
        ))),
        Err(AgentError::Failed { desc, .. }) => Err(Failure::die(format!("Agent error: {desc}"))),
    }
}

async fn plain(call: &Call, command: &str) -> Outcome {
    let result = ask(call, command, json!({})).await?;
    Ok(json!({ "result": result }).into())
}

async fn set_password(call: Call) -> Outcome {
    let arguments = json!({
        "username": call.params.required("username")?,
        "password": STANDARD.encode(call.params.required("password")?),
        "crypted": call.params.flag("crypted") == Some(true),
    });
    let result = ask(&call, "guest-set-user-password", arguments).await?;
    Ok(json!({ "result": result }).into())
}

async fn exec(call: Call) -> Outcome {
    let command = call.params.vector("command");
    let Some((path, arguments)) = command.split_first().filter(|(path, _)| !path.is_empty()) else {
        return Err(Failure::param("command", "type check ('array') failed"));
    };
    let mut request = json!({ "path": path, "arg": arguments, "capture-output": true });
    if let Some(input) = call.params.text("input-data") {
        request["input-data"] = STANDARD.encode(bytes_of(&input)?).into();
    }
    match ask(&call, "guest-exec", request).await {
        Ok(result) => Ok(json!({ "pid": result["pid"] }).into()),
        // The worker that asked dies of it, and the proxy has nothing to pass on (FACTS 48).
        Err(failure) if failure.message.contains("Failed to execute child process") => {
            call.world.delay(Duration::from_secs(5)).await;
            Err(Failure::new(596, "Broken pipe").with_shape(Shape::Empty))
        }
        Err(failure) => Err(failure),
    }
}

async fn exec_status(call: Call) -> Outcome {
    let pid = call.params.int("pid").unwrap_or_default();
    let result = ask(&call, "guest-exec-status", json!({ "pid": pid })).await?;
    let mut answer = json!({ "exited": i32::from(result["exited"].as_bool() == Some(true)) });
    for key in ["exitcode", "signal"] {
        if !result[key].is_null() {
            answer[key] = result[key].clone();
        }
    }
    for key in ["out", "err"] {
        if let Some(data) = result[format!("{key}-data")].as_str() {
            answer[format!("{key}-data")] = text_of(&STANDARD.decode(data).unwrap_or_default()).into();
            let cut = result[format!("{key}-truncated")].as_bool() == Some(true);
            answer[format!("{key}-truncated")] = i32::from(cut).into();
        }
    }
    Ok(answer.into())
}

/// Bytes as Perl puts them into JSON: each becomes the character of its number. UTF-8 from the guest thus reads as
/// Latin-1, which is what PVE really does (recorded: an `ä` that was written is one byte in the guest).
fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// The way back: characters beyond Latin-1 have no byte.
fn bytes_of(text: &str) -> Result<Vec<u8>, Failure> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.ok_or_else(|| Failure::die("Wide character in subroutine entry at /usr/share/perl5/PVE/API2/Qemu/Agent.pm."))
}

async fn file_write(call: Call) -> Outcome {
    let file = call.params.required("file")?;
    let content = call.params.required("content")?;
    let data = if call.params.flag("encode") == Some(false) {
        if STANDARD.decode(&content).is_err() {
            return Err(Failure::die("Agent error: Base64 data contains invalid characters"));
        }
        content
    } else {
        STANDARD.encode(bytes_of(&content)?)
    };
    let handle = ask(&call, "guest-file-open", json!({ "path": file, "mode": "wb" })).await?;
    let written = ask(&call, "guest-file-write", json!({ "handle": handle, "buf-b64": data })).await;
    // The handle is closed whatever the write said.
    let closed = ask(&call, "guest-file-close", json!({ "handle": handle })).await;
    written?;
    closed?;
    Ok(Answer::null())
}

async fn file_read(call: Call) -> Outcome {
    let file = call.params.required("file")?;
    let limit = call.params.int("count").and_then(|count| usize::try_from(count).ok());
    let limit = limit.unwrap_or(MAX_READ).min(MAX_READ);
    let offset = call.params.int("offset").filter(|offset| *offset > 0);
    let handle = ask(&call, "guest-file-open", json!({ "path": file, "mode": "r" })).await?;
    let read = read_some(&call, &handle, offset, limit).await;
    let closed = ask(&call, "guest-file-close", json!({ "handle": handle })).await;
    let (bytes, truncated) = read?;
    closed?;
    let content = if call.params.flag("decode") == Some(false) {
        STANDARD.encode(&bytes)
    } else {
        text_of(&bytes)
    };
    let mut answer = json!({ "bytes-read": bytes.len(), "content": content });
    if truncated {
        answer["truncated"] = 1.into();
    }
    Ok(answer.into())
}

/// At most `limit` bytes of an open file, and whether it goes on behind them.
async fn read_some(call: &Call, handle: &Value, offset: Option<i64>, limit: usize) -> Result<(Vec<u8>, bool), Failure> {
    if let Some(offset) = offset {
        let seek = json!({ "handle": handle, "offset": offset, "whence": "set" });
        ask(call, "guest-file-seek", seek).await?;
    }
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < limit {
        let count = (limit - bytes.len()).min(1 << 20);
        let part = ask(call, "guest-file-read", json!({ "handle": handle, "count": count })).await?;
        let decoded = STANDARD
            .decode(part["buf-b64"].as_str().unwrap_or_default())
            .unwrap_or_default();
        let empty = decoded.is_empty();
        bytes.extend(decoded);
        if part["eof"].as_bool() == Some(true) || empty {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_crosses_as_latin_1() {
        assert_eq!(bytes_of("aä").unwrap(), [b'a', 0xe4]);
        assert_eq!(text_of(&[b'a', 0xe4, 0xff]), "aäÿ");
        assert_eq!(bytes_of("→").unwrap_err().status, 500);
    }
}
