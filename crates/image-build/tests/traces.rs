//! Secrets of the Rust API: none is in events, in errors, or in what any crate traces, at whatever level a program may collect.
//!
//! One test in a program of its own, because a collector of traces belongs to the process. It sees our crates and those of others
//! (`log` records too), the emulator's side of every connection among them.

#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use common::Lab;
use image_build::VerifySpec;
use image_build::kickstart::KickstartText;
use image_build::spec::{CommunicatorKind, KickstartSource, ProvisionerSpec, ShellSpec};
use secrecy::SecretString;
use tracing_subscriber::fmt::MakeWriter;

const SCRIPT: &str = "canary-script-0123456789-environment";
const LOGIN: &str = "canary-login-0123456789-password";

const KICKSTART: &str = include_str!("../../../kickstart/alma9.ks.cfg");

/// What was traced so far.
#[derive(Clone, Default)]
struct Traced(Arc<Mutex<Vec<u8>>>);

impl Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Traced {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Traced {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// The forms in which a library would show a text: as it is, as bytes in decimal and hexadecimal, and as a login header.
fn forms(secret: &str) -> Vec<String> {
    let decimal = format!("{:?}", secret.as_bytes());
    vec![
        secret.to_owned(),
        decimal.trim_matches(['[', ']']).to_owned(),
        hex::encode(secret),
        base64::engine::general_purpose::STANDARD
            .encode(secret)
            .trim_end_matches('=')
            .to_owned(),
    ]
}

#[track_caller]
fn clean(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        for form in forms(secret) {
            if let Some(at) = text.find(&form) {
                let line = text
                    .get(..at)
                    .and_then(|before| before.rfind('\n'))
                    .map_or(0, |at| at + 1);
                let shown: String = text.get(line..).unwrap_or_default().chars().take(400).collect();
                panic!("{what} holds `{form}`: {shown}");
            }
        }
    }
    // What a run makes for itself: private keys, and the token that a verification's second clone joins with.
    assert!(!text.contains("PRIVATE KEY"), "{what} holds a private key");
    let token = text.match_indices("::server:").find(|(at, found)| {
        let after = text.get(at + found.len()..).unwrap_or_default();
        after.chars().take(8).filter(char::is_ascii_hexdigit).count() == 8
    });
    assert_eq!(token, None, "{what} holds a token of k3s");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// What the cluster has kept: requests, the VMs' options, task logs, volumes. Its own accounts are its own, and a disk holds the login
/// that its kickstart sets.
fn clean_cluster(lab: &Lab, secrets: &[&str]) {
    clean("a request's record", &format!("{:?}", lab.pve.requests()), secrets);
    for vmid in lab.pve.vmids() {
        clean("a VM's options", &format!("{:?}", lab.pve.vm_config(vmid)), secrets);
    }
    let all = files(lab.pve.data_dir());
    assert!(all.len() > 10, "there is little to look at: {all:?}");
    for path in all {
        let name = path.strip_prefix(lab.pve.data_dir()).unwrap().display().to_string();
        if ["access", "token-secret", "pve-"]
            .iter()
            .any(|own| name.starts_with(own))
        {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        if !name.contains("images/") {
            clean(&name, &text, secrets);
            continue;
        }
        // A guest's own keys are there too.
        for secret in secrets.iter().filter(|secret| **secret != LOGIN) {
            assert!(
                forms(secret).iter().all(|form| !text.contains(form)),
                "{name} holds {secret}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_traced_by_any_crate() {
    let traced = Traced::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(traced.clone())
        .init();
    for communicator in [CommunicatorKind::Ssh, CommunicatorKind::Agent] {
        let lab = Lab::start().await;
        let secrets = [SCRIPT, LOGIN, lab.pve.token_secret()];
        for fails in [false, true] {
            let end = if fails { "exit 7" } else { "exit 0" };
            let script = ShellSpec::new("told.sh", format!("#!/bin/bash\nset -x\necho \"$TOLD\"\n{end}\n"))
                .env("TOLD", SecretString::from(SCRIPT));
            // The second one has a name of its own, so that it fails in its script.
            let open = if fails {
                lab.open_spec().name("another-v1")
            } else {
                lab.spec()
            };
            let spec = open
                .communicator(communicator)
                .kickstart(KickstartSource::Text {
                    text: KickstartText::new(
                        KICKSTART.replace("rootpw --lock", &format!("rootpw --allow-ssh {LOGIN}")),
                    ),
                    origin: "http/ks.cfg".into(),
                })
                .ssh_password(SecretString::from(LOGIN))
                .provisioners(vec![ProvisionerSpec::Shell(script)])
                .build()
                .unwrap();
            clean("the spec", &format!("{spec:?}"), &secrets);
            let (ended, seen) = lab.build(spec).await;
            clean("an event", &format!("{seen:?}"), &secrets);
            if !fails {
                ended.unwrap_or_else(|error| panic!("{}", error.chain()));
                continue;
            }
            let error = ended.unwrap_err();
            assert!(error.chain().contains("told.sh"), "{}", error.chain());
            clean("an error", &format!("{} {error:?}", error.chain()), &secrets);
        }
        let mut verified = VerifySpec::new("alma9-k3-node-amd64-v1.29.0-v1");
        verified.ssh_port = lab.guests.ssh_port();
        verified.timeouts.boot = Duration::from_secs(60);
        let (to, mut events) = tokio::sync::mpsc::unbounded_channel();
        let report = image_build::verify(&lab.client, verified)
            .events(to)
            .await
            .unwrap_or_else(|error| panic!("{}", error.chain()));
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            seen.push(event);
        }
        clean("the report", &format!("{report:?}"), &secrets);
        clean("an event of the verification", &format!("{seen:?}"), &secrets);
        clean("a trace", &traced.text(), &secrets);
        clean_cluster(&lab, &secrets);
    }
    // That nothing was found means something only where much was traced, by others too.
    let text = traced.text();
    for part in ["TRACE", "russh", "hyper", "proxmox_client"] {
        assert!(text.contains(part), "nothing of {part} was traced");
    }
}
