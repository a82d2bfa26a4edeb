//! From settings to a running emulator.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Emulator, EmulatorBuilder, TOKEN_ID};
use crate::engine::Engine;
use crate::engine::simulated::{SimulatedEngine, SimulatedOptions, TimeScale};
use crate::error::Error;
use crate::schema::Edition;
use crate::server::Server;
use crate::state::{Access, Secret, Settings, Storages, Timing, Token, World, save_access};
use crate::tls;

impl EmulatorBuilder {
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
        let (edition, version) = Edition::parse(&self.version).map_err(|reason| Error::Invalid {
            what: "Proxmox VE version",
            value: self.version.clone(),
            reason,
        })?;
        let certificates = tls::identity(&data_dir, &self.nodes)?;
        let (access, token_secret) = self.access(&data_dir, edition)?;
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
    fn access(&self, data_dir: &Path, edition: Edition) -> Result<(Access, String), Error> {
        let io = |source| Error::Data {
            path: data_dir.to_owned(),
            source,
        };
        let file = data_dir.join("access.json");
        let mut access: Access = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| io(e.into()))?,
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
