//! Whole guests: from power-on through menu and installer to a system that one can log in to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::ChannelMsg;
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::host::lock;
use super::iso::tests::plain_volume;
use super::*;
use crate::engine::{AgentError, Drive, Engine, Exit, Launch, Powerdown, RunState};

mod life;
mod login;
mod trouble;

/// Longest that any state may take to come, in real time also where tokio's is paused; guests without delays are there
/// in milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// An engine with one folder for media and disks.
struct Rig {
    engine: SimulatedEngine,
    dir: TempDir,
    key: PrivateKey,
    exits: Arc<Mutex<Vec<(u32, Exit)>>>,
}

impl Rig {
    fn new(options: SimulatedOptions) -> Self {
        Self {
            engine: SimulatedEngine::new(options).unwrap(),
            dir: tempfile::tempdir().unwrap(),
            key: PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap(),
            exits: Arc::default(),
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn public_key(&self) -> String {
        self.key.public_key().to_openssh().unwrap()
    }

    /// A kickstart that leaves nothing to ask, with further lines in front of its packages.
    fn kickstart(&self, lines: &str, packages: &str) -> String {
        format!(
            "text\nlang en_US.UTF-8\nkeyboard us\ntimezone UTC\ncdrom\nzerombr\nclearpart --all\nautopart\nrootpw --lock\n\
             sshkey --username=root \"{}\"\n{lines}\nreboot --eject\n%packages\n@^minimal-environment\n{packages}\n%end\n",
            self.public_key()
        )
    }

    /// A VM with an empty disk, the medium, and a driver disk with the kickstart if there is one.
    fn launch(&self, vmid: u32, kickstart: Option<&str>, config: &[(&str, &str)]) -> Launch {
        let disk = self.dir.path().join(format!("vm-{vmid}-disk-0.raw"));
        if !disk.exists() {
            std::fs::write(&disk, b"").unwrap();
        }
        let medium = self.dir.path().join("alma.iso");
        // Written once: other guests may be reading it.
        if !medium.exists() {
            std::fs::write(&medium, plain_volume("AlmaLinux-9-4-x86_64-dvd", &[])).unwrap();
        }
        let drive = |slot: &str, cdrom, path| Drive {
            slot: slot.into(),
            cdrom,
            path,
            format: "raw".into(),
            size_bytes: 1 << 30,
        };
        let mut drives = vec![drive("ide2", true, medium), drive("scsi0", false, disk)];
        if let Some(kickstart) = kickstart {
            let path = self.file(
                &format!("oemdrv-{vmid}.iso"),
                &plain_volume("OEMDRV", &[("KS.CFG;1", kickstart.as_bytes())]),
            );
            drives.insert(1, drive("ide3", true, path));
        }
        let mut all = BTreeMap::from([
            ("boot".to_owned(), "order=scsi0;ide2".to_owned()),
            ("cpu".to_owned(), "x86-64-v2-AES".to_owned()),
            ("agent".to_owned(), "1".to_owned()),
            ("net0".to_owned(), "virtio=BC:24:11:00:00:01,bridge=vmbr0".to_owned()),
        ]);
        for (name, value) in config {
            if value.is_empty() {
                all.remove(*name);
            } else {
                all.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        let exits = Arc::clone(&self.exits);
        Launch {
            vmid,
            node: "pve".into(),
            config: all,
            drives,
            on_exit: Arc::new(move |vmid, exit| lock(&exits).push((vmid, exit))),
        }
    }

    /// Starts a VM and waits until it is installed and up.
    async fn installed(&self, vmid: u32, lines: &str, packages: &str) -> GuestRecord {
        let kickstart = self.kickstart(lines, packages);
        self.engine
            .start(self.launch(vmid, Some(&kickstart), &[]))
            .await
            .unwrap();
        self.until(vmid, GuestState::Running).await
    }

    async fn until(&self, vmid: u32, state: GuestState) -> GuestRecord {
        self.wait(&format!("{state:?}"), vmid, |record| record.state == state)
            .await
    }

    async fn wait(&self, what: &str, vmid: u32, done: impl Fn(&GuestRecord) -> bool) -> GuestRecord {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let record = self.engine.guest(vmid).unwrap();
            if done(&record) {
                return record;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "waited in vain for {what}: {:?}\n{}",
                record.state,
                record.console
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn agent(&self, vmid: u32, command: &str, arguments: Value) -> Result<Value, AgentError> {
        self.engine.agent(vmid, command, arguments).await
    }

    /// Waits for the agent and asks it.
    async fn agent_up(&self, vmid: u32, command: &str, arguments: Value) -> Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            match self.agent(vmid, command, arguments.clone()).await {
                Ok(value) => return value,
                Err(AgentError::NotRunning) => {}
                Err(error) => panic!("{error:?}"),
            }
            assert!(std::time::Instant::now() < deadline, "the agent never came");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn type_keys(&self, vmid: u32, text: &str) {
        for name in text.split_whitespace() {
            self.engine.send_key(vmid, name).await.unwrap();
        }
    }

    /// Connects with the rig's key as root, waiting for sshd.
    async fn ssh(&self, vmid: u32) -> Ssh {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Ok(mut ssh) = self.connect(vmid).await {
                assert!(ssh.login_by_key("root", &self.key).await, "the key was refused");
                return ssh;
            }
            assert!(std::time::Instant::now() < deadline, "sshd never came");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until sshd takes no new connections.
    async fn wait_refused(&self, vmid: u32) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.connect(vmid).await.is_ok() {
            assert!(std::time::Instant::now() < deadline, "sshd never went");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn connect(&self, vmid: u32) -> Result<Ssh, russh::Error> {
        let address = self
            .engine
            .guest(vmid)
            .and_then(|record| record.address)
            .ok_or(russh::Error::NotAuthenticated)?;
        let seen = Arc::new(Mutex::new(None));
        let client = Client {
            seen: Arc::clone(&seen),
        };
        let address = (address.as_str(), self.engine.ssh_port());
        let handle = russh::client::connect(Arc::default(), address, client).await?;
        Ok(Ssh {
            handle,
            host_key: lock(&seen).clone().unwrap(),
        })
    }
}

struct Client {
    seen: Arc<Mutex<Option<PublicKey>>>,
}

impl russh::client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        *lock(&self.seen) = Some(key.public_key());
        Ok(true)
    }
}

/// A client's connection.
struct Ssh {
    handle: russh::client::Handle<Client>,
    host_key: PublicKey,
}

/// What a command came to.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    stdout: String,
    stderr: String,
    code: Option<u32>,
}

impl Ssh {
    async fn login_by_key(&mut self, user: &str, key: &PrivateKey) -> bool {
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
        self.handle.authenticate_publickey(user, key).await.unwrap().success()
    }

    async fn login_by_password(&mut self, user: &str, password: &str) -> bool {
        self.handle
            .authenticate_password(user, password)
            .await
            .unwrap()
            .success()
    }

    async fn exec(&mut self, command: &str) -> Outcome {
        self.exec_with(command, b"").await
    }

    async fn exec_with(&mut self, command: &str, stdin: &[u8]) -> Outcome {
        let channel = self.handle.channel_open_session().await.unwrap();
        channel.exec(true, command).await.unwrap();
        let (mut reader, writer) = channel.split();
        let stdin = stdin.to_vec();
        let feed = async move {
            // A command that ends early closes the channel under the writer.
            let _ = writer.data(&stdin[..]).await;
            let _ = writer.eof().await;
        };
        let collect = async move {
            let mut outcome = Outcome::default();
            while let Some(message) = reader.wait().await {
                match message {
                    ChannelMsg::Data { data } => outcome.stdout.push_str(&String::from_utf8_lossy(&data)),
                    ChannelMsg::ExtendedData { data, .. } => outcome.stderr.push_str(&String::from_utf8_lossy(&data)),
                    ChannelMsg::ExitStatus { exit_status } => outcome.code = Some(exit_status),
                    _ => {}
                }
            }
            outcome
        };
        tokio::join!(feed, collect).1
    }
}
