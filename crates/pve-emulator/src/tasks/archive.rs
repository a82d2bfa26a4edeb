//! The tasks on disk: one JSON object a line, one line at a task's begin and one at its end.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Upid;
use super::task::VANISHED;
use crate::state::{now, write_whole};

/// So many tasks are kept; the oldest go first.
pub(super) const KEPT: usize = 5_000;

/// A task as it is written down. Without an end it has begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) upid: Upid,
    /// Epoch seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) log: Vec<String>,
}

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct Archive(Mutex<File>);

impl Archive {
    /// Reads the tasks of earlier runs, the oldest first, each with its end: one that was running when the emulator was
    /// killed ends as PVE shows a task whose worker is gone. Then the file is written anew, so that it does not grow for
    /// ever and a line that a kill cut short does not spoil the next one.
    pub(super) fn open(path: &Path) -> std::io::Result<(Self, Vec<Record>)> {
        let text = match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes?,
        };
        let mut records = read(&String::from_utf8_lossy(&text));
        for record in &mut records {
            record.end.get_or_insert_with(now);
            record.exit.get_or_insert_with(|| VANISHED.to_owned());
        }
        records.drain(..records.len().saturating_sub(KEPT));
        let mut whole = Vec::new();
        for record in &records {
            serde_json::to_writer(&mut whole, record)?;
            whole.push(b'\n');
        }
        write_whole(path, &whole)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok((Self(Mutex::new(file)), records))
    }

    pub(super) fn began(&self, upid: &Upid) {
        self.append(&Record {
            upid: upid.clone(),
            end: None,
            exit: None,
            log: Vec::new(),
        });
    }

    pub(super) fn ended(&self, record: &Record) {
        self.append(record);
    }

    /// One write a line, so that nothing comes between its parts. What cannot be written is still known until the end.
    fn append(&self, record: &Record) {
        let written = serde_json::to_string(record)
            .map_err(std::io::Error::from)
            .and_then(|line| {
                let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                file.write_all(format!("{line}\n").as_bytes())
            });
        if let Err(error) = written {
            tracing::error!(%error, upid = %record.upid, "task not written down");
        }
    }
}

/// The last that the lines say of each task, in the order in which they began.
fn read(text: &str) -> Vec<Record> {
    let mut places = BTreeMap::new();
    let mut records: Vec<Record> = Vec::new();
    // A line that a kill cut short is the last one, of a task whose end nobody was told.
    for record in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Record>(line).ok())
    {
        let place = *places.entry(record.upid.to_string()).or_insert(records.len());
        match records.get_mut(place) {
            Some(known) => *known = record,
            None => records.push(record),
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upid(pid: u32) -> Upid {
        format!("UPID:pve:{pid:08X}:0000A000:6B046229:qmcreate:100:root@pam:")
            .parse()
            .unwrap()
    }

    #[test]
    fn what_was_running_has_ended_somehow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks.jsonl");
        let (archive, records) = Archive::open(&path).unwrap();
        assert!(records.is_empty());
        archive.began(&upid(1));
        archive.began(&upid(2));
        archive.ended(&Record {
            upid: upid(2),
            end: Some(7),
            exit: Some("OK".into()),
            log: vec!["TASK OK".into()],
        });
        drop(archive);
        // A kill in the middle of a line, then a run that appends.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"upid\":{\"node\":\"pv");
        std::fs::write(&path, text).unwrap();
        let (archive, records) = Archive::open(&path).unwrap();
        let seen: Vec<_> = records
            .iter()
            .map(|r| (r.upid.pid, r.exit.as_deref().unwrap()))
            .collect();
        assert_eq!(seen, [(1, "unexpected status"), (2, "OK")]);
        assert_eq!(
            (records[1].end, records[1].log.as_slice()),
            (Some(7), ["TASK OK".to_owned()].as_slice())
        );
        archive.began(&upid(3));
        drop(archive);
        let (_, records) = Archive::open(&path).unwrap();
        assert_eq!(records.iter().map(|r| r.upid.pid).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
