//! QEMU's monitor: one JSON object a line; commands are answered by id, events come in between.
//!
//! # Source
//! QEMU, `docs/interop/qmp-spec.txt` and `qapi/*.json`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{mpsc, oneshot};

use crate::engine::QemuRelease;

/// Most bytes of one line. The longest real ones are lists of commands and types, some 200 KiB.
const MAX_LINE: usize = 16 << 20;

/// Why a command brought no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QmpError {
    /// QEMU's own complaint.
    #[error("{0}")]
    Refused(String),
    /// The process is gone, or closed the monitor.
    #[error("the monitor is closed")]
    Closed,
    /// No answer in time.
    #[error("got timeout")]
    Timeout,
}

/// Something that happened in the machine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// `SHUTDOWN`, `STOP`, ...
    pub(super) name: String,
    pub(super) data: Value,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<Value, QmpError>>>>>;

/// A connection that takes commands.
pub(super) struct Qmp {
    writer: tokio::sync::Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
    waiting: Waiting,
    next: AtomicU64,
    /// QEMU's version, from its greeting.
    version: String,
}

impl std::fmt::Debug for Qmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qmp").finish_non_exhaustive()
    }
}

impl Qmp {
    /// Waits for the greeting and ends the negotiation. Events arrive at the receiver, which closes when the connection does.
    ///
    /// # Errors
    /// The other side closed, does not speak QMP, or does not answer within `limit`.
    pub(super) async fn open<S>(stream: S, limit: Duration) -> Result<(Self, mpsc::UnboundedReceiver<Event>), QmpError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (events, receiver) = mpsc::unbounded_channel();
        let (greeted, greeting) = oneshot::channel();
        let waiting = Waiting::default();
        tokio::spawn(read(BufReader::new(reader), Arc::clone(&waiting), events, greeted));
        let greeting = tokio::time::timeout(limit, greeting)
            .await
            .map_err(|_| QmpError::Timeout)?
            .map_err(|_| QmpError::Closed)?;
        let version = &greeting["version"]["qemu"];
        tracing::debug!(%version, "QEMU greets");
        let qmp = Self {
            writer: tokio::sync::Mutex::new(Box::new(writer)),
            waiting,
            next: AtomicU64::new(1),
            version: ["major", "minor", "micro"]
                .map(|part| version[part].to_string())
                .join("."),
        };
        qmp.execute("qmp_capabilities", json!({}), limit).await?;
        Ok((qmp, receiver))
    }

    /// Version and machine, as QEMU itself tells them; `None` when it does not.
    pub(super) async fn release(&self, limit: Duration) -> Option<QemuRelease> {
        let ask = json!({ "path": "/machine", "property": "type" });
        let kind = self.execute("qom-get", ask, limit).await.ok()?;
        Some(QemuRelease {
            version: self.version.clone(),
            machine: kind.as_str()?.trim_end_matches("-machine").to_owned(),
        })
    }

    /// Carries out one command.
    ///
    /// # Errors
    /// As [`QmpError`] says. After a timeout the answer is dropped when it comes.
    pub(super) async fn execute(&self, command: &str, arguments: Value, limit: Duration) -> Result<Value, QmpError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.table().insert(id, sender);
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let answer = async {
            let mut writer = self.writer.lock().await;
            let sent = writer.write_all(line.as_bytes()).await;
            drop(writer);
            match sent {
                Ok(()) => receiver.await.unwrap_or(Err(QmpError::Closed)),
                Err(_) => Err(QmpError::Closed),
            }
        };
        let result = tokio::time::timeout(limit, answer)
            .await
            .unwrap_or(Err(QmpError::Timeout));
        self.table().remove(&id);
        result
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Value, QmpError>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one line says.
#[derive(Debug, PartialEq)]
enum Message {
    Greeting(Value),
    Answer(u64, Result<Value, QmpError>),
    Event(Event),
}

fn parse(line: &str) -> Option<Message> {
    let mut value: Value = serde_json::from_str(line).ok()?;
    if let Some(name) = value["event"].as_str() {
        let name = name.to_owned();
        return Some(Message::Event(Event {
            name,
            data: value["data"].take(),
        }));
    }
    if value["QMP"].is_object() {
        return Some(Message::Greeting(value["QMP"].take()));
    }
    let id = value["id"].as_u64()?;
    if let Some(desc) = value["error"]["desc"].as_str() {
        return Some(Message::Answer(id, Err(QmpError::Refused(desc.to_owned()))));
    }
    let object = value.as_object_mut()?;
    Some(Message::Answer(id, Ok(object.remove("return")?)))
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: BufReader<R>,
    waiting: Waiting,
    events: mpsc::UnboundedSender<Event>,
    greeted: oneshot::Sender<Value>,
) {
    let mut greeted = Some(greeted);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = tokio::io::AsyncReadExt::take(&mut reader, MAX_LINE as u64);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) if line.last() != Some(&b'\n') => break,
            Ok(_) => {}
        }
        match parse(&String::from_utf8_lossy(&line)) {
            Some(Message::Greeting(version)) => {
                if let Some(sender) = greeted.take() {
                    let _ = sender.send(version);
                }
            }
            Some(Message::Answer(id, result)) => {
                let sender = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(sender) = sender {
                    let _ = sender.send(result);
                }
            }
            Some(Message::Event(event)) => {
                let _ = events.send(event);
            }
            None => tracing::warn!(line = %String::from_utf8_lossy(&line).trim_end(), "not a QMP message"),
        }
    }
    // Dropped senders tell everybody who waits.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn lines_become_messages() {
        for (line, expected) in [
            (r#"{"return": {}, "id": 3}"#, Some(Message::Answer(3, Ok(json!({}))))),
            (
                r#"{"return": null, "id": 3}"#,
                Some(Message::Answer(3, Ok(Value::Null))),
            ),
            (
                r#"{"id": 4, "error": {"class": "GenericError", "desc": "no"}}"#,
                Some(Message::Answer(4, Err(QmpError::Refused("no".into())))),
            ),
            (
                r#"{"timestamp": {"seconds": 1}, "event": "STOP"}"#,
                Some(Message::Event(Event {
                    name: "STOP".into(),
                    data: Value::Null,
                })),
            ),
            (r#"{"return": {}}"#, None),
            ("[1", None),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn answers_find_their_question_and_events_pass_between() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = tokio::spawn(async move {
            let (reader, mut writer) = tokio::io::split(theirs);
            let mut lines = BufReader::new(reader).lines();
            writer
                .write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n")
                .await
                .unwrap();
            let mut ids = Vec::new();
            for _ in 0..3 {
                let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
                let id = line["id"].as_u64().unwrap();
                if line["execute"] == "qmp_capabilities" {
                    writer
                        .write_all(format!("{{\"return\":{{}},\"id\":{id}}}\r\n").as_bytes())
                        .await
                        .unwrap();
                } else {
                    ids.push((id, line["execute"].as_str().unwrap().to_owned()));
                }
            }
            writer
                .write_all(b"{\"event\":\"RESET\",\"data\":{\"guest\":true}}\r\n")
                .await
                .unwrap();
            // The later question is answered first.
            for (id, name) in ids.into_iter().rev() {
                let line = format!("{{\"return\":\"{name}\",\"id\":{id}}}\r\n");
                writer.write_all(line.as_bytes()).await.unwrap();
            }
            let line: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
            assert_eq!(line["execute"], "quit");
        });
        let (qmp, mut events) = Qmp::open(ours, LIMIT).await.unwrap();
        let (a, b) = tokio::join!(qmp.execute("a", json!({}), LIMIT), qmp.execute("b", json!({}), LIMIT));
        assert_eq!((a, b), (Ok("a".into()), Ok("b".into())));
        assert_eq!(events.recv().await.unwrap().name, "RESET");
        assert_eq!(qmp.execute("quit", json!({}), LIMIT).await, Err(QmpError::Closed));
        assert_eq!(events.recv().await, None);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn somebody_who_speaks_otherwise_is_no_monitor() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        drop(theirs);
        assert_eq!(Qmp::open(ours, LIMIT).await.unwrap_err(), QmpError::Closed);
    }
}
