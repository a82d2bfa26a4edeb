//! The guest agent through its socket.
//!
//! # Source
//! QEMU, `qga/qapi-schema.json` and `docs/interop/qemu-ga.rst` for `guest-sync-delimited`; the time limits are those of
//! PVE::QMPClient, the ping beforehand is `qga_check_running` of PVE::QemuServer::Agent.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::run_dir::RunDir;
use crate::engine::AgentError;

/// How long the ping may take that goes before every command.
const PING: Duration = Duration::from_secs(3);
/// A byte that no JSON text holds stands before the answer to a `guest-sync-delimited`.
const SENTINEL: u8 = 0xff;

/// How long PVE waits for a command.
fn limit(command: &str) -> Duration {
    Duration::from_secs(match command {
        "guest-fsfreeze-freeze" => 3600,
        "guest-fsfreeze-thaw" => 180,
        "guest-fstrim" | "guest-shutdown" => 600,
        _ => 5,
    })
}

/// Commands after which the agent may be gone before it answers.
fn may_go(command: &str) -> bool {
    matches!(
        command,
        "guest-shutdown" | "guest-suspend-disk" | "guest-suspend-ram" | "guest-suspend-hybrid"
    )
}

/// One command.
///
/// # Errors
/// [`AgentError::NotRunning`] when the ping is not answered in time, [`AgentError::Timeout`] when the command is not,
/// [`AgentError::Failed`] with the agent's own error.
pub(super) async fn ask(run: &RunDir, socket: &str, command: &str, arguments: &Value) -> Result<Value, AgentError> {
    let pinged = tokio::time::timeout(PING, one(run, socket, "guest-ping", &json!({}))).await;
    match pinged {
        Ok(Ok(Ok(_))) => {}
        Ok(Ok(Err(failed))) => return Err(failed),
        Ok(Err(error)) => {
            tracing::debug!(%error, socket, "agent");
            return Err(AgentError::NotRunning);
        }
        Err(_) => return Err(AgentError::NotRunning),
    }
    if command == "guest-ping" {
        return Ok(json!({}));
    }
    match tokio::time::timeout(limit(command), one(run, socket, command, arguments)).await {
        Ok(Ok(answer)) => answer,
        // The agent may be gone before it answers.
        Ok(Err(_)) | Err(_) if may_go(command) => Ok(json!({})),
        Ok(Err(_)) => Err(AgentError::NotRunning),
        Err(_) => Err(AgentError::Timeout),
    }
}

/// Connects, synchronises and asks. QEMU serves one connection at a time.
async fn one(
    run: &RunDir,
    socket: &str,
    command: &str,
    arguments: &Value,
) -> std::io::Result<Result<Value, AgentError>> {
    let stream = run.connect(socket).await?;
    exchange(stream, command, arguments, rand::random::<u32>()).await
}

async fn exchange<S: AsyncRead + AsyncWrite>(
    stream: S,
    command: &str,
    arguments: &Value,
    id: u32,
) -> std::io::Result<Result<Value, AgentError>> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = BufReader::new(reader);
    let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
    // The sentinel first: whatever half a command an earlier caller left in the agent's parser, it ends here.
    let mut request = vec![SENTINEL];
    request.extend(format!("{sync}\n{}\n", json!({ "execute": command, "arguments": arguments })).into_bytes());
    writer.write_all(&request).await?;
    let closed = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    // Answers to earlier callers, and complaints about our sentinel, come before the one that carries our number.
    loop {
        let mut skipped = Vec::new();
        if reader.read_until(SENTINEL, &mut skipped).await? == 0 || skipped.last() != Some(&SENTINEL) {
            return Err(closed());
        }
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).await? == 0 {
            return Err(closed());
        }
        let answer: Value = serde_json::from_slice(&line).unwrap_or_default();
        if answer["return"].as_u64() == Some(u64::from(id)) {
            break;
        }
    }
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).await? == 0 {
        return Err(closed());
    }
    let mut answer: Value = serde_json::from_slice(&line)?;
    if let Some(error) = answer.get("error") {
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        return Ok(Err(AgentError::Failed {
            class: text("class"),
            desc: text("desc"),
        }));
    }
    Ok(Ok(answer["return"].take()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that first gets rid of an old answer, as a real one does when its last caller gave up.
    async fn agent(stream: tokio::io::DuplexStream, answer: &str) {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = BufReader::new(reader);
        let mut first = Vec::new();
        reader.read_until(b'\n', &mut first).await.unwrap();
        assert_eq!(first[0], SENTINEL);
        let sync: Value = serde_json::from_slice(&first[1..]).unwrap();
        let id = sync["arguments"]["id"].as_u64().unwrap();
        let mut second = String::new();
        reader.read_line(&mut second).await.unwrap();
        let mut out = b"{\"return\": {\"old\": 1}}\n\xff{\"return\": 99}\n{\"return\": {}}\n".to_vec();
        out.push(SENTINEL);
        out.extend(format!("{{\"return\": {id}}}\n{answer}\n").into_bytes());
        writer.write_all(&out).await.unwrap();
    }

    #[tokio::test]
    async fn old_answers_are_skipped() {
        for (line, expected) in [
            (r#"{"return": {"pid": 7}}"#, Ok(json!({ "pid": 7 }))),
            (
                r#"{"error": {"class": "CommandNotFound", "desc": "disabled"}}"#,
                Err(AgentError::Failed {
                    class: "CommandNotFound".into(),
                    desc: "disabled".into(),
                }),
            ),
        ] {
            let nothing = json!({});
            let (ours, theirs) = tokio::io::duplex(1 << 12);
            let (answer, ()) = tokio::join!(exchange(ours, "guest-exec", &nothing, 1234), agent(theirs, line));
            assert_eq!(answer.unwrap(), expected);
        }
    }

    /// QEMU's own agent, run on this machine behind a socket as it is in a guest behind its port.
    #[tokio::test]
    async fn the_real_agent_answers() {
        let program = ["/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"]
            .into_iter()
            .find(|p| std::path::Path::new(p).exists());
        let Some(program) = program else {
            let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!ci, "qemu-ga is missing: apt-get install qemu-guest-agent");
            println!("SKIPPED  the real agent: no qemu-ga here. To get it: apt-get install qemu-guest-agent");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        let absent = ask(&run, "7.qga", "guest-ping", &json!({})).await;
        assert_eq!(absent, Err(AgentError::NotRunning));
        let _agent = tokio::process::Command::new(program)
            .args(["-m", "unix-listen", "-p"])
            .arg(run.file("7.qga"))
            .arg("-t")
            .arg(dir.path())
            .arg("-f")
            .arg(run.file("7.agent-pid"))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let end = tokio::time::Instant::now() + Duration::from_secs(120);
        while ask(&run, "7.qga", "guest-ping", &json!({})).await != Ok(json!({})) {
            assert!(tokio::time::Instant::now() < end, "the agent does not come up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let answer = async |command: &str, arguments: Value| {
            // A busy machine may be slower than PVE's time limits; the answer counts here.
            loop {
                match ask(&run, "7.qga", command, &arguments).await {
                    Err(AgentError::NotRunning | AgentError::Timeout) if tokio::time::Instant::now() < end => {}
                    other => break other,
                }
            }
        };
        let info = answer("guest-info", json!({})).await.unwrap();
        assert!(info["version"].is_string(), "{info}");
        let started = answer(
            "guest-exec",
            json!({ "path": "/bin/echo", "arg": ["hi"], "capture-output": true }),
        )
        .await;
        let pid = started.unwrap()["pid"].clone();
        let status = loop {
            let status = answer("guest-exec-status", json!({ "pid": pid })).await.unwrap();
            if status["exited"] == true {
                break status;
            }
        };
        assert_eq!(status["out-data"], "aGkK");
        let unknown = answer("guest-nonsense", json!({})).await.unwrap_err();
        assert!(matches!(unknown, AgentError::Failed { class, .. } if class == "CommandNotFound"));
    }

    #[tokio::test]
    async fn an_end_before_the_answer_is_an_error() {
        let (ours, theirs) = tokio::io::duplex(1 << 12);
        drop(theirs);
        assert!(exchange(ours, "guest-info", &json!({}), 1).await.is_err());
    }
}
