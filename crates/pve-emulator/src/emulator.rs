//! The emulator as a value: start it, fill it, look into it, end it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::simulated::{GuestRecord, SimulatedEngine, SimulatedOptions, TimeScale};
use crate::error::Error;
use crate::faults::{Fault, FaultAction, FaultMatch};
use crate::server::{RequestRecord, Server};
use crate::state::{
    Access, Acl, Secret, Settings, StorageSpec, Storages, Timing, Token, User, World, file_volume, save_access,
};
use crate::{media, tls};

/// The token that every emulator makes for root@pam.
const TOKEN_ID: &str = "root@pam!emulator";

/// A running emulator. Dropping it ends it and removes a temporary data directory.
pub struct Emulator {
    server: Arc<Server>,
    guests: Option<Arc<SimulatedEngine>>,
    address: SocketAddr,
    ca_pem: String,
    token_secret: String,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    /// Removed with the emulator when the caller named no directory.
    _temporary: Option<TempDir>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulator")
            .field("url", &self.url())
            .field("data_dir", &self.data_dir())
            .finish_non_exhaustive()
    }
}

/// Settings of an emulator to come.
pub struct EmulatorBuilder {
    listen: SocketAddr,
    data_dir: Option<PathBuf>,
    version: String,
    nodes: Vec<String>,
    storages: Vec<StorageSpec>,
    timing: Timing,
    delays: bool,
    engine: Option<Arc<dyn Engine>>,
    guests: SimulatedOptions,
    users: BTreeMap<String, User>,
    roles: Vec<(String, Vec<String>)>,
    acl: Vec<Acl>,
    tokens: Vec<(String, String, Token)>,
    default_token: bool,
}

impl fmt::Debug for EmulatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatorBuilder")
            .field("listen", &self.listen)
            .field("data_dir", &self.data_dir)
            .field("version", &self.version)
            .field("nodes", &self.nodes)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

impl Default for EmulatorBuilder {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            data_dir: None,
            version: "9.2.11".into(),
            nodes: vec!["pve".into()],
            storages: vec![
                StorageSpec::dir("local", "/var/lib/vz"),
                StorageSpec::lvmthin("local-lvm"),
            ],
            timing: Timing::Instant,
            delays: true,
            engine: None,
            guests: SimulatedOptions::default(),
            users: BTreeMap::new(),
            roles: Vec::new(),
            acl: Vec::new(),
            tokens: Vec::new(),
            default_token: true,
        }
    }
}

impl EmulatorBuilder {
    /// Where to listen; port 0 takes a free one. Default: 127.0.0.1, port 0.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Where to keep everything, across restarts. Default: a temporary directory.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// The PVE version to show, `9.2` or `9.2.11`.
    #[must_use]
    pub fn pve_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The names of the nodes. Default: `pve`.
    #[must_use]
    pub fn nodes<I: IntoIterator<Item = S>, S: Into<String>>(mut self, nodes: I) -> Self {
        self.nodes = nodes.into_iter().map(Into::into).collect();
        self
    }

    /// The storages of every node. Default: the directory `local` and the LVM thin pool `local-lvm`.
    #[must_use]
    pub fn storages(mut self, storages: Vec<StorageSpec>) -> Self {
        self.storages = storages;
        self
    }

    /// How long the cluster's own work takes. Default: no time.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Whether PVE's deliberate delays are kept (3 s on a 401), within the timing. Default: yes.
    #[must_use]
    pub fn delays(mut self, delays: bool) -> Self {
        self.delays = delays;
        self
    }

    /// What may be chosen about simulated guests: durations, faults, SSH port. Their pace is that of
    /// [`timing`](Self::timing).
    #[must_use]
    pub fn guests(mut self, options: SimulatedOptions) -> Self {
        self.guests = options;
        self
    }

    /// Other machines behind the API than the simulated ones.
    #[must_use]
    pub fn engine(mut self, engine: Arc<dyn Engine>) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Adds a user, `packer@pve`; a password for `root@pam` is set this way too.
    #[must_use]
    pub fn user(mut self, userid: &str, password: &str) -> Self {
        let user = self.users.entry(userid.to_owned()).or_default();
        user.enable = true;
        user.password = Some(Secret::new(password));
        self
    }

    /// Sets a text of a user added before: `comment`, `email`.
    #[must_use]
    pub fn user_text(mut self, userid: &str, key: &str, text: &str) -> Self {
        self.users
            .entry(userid.to_owned())
            .or_default()
            .texts
            .insert(key.to_owned(), text.to_owned());
        self
    }

    /// Adds an API token with a known secret to a user.
    #[must_use]
    pub fn token(mut self, userid: &str, name: &str, secret: &str, privsep: bool) -> Self {
        let token = Token {
            secret: Secret::new(secret),
            privsep,
            expire: 0,
            comment: None,
        };
        self.tokens.push((userid.to_owned(), name.to_owned(), token));
        self
    }

    /// Adds a role.
    #[must_use]
    pub fn role<I: IntoIterator<Item = S>, S: Into<String>>(mut self, name: &str, privileges: I) -> Self {
        self.roles
            .push((name.to_owned(), privileges.into_iter().map(Into::into).collect()));
        self
    }

    /// Gives a user or token (`packer@pve`, `packer@pve!build`) a role on a path and below it.
    #[must_use]
    pub fn acl(mut self, path: &str, who: &str, role: &str) -> Self {
        self.acl.push(Acl {
            path: path.into(),
            who: who.into(),
            role: role.into(),
            propagate: true,
        });
        self
    }

    /// Whether root@pam gets a token of the emulator's own ([`Emulator::token_id`]). Default: yes.
    #[must_use]
    pub fn default_token(mut self, make: bool) -> Self {
        self.default_token = make;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::Data`], [`Error::Tls`] or [`Error::Invalid`] when a setting cannot be.
    ///
    /// # Cancel safety
    /// Nothing goes on running when the future is dropped.
    pub async fn start(self) -> Result<Emulator, Error> {
        let (temporary, data_dir) = if let Some(dir) = &self.data_dir {
            (None, dir.clone())
        } else {
            let dir = tempfile::Builder::new().prefix("pve-emulator-").tempdir();
            let dir = dir.map_err(|source| Error::Data {
                path: std::env::temp_dir(),
                source,
            })?;
            let path = dir.path().to_owned();
            (Some(dir), path)
        };
        let io = |source| Error::Data {
            path: data_dir.clone(),
            source,
        };
        std::fs::create_dir_all(&data_dir).map_err(io)?;
        for node in &self.nodes {
            let good = !node.is_empty() && node.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            if !good {
                let reason = "node names are letters, digits and dashes".into();
                return Err(Error::Invalid {
                    what: "node",
                    value: node.clone(),
                    reason,
                });
            }
        }
        if self.nodes.is_empty() {
            return Err(Error::Invalid {
                what: "nodes",
                value: String::new(),
                reason: "there must be one".into(),
            });
        }
        let certificates = tls::identity(&data_dir, &self.nodes)?;
        let (access, token_secret) = self.access(&data_dir)?;
        let storages = Storages::open(data_dir.join("storage"), self.storages.clone(), &self.nodes).map_err(io)?;
        let mut guests = None;
        let engine: Arc<dyn Engine> = if let Some(engine) = self.engine {
            engine
        } else {
            let time = match self.timing {
                Timing::Instant => TimeScale::Instant,
                Timing::Scaled(factor) => TimeScale::Scaled(factor),
                Timing::Real => TimeScale::Real,
            };
            let port = self.guests.ssh_port;
            let simulated =
                SimulatedEngine::new(SimulatedOptions { time, ..self.guests }).map_err(|source| Error::Listen {
                    address: (Ipv4Addr::new(127, 64, 0, 1), port).into(),
                    source,
                })?;
            let simulated = Arc::new(simulated);
            guests = Some(Arc::clone(&simulated));
            simulated
        };
        let settings = Settings {
            version: if self.version.matches('.').count() == 1 {
                format!("{}.11", self.version)
            } else {
                self.version
            },
            nodes: self.nodes,
            timing: self.timing,
            delays: self.delays,
            data_dir: data_dir.clone(),
            fingerprint: certificates.fingerprint,
            certificate_pem: certificates.certificate_pem,
            started: Instant::now(),
        };
        let world = World::open(settings, engine, access, storages).map_err(io)?;
        let server = Arc::new(Server::new(Arc::new(world)));
        let listen = |source| Error::Listen {
            address: self.listen,
            source,
        };
        let listener = TcpListener::bind(self.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let stop = CancellationToken::new();
        let serving = tokio::spawn(Arc::clone(&server).run(listener, certificates.acceptor, stop.clone()));
        Ok(Emulator {
            server,
            guests,
            address,
            ca_pem: certificates.ca_pem,
            token_secret,
            stop,
            serving: Some(serving),
            _temporary: temporary,
        })
    }

    /// Users and rights: those of the data directory, with what the builder adds and a fresh secret of our token.
    fn access(&self, data_dir: &Path) -> Result<(Access, String), Error> {
        let io = |source| Error::Data {
            path: data_dir.to_owned(),
            source,
        };
        let file = data_dir.join("access.json");
        let mut access = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| io(e.into()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Access::new(),
            Err(e) => return Err(io(e)),
        };
        for (userid, user) in &self.users {
            if !userid.contains('@') {
                let reason = "user ids have a realm, NAME@pve".into();
                return Err(Error::Invalid {
                    what: "user",
                    value: userid.clone(),
                    reason,
                });
            }
            let known = access.users.entry(userid.clone()).or_default();
            known.enable = true;
            known.password.clone_from(&user.password);
            known.texts.extend(user.texts.clone());
        }
        for (name, privileges) in &self.roles {
            let known = access.all_privileges();
            if let Some(unknown) = privileges.iter().find(|p| !known.contains(*p)) {
                let reason = "PVE 9 has no such privilege".into();
                return Err(Error::Invalid {
                    what: "privilege",
                    value: unknown.clone(),
                    reason,
                });
            }
            access.roles.insert(name.clone(), privileges.iter().cloned().collect());
        }
        for (userid, name, token) in &self.tokens {
            let Some(user) = access.users.get_mut(userid) else {
                let reason = "add the user first".into();
                return Err(Error::Invalid {
                    what: "user of a token",
                    value: userid.clone(),
                    reason,
                });
            };
            user.tokens.insert(name.clone(), token.clone());
        }
        for acl in &self.acl {
            if !access.acl.contains(acl) {
                access.acl.push(acl.clone());
            }
        }
        let secret_file = data_dir.join("token-secret");
        let secret = match std::fs::read_to_string(&secret_file) {
            Ok(secret) => secret,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secret = hex::encode(rand::random::<[u8; 16]>());
                crate::state::write_whole(&secret_file, secret.as_bytes()).map_err(io)?;
                secret
            }
            Err(error) => return Err(io(error)),
        };
        let (userid, name) = TOKEN_ID.split_once('!').unwrap_or_default();
        let token = Token {
            secret: Secret::new(&secret),
            privsep: false,
            expire: 0,
            comment: None,
        };
        if let Some(root) = access.users.get_mut(userid).filter(|_| self.default_token) {
            root.tokens.insert(name.to_owned(), token);
        }
        save_access(data_dir, &access).map_err(io)?;
        Ok((access, secret))
    }
}

impl Emulator {
    /// Settings for one that is to be different.
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    /// Starts one with one node, a directory and a thin pool on a free port of 127.0.0.1, its data in a temporary
    /// directory.
    ///
    /// # Errors
    /// As [`EmulatorBuilder::start`].
    ///
    /// # Cancel safety
    /// Nothing goes on running when the future is dropped.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    fn world(&self) -> &Arc<World> {
        &self.server.world
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SHA-256 fingerprint of its certificate, `AA:BB:...`.
    pub fn fingerprint(&self) -> &str {
        &self.world().settings.fingerprint
    }

    /// The certificate of its CA, to verify it with.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Id of an API token of root@pam without privilege separation.
    pub fn token_id(&self) -> &'static str {
        TOKEN_ID
    }

    /// Secret of that token.
    pub fn token_secret(&self) -> &str {
        &self.token_secret
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.world().settings.data_dir
    }

    /// Puts a file on a storage of every node: content `iso`, `import`, `snippets` or `vztmpl`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown storage, [`Error::Data`] when it cannot be written.
    pub fn add_file(&self, storage: &str, content: &str, name: &str, bytes: &[u8]) -> Result<String, Error> {
        let world = self.world();
        let mut storages = world.storages_mut();
        let invalid = |reason| Error::Invalid {
            what: "storage",
            value: storage.to_owned(),
            reason,
        };
        let spec = storages.spec(storage).cloned().map_err(invalid)?;
        if !spec.holds(content) {
            return Err(invalid(format!(
                "it does not hold '{content}', only {}",
                spec.content.join(", ")
            )));
        }
        if name.contains('/') || name.is_empty() || name.starts_with('.') {
            let reason = "a file name without slashes".to_owned();
            return Err(Error::Invalid {
                what: "file name",
                value: name.to_owned(),
                reason,
            });
        }
        let own = format!("{content}/{name}");
        for node in &world.settings.nodes {
            let file = storages.file(node, &spec, &own);
            let io = |source| Error::Data {
                path: file.clone(),
                source,
            };
            std::fs::write(&file, bytes).map_err(io)?;
            storages
                .insert(node, &spec, file_volume(&own, bytes.len() as u64))
                .map_err(io)?;
        }
        Ok(format!("{storage}:{own}"))
    }

    /// Puts a small bootable medium on a storage of every node, a real ISO 9660 volume labelled as AlmaLinux's own of that
    /// name, and returns its volid. There is nothing on it to install: simulated guests act as if there were.
    ///
    /// # Errors
    /// As [`add_file`](Self::add_file).
    pub fn add_installer_iso(&self, storage: &str, name: &str) -> Result<String, Error> {
        let readme = "A stand-in for an AlmaLinux medium, made by the Proxmox VE emulator.\n";
        self.add_file(storage, "iso", name, &media::volume(&media::label_of(name), readme))
    }

    /// The port of every simulated guest's SSH server; 0 when another engine runs the guests.
    pub fn guest_ssh_port(&self) -> u16 {
        self.guests.as_ref().map_or(0, |guests| guests.ssh_port())
    }

    /// What a simulated guest did and was given; `None` if it never ran.
    pub fn guest(&self, vmid: u32) -> Option<GuestRecord> {
        self.guests.as_ref()?.guest(vmid)
    }

    /// The engine of the simulated guests, to let something go wrong in them.
    pub fn simulated_guests(&self) -> Option<&Arc<SimulatedEngine>> {
        self.guests.as_ref()
    }

    /// The latest requests, oldest first; a long-running emulator forgets the oldest.
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.server.records()
    }

    /// A VM's options in effect and pending, as its next start will have them.
    pub fn vm_config(&self, vmid: u32) -> Option<BTreeMap<String, String>> {
        self.world().machines().get(&vmid).map(crate::state::Machine::effective)
    }

    /// The vmids in use.
    pub fn vmids(&self) -> Vec<u32> {
        self.world().machines().keys().copied().collect()
    }

    /// All volids of a node, disks and files.
    pub fn volids(&self, node: &str) -> Vec<String> {
        let storages = self.world().storages();
        let of = |spec: &StorageSpec| -> Vec<String> {
            storages
                .volumes(node, spec)
                .map(|v| format!("{}:{}", spec.id, v.shown()))
                .collect()
        };
        storages.specs().iter().flat_map(of).collect()
    }

    /// Lets a fault wait for its call.
    pub fn fault(&self, fault: Fault) {
        self.world().faults.add(fault);
    }

    /// Lets the next call that fits go wrong: `fail_next("POST", "/nodes/*/qemu", FaultAction::Refuse)`.
    pub fn fail_next(&self, method: &str, path: &str, action: FaultAction) {
        let when = FaultMatch::Path {
            method: method.to_owned(),
            path: path.to_owned(),
        };
        self.fault(Fault { when, action, times: 1 });
    }

    /// Serves until `stop` is cancelled, then ends everything.
    ///
    /// # Cancel safety
    /// Dropping the future ends the emulator as dropping the emulator does.
    pub async fn serve_until(self, stop: CancellationToken) {
        stop.cancelled().await;
        self.shutdown().await;
    }

    /// Ends everything: connections, guests, tasks.
    ///
    /// # Cancel safety
    /// What has not ended when the future is dropped ends with the emulator.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let vmids = self.vmids();
        for vmid in vmids {
            self.world().engine.stop(vmid).await;
        }
        if let Some(serving) = self.serving.take()
            && let Err(error) = serving.await
        {
            tracing::error!(%error, "the server broke");
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
