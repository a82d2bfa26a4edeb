//! What an emulator is to be like.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::qemu::QemuOptions;
use crate::engine::simulated::SimulatedOptions;
use crate::faults::FaultPlan;
use crate::state::{Acl, Secret, StorageSpec, Timing, Token, User};

/// Settings of an emulator to come.
pub struct EmulatorBuilder {
    pub(super) listen: SocketAddr,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) version: String,
    pub(super) nodes: Vec<String>,
    pub(super) storages: Option<Vec<StorageSpec>>,
    pub(super) timing: Timing,
    pub(super) delays: bool,
    pub(super) engine: Option<Arc<dyn Engine>>,
    pub(super) guests: SimulatedOptions,
    pub(super) qemu: Option<QemuOptions>,
    pub(super) users: BTreeMap<String, User>,
    pub(super) roles: Vec<(String, Vec<String>)>,
    pub(super) acl: Vec<Acl>,
    pub(super) tokens: Vec<(String, String, Token)>,
    pub(super) default_token: bool,
    pub(super) faults: FaultPlan,
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
            storages: None,
            timing: Timing::Instant,
            delays: true,
            engine: None,
            guests: SimulatedOptions::default(),
            qemu: None,
            users: BTreeMap::new(),
            roles: Vec::new(),
            acl: Vec::new(),
            tokens: Vec::new(),
            default_token: true,
            faults: FaultPlan::default(),
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

    /// The Proxmox VE to play, `9.2`, `9.2.11` or `8.4`: its version, parameters, roles and privileges. Another one is
    /// refused at the start. Default: `9.2.11`.
    #[must_use]
    pub fn pve_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The names of the nodes, at most 32. Default: `pve`. The first one listens where [`listen`](Self::listen) says, each
    /// other one at the next address of 127.0.0.0/8 and the same port, or at the next port of another network's address.
    #[must_use]
    pub fn nodes<I: IntoIterator<Item = S>, S: Into<String>>(mut self, nodes: I) -> Self {
        self.nodes = nodes.into_iter().map(Into::into).collect();
        self
    }

    /// The storages of every node. Default: [`StorageSpec::defaults`].
    #[must_use]
    pub fn storages(mut self, storages: Vec<StorageSpec>) -> Self {
        self.storages = Some(storages);
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

    /// Guests are QEMU processes on this machine instead of simulated ones.
    #[must_use]
    pub fn qemu(mut self, options: QemuOptions) -> Self {
        self.qemu = Some(options);
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

    /// What goes wrong from the start; [`FaultPlan::read`] takes it from a file.
    #[must_use]
    pub fn faults(mut self, plan: FaultPlan) -> Self {
        self.faults = plan;
        self
    }

    /// Whether root@pam gets a token of the emulator's own ([`Emulator::token_id`](super::Emulator::token_id)). Default: yes.
    #[must_use]
    pub fn default_token(mut self, make: bool) -> Self {
        self.default_token = make;
        self
    }
}
