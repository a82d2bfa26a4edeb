//! From settings to a running emulator.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Emulator, EmulatorBuilder, TOKEN_ID};
use crate::engine::Engine;
use crate::engine::qemu::QemuEngine;
use crate::engine::simulated::{SimulatedEngine, SimulatedOptions, TimeScale};
use crate::error::Error;
use crate::faults::FaultPlan;
use crate::schema::Edition;
use crate::server::Server;
use crate::state::{Access, Secret, Settings, StorageSpec, Storages, Timing, Token, World, lock, save_access, sweep};
use crate::tls;

impl EmulatorBuilder {
    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::Data`], [`Error::Tls`], [`Error::Engine`] or [`Error::Invalid`] when a setting cannot be.
    ///
    /// # Cancel safety
    /// Nothing goes on running when the future is dropped.
    pub async fn start(self) -> Result<Emulator, Error> {
        let (temporary, data_dir) = if let Some(dir) = &self.data_dir {
            // QEMU runs in a folder of its own, where a relative path means another file.
            let absolute = std::path::absolute(dir).map_err(|source| Error::Data {
                path: dir.clone(),
                source,
            })?;
            (None, absolute)
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
        check_nodes(&self.nodes)?;
        self.check_plan()?;
        let (edition, version) = Edition::parse(&self.version).map_err(|reason| Error::Invalid {
            what: "Proxmox VE version",
            value: self.version.clone(),
            reason,
        })?;
        let lock = lock(&data_dir)?;
        clear(&data_dir).map_err(io)?;
        let certificates = tls::identity(&data_dir, &self.nodes)?;
        let (access, token_secret) = self.access(&data_dir, edition)?;
        let specs = self.storages.clone();
        let specs = specs.unwrap_or_else(|| StorageSpec::defaults(self.nodes.len()));
        let storages = Storages::open(data_dir.join("storage"), specs, &self.nodes).map_err(io)?;
        let mut guests = None;
        let engine: Arc<dyn Engine> = if let Some(engine) = self.engine {
            engine
        } else if let Some(options) = self.qemu {
            Arc::new(QemuEngine::open(options, &data_dir.join("run"))?)
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
            edition,
            version,
            nodes: self.nodes,
            timing: self.timing,
            delays: self.delays,
            data_dir: data_dir.clone(),
            fingerprint: certificates.fingerprint,
            certificate_pem: certificates.certificate_pem,
            started: Instant::now(),
        };
        let nodes = settings.nodes.clone();
        let world = Arc::new(World::open(settings, engine, access, storages)?);
        crate::api::adopt(&world).await;
        let server = Arc::new(Server::new(world));
        let stop = CancellationToken::new();
        let mut addresses = Vec::new();
        let mut serving = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let listener = bind(self.listen, addresses.first().copied(), index).await?;
            addresses.push(listener.local_addr().map_err(|source| Error::Listen {
                address: self.listen,
                source,
            })?);
            let node = Arc::from(node.as_str());
            let run = Arc::clone(&server).run(node, listener, certificates.acceptor.clone(), stop.clone());
            serving.push(tokio::spawn(run));
        }
        let emulator = Emulator {
            server,
            guests,
            addresses,
            ca_pem: certificates.ca_pem,
            token_secret,
            stop,
            serving,
            _lock: lock,
            _temporary: temporary,
        };
        emulator.apply_faults(self.faults).await?;
        Ok(emulator)
    }

    fn check_plan(&self) -> Result<(), Error> {
        check_plan(&self.faults, &self.nodes)
    }

    /// Users and rights: those of the data directory, with what the builder adds and a fresh secret of our token.
    fn access(&self, data_dir: &Path, edition: Edition) -> Result<(Access, String), Error> {
        let io = |source| Error::Data {
            path: data_dir.to_owned(),
            source,
        };
        let file = data_dir.join("access.json");
        let mut access: Access = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Corrupt {
                path: file.clone(),
                source,
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Access::new(edition),
            Err(e) => return Err(io(e)),
        };
        access.play(edition);
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
                let reason = format!("PVE {edition} has no such privilege");
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
                // As PVE makes them: there are clients that refuse any other form before they send it.
                let secret = crate::api::uuid();
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

/// corosync is not made for more.
const MAX_NODES: usize = 32;

fn check_nodes(nodes: &[String]) -> Result<(), Error> {
    let invalid = |what, value: &str, reason: &str| {
        Err(Error::Invalid {
            what,
            value: value.to_owned(),
            reason: reason.to_owned(),
        })
    };
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        return invalid("number of nodes", &nodes.len().to_string(), "1 to 32 are possible");
    }
    for (index, node) in nodes.iter().enumerate() {
        let good = !node.is_empty() && node.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !good || node.starts_with('-') || node.len() > 63 {
            return invalid("node", node, "node names are letters, digits and dashes");
        }
        if nodes[..index].contains(node) {
            return invalid("node", node, "it is named twice");
        }
        if node == "shared" {
            return invalid("node", node, "the data directory keeps shared storages under this name");
        }
    }
    Ok(())
}

/// Whether the nodes that a plan names are there.
pub(super) fn check_plan(plan: &FaultPlan, nodes: &[String]) -> Result<(), Error> {
    match plan.nodes().find(|n| !nodes.contains(n)) {
        None => Ok(()),
        Some(node) => Err(Error::Invalid {
            what: "node in the plan of faults",
            value: node.clone(),
            reason: format!("the nodes are {}", nodes.join(", ")),
        }),
    }
}

/// Removes what a killed emulator left unfinished: files that were being written, uploads and downloads on their way.
fn clear(data_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(data_dir.join("tmp")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Keys and secrets travel on volumes, and these folders are ours whoever made the directory around them.
    for folder in ["nodes", "storage", "tmp"] {
        let path = data_dir.join(folder);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    }
    sweep(data_dir)
}

/// The listener of a node. On the loopback each node has an address of its own with one port for all, as real nodes
/// have; other addresses belong to someone, and there each node has a port of its own.
async fn bind(asked: SocketAddr, first: Option<SocketAddr>, index: usize) -> Result<TcpListener, Error> {
    // At most 31, as there are at most 32 nodes.
    let offset = u16::try_from(index).unwrap_or_default();
    let mut address = asked;
    if let Some(first) = first {
        match first.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                address = (
                    Ipv4Addr::from(u32::from(ip).saturating_add(u32::from(offset))),
                    first.port(),
                )
                    .into();
            }
            _ if asked.port() > 0 => address.set_port(asked.port().saturating_add(offset)),
            _ => {}
        }
    }
    match TcpListener::bind(address).await {
        // The port was of the system's choice, and at this address someone else has it.
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && asked.port() == 0 && first.is_some() => {
            address.set_port(0);
            TcpListener::bind(address).await
        }
        result => result,
    }
    .map_err(|source| Error::Listen { address, source })
}
