//! `Client`: the way in, and how it is set up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::Method;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{
    api::node::Node,
    error::Error,
    request::{self, Request, vm_option::Bound},
    task::wait::{Wait, wait_task},
    transport::{
        auth::Auth,
        clock::ServerClock,
        connection::{Connection, POOL_IDLE},
        endpoint::{self, Endpoint},
        tls::Tls,
    },
    types::{
        name::{NodeName, PoolId},
        reply::{
            access::Permissions,
            cluster::{Resource, ResourceKind},
            node::NodeEntry,
            pool::Pool,
            task::TaskOutcome,
        },
        upid::Upid,
        version::Version,
        vmid::Vmid,
    },
};

/// A client of one PVE server. Cheap to clone; clones share connections, session and counters.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    version: OnceCell<Version>,
}

/// How a [`Client`] is to be.
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    endpoint: String,
    auth: Option<Auth>,
    tls: Tls,
    request_timeout: Duration,
    connect_timeout: Duration,
    reply_max_bytes: usize,
    proxy: Option<SecretString>,
}

/// An address or a proxy may hold a password, so neither is printed as it is.
impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            endpoint,
            auth,
            tls,
            request_timeout,
            connect_timeout,
            reply_max_bytes,
            proxy,
        } = self;
        f.debug_struct("ClientBuilder")
            .field("endpoint", &endpoint::redacted(endpoint))
            .field("auth", auth)
            .field("tls", tls)
            .field("request_timeout", request_timeout)
            .field("connect_timeout", connect_timeout)
            .field("reply_max_bytes", reply_max_bytes)
            .field("proxy", &proxy.is_some())
            .finish()
    }
}

impl ClientBuilder {
    /// Who the caller is; needed.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Which certificate is accepted; by default one that this machine's authorities vouch for.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// How long one request may take in all, uploads excepted. By default 60 s: PVE itself waits 10 s for a VM's lock
    /// (`FACTS` 45) and 30 s for another node, and its own error says more than ours.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long connecting may take; by default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The largest answer that is read, in bytes; by default 64 MiB. PVE's largest are a file of 16 MiB out of a guest, which JSON
    /// can make three times as long.
    pub fn reply_max_bytes(mut self, bytes: usize) -> Self {
        self.reply_max_bytes = bytes;
        self
    }

    /// Goes through this proxy. Without it none is used, whatever the environment says: PVE is close by, and a proxy that
    /// breaks TLS would see the token.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(url.into().into());
        self
    }

    /// Makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong address, name or secret; [`Error::File`] for an unreadable CA file.
    pub fn build(self) -> Result<Client, Error> {
        let Self {
            endpoint,
            auth,
            tls,
            request_timeout,
            connect_timeout,
            reply_max_bytes,
            proxy,
        } = self;
        let endpoint = Endpoint::parse(&endpoint)?;
        let auth = auth.ok_or_else(|| Error::invalid("auth", "it is missing: give an API token or a password"))?;
        auth.validate()?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.client_config()?)
            .https_only(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(POOL_IDLE)
            .user_agent(concat!("k3simage/", env!("CARGO_PKG_VERSION")));
        if let Some(url) = proxy {
            let proxy = reqwest::Proxy::https(url.expose_secret())
                .map_err(|_| Error::invalid("proxy", "it is not the URL of a proxy"))?;
            http = http.proxy(proxy);
        }
        let http = http
            .build()
            .map_err(|error| Error::invalid("client", error.to_string()))?;
        let connection = Connection {
            http,
            endpoint,
            auth,
            session: tokio::sync::Mutex::new(None),
            request_timeout,
            reply_max_bytes,
            requests: AtomicU64::new(0),
            clock: ServerClock::default(),
        };
        Ok(Client {
            inner: Arc::new(Inner {
                connection,
                version: OnceCell::new(),
            }),
        })
    }
}

impl Client {
    /// Begins to set up a client.
    ///
    /// The address may be `https://host:8006`, with or without `/` or `/api2/json` after it, or a bare `host`, which gets PVE's
    /// port 8006. A URL means what it says: `https://host` is port 443. `http://` is refused.
    pub fn builder(endpoint: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            endpoint: endpoint.into(),
            auth: None,
            tls: Tls::default(),
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            reply_max_bytes: 64 * 1024 * 1024,
            proxy: None,
        }
    }

    /// The server's address: scheme, host and port.
    pub fn endpoint(&self) -> &str {
        self.inner.connection.endpoint.origin()
    }

    /// Who the caller is: the full token name or the user.
    pub fn identity(&self) -> &str {
        self.inner.connection.auth.identity()
    }

    /// How many requests have been sent so far, logins and repetitions included.
    pub fn request_count(&self) -> u64 {
        self.inner.connection.requests.load(Ordering::Relaxed)
    }

    /// What the server's clock shows, as its last answer told it; before the first answer, what this machine's shows.
    pub fn server_time(&self) -> SystemTime {
        self.connection().clock.now()
    }

    /// 32 bytes that only a holder of the same API token can make again: HKDF-SHA256 over its secret, bound to `purpose`.
    ///
    /// They tell nothing of the secret and may be used as a private key. `None` for a password, which could be guessed from
    /// whatever is made of it and shown, and for a secret that is too short to be one of PVE's.
    pub fn derived_key(&self, purpose: &[u8]) -> Option<SecretSlice<u8>> {
        self.connection().auth.derived_key(purpose)
    }

    /// The server's version; asked once and kept.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None.
    ///
    /// # Source
    /// `GET /version`.
    pub async fn version(&self) -> Result<&Version, Error> {
        self.inner
            .version
            .get_or_try_init(|| async { self.typed(&request::cluster::version()).await })
            .await
    }

    /// The least free vmid, or `wanted` if that one is free. Nothing is reserved: another may take it before you.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when `wanted` is taken.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None.
    ///
    /// # Source
    /// `GET /cluster/nextid`; the answer is a text (`FACTS` 24, 30).
    pub async fn next_id(&self, wanted: Option<Vmid>) -> Result<Vmid, Error> {
        self.typed(&request::cluster::next_id(wanted)).await
    }

    /// The resources of the cluster that the caller may see; may lag by ten seconds (`FACTS` 80).
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None. What the login may not see is left out.
    ///
    /// # Source
    /// `GET /cluster/resources`.
    pub async fn cluster_resources(&self, kind: Option<ResourceKind>) -> Result<Vec<Resource>, Error> {
        self.typed(&request::cluster::cluster_resources(kind)).await
    }

    /// The nodes.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None.
    ///
    /// # Source
    /// `GET /nodes`.
    pub async fn nodes(&self) -> Result<Vec<NodeEntry>, Error> {
        self.typed(&request::node::nodes()).await
    }

    /// What the caller may do: on all known paths, or on one.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None for one's own; `Sys.Audit` on `/access` for those of others.
    ///
    /// # Source
    /// `GET /access/permissions`.
    pub async fn permissions(&self, path: Option<&str>) -> Result<Permissions, Error> {
        self.typed(&request::access::permissions(path)).await
    }

    /// The resource pools, without their members.
    ///
    /// # Errors
    /// Any of a request.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// None. Only pools with `Pool.Audit` are listed.
    ///
    /// # Source
    /// `GET /pools`.
    pub async fn pools(&self) -> Result<Vec<Pool>, Error> {
        self.typed(&request::cluster::pools()).await
    }

    /// One resource pool with its members.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is none of this name.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    ///
    /// # Privileges
    /// `Pool.Audit` on `/pool/{poolid}`.
    ///
    /// # Source
    /// `GET /pools/{poolid}`.
    pub async fn pool(&self, pool: &PoolId) -> Result<Pool, Error> {
        self.typed(&request::cluster::pool(pool)).await
    }

    /// A handle on a node. Nothing is sent.
    pub fn node(&self, node: &NodeName) -> Node {
        Node::new(self.clone(), node.clone())
    }

    /// Waits for the end of a task: looks often at first and seldom later, survives lost connections, proxies that fail and
    /// renewed tickets, and never starts anything again.
    ///
    /// A failed task is an error with the end of its log. The log of one that went well is not read, unless
    /// [`Wait::on_log`] wants it or it ended with warnings.
    ///
    /// # Errors
    /// [`Error::Task`] when it failed; [`Error::Timeout`] and [`Error::Cancelled`] by the given limits, and the task goes on.
    ///
    /// # Cancel safety
    /// Safe: dropping it stops the looking; the task goes on.
    ///
    /// # Privileges
    /// None for one's own tasks, `Sys.Audit` on `/nodes/{node}` for those of others.
    ///
    /// # Source
    /// `GET /nodes/{node}/tasks/{upid}/status` and `/log`; `FACTS` 51 to 53.
    pub async fn wait_task(&self, upid: &Upid, wait: Wait) -> Result<TaskOutcome, Error> {
        wait_task(self, upid, &wait).await
    }

    /// Any call of the API. `path` begins below `/api2/json` and is percent-encoded by the caller; parameters go into the query
    /// for GET and DELETE and into the body else. The answer is its `data`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path or method that cannot be, and any of a request.
    ///
    /// # Cancel safety
    /// A GET is safe; anything else may have been carried out when it is dropped.
    pub async fn request(&self, method: Method, path: &str, params: &[(&str, String)]) -> Result<Value, Error> {
        self.connection().data(&Request::raw(method, path, params)?).await
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    pub(crate) async fn typed<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        self.connection().typed(request).await
    }

    /// Sends a call whose answer is nothing.
    pub(crate) async fn done(&self, request: &Request) -> Result<(), Error> {
        self.connection().data(request).await.map(|_| ())
    }

    /// Refuses what the server is too old or too new for; asks for its version only if there is anything like that.
    pub(crate) async fn check_bounds(&self, bounds: &[Bound]) -> Result<(), Error> {
        for bound in bounds {
            let version = self.version().await?;
            let (what, reason) = match bound {
                Bound::Since(what, (major, minor)) if !version.at_least(*major, *minor) => {
                    (what, format!("it needs PVE {major}.{minor}, the server is {version}"))
                }
                Bound::Gone(what, (major, minor)) if version.at_least(*major, *minor) => (
                    what,
                    format!("PVE {major}.{minor} no longer has it, the server is {version}"),
                ),
                Bound::Since(..) | Bound::Gone(..) => continue,
            };
            return Err(Error::invalid(what, reason));
        }
        Ok(())
    }
}
