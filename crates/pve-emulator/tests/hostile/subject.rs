//! The emulator under test, with something in it, and what must not change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pve_emulator::Emulator;
use serde_json::Value;

use crate::client::{Client, Reply};

/// Panics of any thread of this process outside of the tests' own.
static PANICS: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Subject {
    pub(crate) pve: Emulator,
    pub(crate) client: Client,
    pub(crate) auth: (String, String),
    parent: tempfile::TempDir,
}

pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Subject {
    /// An emulator with VM 100, an ISO, a pool and a user, in a folder of its own.
    pub(crate) async fn start() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let shown = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                let here = info
                    .location()
                    .is_some_and(|place| place.file().contains("tests/hostile"));
                if !here {
                    PANICS.fetch_add(1, Ordering::Relaxed);
                }
                shown(info);
            }));
        });
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let pve = Emulator::builder().data_dir(&data).delays(false).start().await.unwrap();
        pve.add_file("local", "iso", "a.iso", b"bytes").unwrap();
        let token = format!("PVEAPIToken={}={}", pve.token_id(), pve.token_secret());
        let subject = Self {
            client: Client::new(pve.address(), pve.ca_pem()).unwrap(),
            auth: ("Authorization".to_owned(), token),
            pve,
            parent,
        };
        let vm = [
            ("vmid", "100"),
            ("name", "vm"),
            ("memory", "512"),
            ("scsi0", "local-lvm:4"),
        ];
        subject.done("POST", "/nodes/pve/qemu", &vm).await;
        subject.done("POST", "/pools", &[("poolid", "p")]).await;
        subject.done("POST", "/access/users", &[("userid", "u@pve")]).await;
        subject
    }

    /// A call in form encoding that must succeed, and its task's end.
    async fn done(&self, method: &str, path: &str, form: &[(&str, &str)]) {
        let body: Vec<String> = form
            .iter()
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        let reply = self.form(method, path, &body.join("&")).await;
        assert_eq!(reply.status, 200, "{method} {path}: {}", reply.reason);
        self.settle(&reply).await;
    }

    /// Waits for the end of the task that an answer names.
    pub(crate) async fn settle(&self, reply: &Reply) {
        let data = json(reply)["data"].clone();
        let Some(upid) = data.as_str().filter(|text| text.starts_with("UPID:")) else {
            return;
        };
        for _ in 0..3000 {
            let status = self
                .form("GET", &format!("/nodes/pve/tasks/{}/status", encode(upid)), "")
                .await;
            if json(&status)["data"]["status"] == "stopped" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{upid} does not end");
    }

    /// A call with form data: in the body, or in the query where no body may be.
    pub(crate) async fn form(&self, method: &str, path: &str, form: &str) -> Reply {
        let mut headers = vec![self.auth.clone()];
        if matches!(method, "POST" | "PUT") {
            headers.push((
                "Content-Type".to_owned(),
                "application/x-www-form-urlencoded".to_owned(),
            ));
            let target = format!("/api2/json{path}");
            return self
                .client
                .send(method, &target, &headers, Some(form.as_bytes()))
                .await
                .unwrap();
        }
        let target = if form.is_empty() {
            format!("/api2/json{path}")
        } else {
            format!("/api2/json{path}?{form}")
        };
        self.client.send(method, &target, &headers, None).await.unwrap()
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: &str) -> Reply {
        let headers = [
            self.auth.clone(),
            ("Content-Type".to_owned(), "application/json".to_owned()),
        ];
        let target = format!("/api2/json{path}");
        self.client
            .send(method, &target, &headers, Some(body.as_bytes()))
            .await
            .unwrap()
    }

    /// Every file of the emulator, with a hash of its content.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        collect(self.pve.data_dir(), self.pve.data_dir(), &mut found);
        found
    }

    /// It serves, nothing panicked, and nothing lies beside its folder.
    pub(crate) async fn is_sound(&self, after: &str) {
        let version = self.form("GET", "/version", "").await;
        assert_eq!(version.status, 200, "after {after}");
        assert_eq!(self.pve.panics(), 0, "a handler panicked at {after}");
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "something panicked at {after}");
        let names = std::fs::read_dir(self.parent.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["data"], "after {after}");
    }
}

fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
    use sha2::Digest as _;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(root, &path, found);
            found.insert(name, String::new());
        } else {
            found.insert(name, hex::encode(sha2::Sha256::digest(std::fs::read(&path).unwrap())));
        }
    }
}

pub(crate) fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}
