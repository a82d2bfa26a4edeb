//! `Connection`: sends requests, with authentication, limits, and repetition where that is safe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use hyper::ext::ReasonPhrase;
use serde_json::Value;

use super::{
    auth::{Auth, Session, SessionSlot, TicketReply},
    clock::ServerClock,
    endpoint::Endpoint,
    reply::{self, Envelope, Reply},
    tls,
};
use crate::{
    error::{Error, ErrorKind},
    request::{self, Request},
};

/// Pauses before the second, third, ... attempt.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// PVE closes idle connections after 5.0 s (`FACTS` 19). A write on one that is just being closed may or may not have arrived,
/// so ours are given up well before.
pub(crate) const POOL_IDLE: Duration = Duration::from_secs(3);

/// What a client is made of.
pub(crate) struct Connection {
    pub(crate) http: reqwest::Client,
    pub(crate) endpoint: Endpoint,
    pub(crate) auth: Auth,
    pub(crate) session: SessionSlot,
    pub(crate) request_timeout: Duration,
    pub(crate) reply_max_bytes: usize,
    pub(crate) requests: AtomicU64,
    pub(crate) clock: ServerClock,
}

/// A body on its way: what it is and how long. Length is always told, chunked bodies are 501 (`FACTS` 17).
pub(crate) struct OutgoingBody {
    pub(crate) content_type: HeaderValue,
    pub(crate) length: u64,
    pub(crate) body: reqwest::Body,
}

/// Headers that say who asks, and the session they came from.
pub(super) struct Identity {
    pub(super) headers: Vec<(http::HeaderName, HeaderValue)>,
    session: Option<Arc<Session>>,
}

impl Connection {
    /// Sends a request; repeats it where that is safe; logs in again once when the ticket is no longer accepted.
    pub(crate) async fn send(&self, request: &Request) -> Result<Envelope, Error> {
        let mut attempts = 1;
        let mut logged_in_again = false;
        loop {
            // A server that hangs in a login holds up everybody who waits for it no longer than a request may take.
            let identity = self.limited(request, self.identity(&request.method)).await?;
            let error = match self.send_once(request, &identity).await {
                Ok(envelope) => return Ok(envelope),
                Err(error) => error,
            };
            // PVE looks at who asks before anything else, so a refused request has done nothing and may be sent again.
            if let (401, Some(refused), false) = (error.status().unwrap_or(0), &identity.session, logged_in_again) {
                logged_in_again = true;
                self.forget(refused).await;
                continue;
            }
            let pause = BACKOFF
                .get(attempts as usize - 1)
                .copied()
                .filter(|_| may_repeat(request, &error));
            let Some(pause) = pause else {
                return Err(with_attempts(error, attempts));
            };
            tracing::debug!(method = %request.method, path = %request.path, attempts, %error, "repeating a request");
            tokio::time::sleep(pause).await;
            attempts += 1;
        }
    }

    /// Sends an upload. Never repeated: what was sent of it cannot be told.
    pub(crate) async fn send_body(&self, request: &Request, body: OutgoingBody) -> Result<Envelope, Error> {
        let identity = self.identity(&request.method).await?;
        self.exchange(request, &identity, Some(body)).await
    }

    async fn send_once(&self, request: &Request, identity: &Identity) -> Result<Envelope, Error> {
        let body = request.form().map(|form| OutgoingBody {
            content_type: HeaderValue::from_static("application/x-www-form-urlencoded"),
            length: form.len() as u64,
            body: form.into(),
        });
        self.limited(request, self.exchange(request, identity, body)).await
    }

    /// At most the time that a request may take.
    pub(super) async fn limited<T>(
        &self,
        request: &Request,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let done = tokio::time::timeout(self.request_timeout, work).await;
        done.unwrap_or_else(|_| {
            Err(Error::Timeout {
                what: format!("{} {}", request.method, request.path),
                after: self.request_timeout,
            })
        })
    }

    async fn exchange(
        &self,
        request: &Request,
        identity: &Identity,
        body: Option<OutgoingBody>,
    ) -> Result<Envelope, Error> {
        let mut outgoing = self
            .http
            .request(request.method.clone(), self.endpoint.url(&request.path_and_query()));
        for (name, value) in &identity.headers {
            outgoing = outgoing.header(name, value.clone());
        }
        if let Some(OutgoingBody {
            content_type,
            length,
            body,
        }) = body
        {
            outgoing = outgoing
                .header(header::CONTENT_TYPE, content_type)
                .header(header::CONTENT_LENGTH, HeaderValue::from(length))
                .body(body);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let started = std::time::Instant::now();
        let mut response = outgoing.send().await.map_err(|error| self.failure(request, error))?;
        self.clock.hear(response.headers());
        let status = response.status().as_u16();
        let reason = reason_of(&response);
        let body = self.read_body(request, &mut response).await?;
        tracing::debug!(
            method = %request.method,
            path = %request.path,
            status,
            ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "answered"
        );
        Reply {
            method: &request.method,
            path: &request.path,
            status,
            reason: &reason,
            body: &body,
        }
        .decode()
    }

    pub(super) async fn read_body(&self, request: &Request, response: &mut reqwest::Response) -> Result<Bytes, Error> {
        let too_large = || {
            let reason = format!("it is larger than {} bytes", self.reply_max_bytes);
            reply::unreadable(&request.method, &request.path, &reason, None)
        };
        let declared = response.content_length().unwrap_or(0);
        if declared > self.reply_max_bytes as u64 {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(request, error))? {
            if body.len() + chunk.len() > self.reply_max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.into())
    }

    /// Sorts a failure below HTTP: surely not sent, or maybe.
    pub(super) fn failure(&self, request: &Request, error: reqwest::Error) -> Error {
        // The URL holds the query; what was asked is in the error of ours already.
        let error = error.without_url();
        let (method, path) = (request.method.clone(), request.path.clone());
        if error.is_connect() {
            if let Some(problem) = tls::problem_in(&error) {
                return Error::Tls {
                    endpoint: self.endpoint.origin().to_owned(),
                    problem,
                };
            }
            let endpoint = self.endpoint.origin().to_owned();
            return Error::Connect {
                endpoint,
                method,
                path,
                attempts: 1,
                source: error.into(),
            };
        }
        Error::Transport {
            method,
            path,
            attempts: 1,
            source: error.into(),
        }
    }

    pub(super) async fn identity(&self, method: &Method) -> Result<Identity, Error> {
        if let Some(header) = self.auth.token_header() {
            return Ok(Identity {
                headers: vec![(header::AUTHORIZATION, header?)],
                session: None,
            });
        }
        let session = self.session().await?;
        Ok(Identity {
            headers: session.headers(method),
            session: Some(session),
        })
    }

    /// The session, logged in or renewed as needed; one request does it, the others wait for it.
    async fn session(&self) -> Result<Arc<Session>, Error> {
        let Some((username, password)) = self.auth.credentials() else {
            return Err(Error::invalid("auth", "a session needs a user and a password"));
        };
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| session.is_fresh()) {
            return Ok(Arc::clone(session));
        }
        // It stays in its place meanwhile: who is cancelled in the middle of a renewal leaves a ticket that still holds.
        let old = slot.as_ref().filter(|session| session.is_alive()).cloned();
        let renewed = match &old {
            // With the ticket first: the password may have been good for one login only.
            Some(session) => match self.log_in(username, &session.ticket).await {
                Err(error) if error.kind() == ErrorKind::Auth => self.log_in(username, password).await,
                other => other,
            },
            None => self.log_in(username, password).await,
        };
        let session = match (renewed, old) {
            (Ok(session), _) => Arc::new(session),
            // The old one still holds for a while, and the next request tries again.
            (Err(error), Some(old)) if error.kind() != ErrorKind::Auth => {
                tracing::debug!(%error, "the ticket could not be renewed yet");
                old
            }
            (Err(error), _) => {
                *slot = None;
                return Err(error);
            }
        };
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn log_in(&self, username: &str, password: &secrecy::SecretString) -> Result<Session, Error> {
        let request = request::access::ticket(username, password);
        let nobody = Identity {
            headers: Vec::new(),
            session: None,
        };
        let Envelope { data, .. } = self.send_once(&request, &nobody).await?;
        // The cause is left out: serde's messages may quote the value.
        let read: Option<TicketReply> = serde_json::from_value::<TicketReply>(data).ok();
        read.ok_or_else(|| reply::unreadable(&request.method, &request.path, "it is not a ticket", None))?
            .into_session(username)
    }

    /// Drops a session that was refused, unless another request has replaced it already.
    async fn forget(&self, refused: &Arc<Session>) {
        let mut slot = self.session.lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, refused)) {
            *slot = None;
        }
    }

    pub(crate) async fn data(&self, request: &Request) -> Result<Value, Error> {
        Ok(self.send(request).await?.data)
    }

    pub(crate) async fn typed<T: serde::de::DeserializeOwned>(&self, request: &Request) -> Result<T, Error> {
        let data = self.data(request).await?;
        reply::typed(&request.method, &request.path, data)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            http: _,
            endpoint,
            auth,
            session: _,
            request_timeout,
            reply_max_bytes,
            requests,
            clock,
        } = self;
        f.debug_struct("Connection")
            .field("endpoint", &endpoint.origin())
            .field("auth", auth)
            .field("request_timeout", request_timeout)
            .field("reply_max_bytes", reply_max_bytes)
            .field("requests", requests)
            .field("clock", clock)
            .finish_non_exhaustive()
    }
}

/// The reason phrase, which is where PVE puts the first line of an error (`FACTS` 1).
pub(super) fn reason_of(response: &reqwest::Response) -> String {
    let phrase = response.extensions().get::<ReasonPhrase>();
    phrase.map_or_else(String::new, |reason| {
        String::from_utf8_lossy(reason.as_bytes()).into_owned()
    })
}

/// Unsent requests may always be sent again; sent ones if they only read.
fn may_repeat(request: &Request, error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Connect => true,
        ErrorKind::Transport | ErrorKind::Proxy => request.repeatable,
        _ => false,
    }
}

fn with_attempts(error: Error, tried: u32) -> Error {
    match error {
        Error::Connect {
            endpoint,
            method,
            path,
            source,
            ..
        } => Error::Connect {
            endpoint,
            method,
            path,
            attempts: tried,
            source,
        },
        Error::Transport {
            method, path, source, ..
        } => Error::Transport {
            method,
            path,
            attempts: tried,
            source,
        },
        other => other,
    }
}
