//! One request: faults, formatter, dispatch, answer.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use http::header::{DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::body::read_body;
use super::websocket::Wish;
use super::{Handling, HangUp, MAX_HEADER, RequestRecord, Server};
use crate::api::{self, Call};
use crate::faults::FaultAction;
use crate::schema::Permissions;
use crate::state::Identity;
use crate::status_page;
use crate::tasks::with_fault;
use crate::wire::{
    Answer, Body, Failure, Format, Params, Sent, Shape, compress, cut, parse_form, respond, respond_failure, whole,
};

/// How many requests the log for tests remembers.
const MAX_RECORDS: usize = 20_000;

/// How many characters of a path it remembers; the longest that means anything has some hundred.
const RECORDED_PATH: usize = 1_000;

/// A fault that has to happen where the request's body is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct CutAfter(pub(super) u64);

impl Server {
    /// Answers one request that came to `local`, the node whose listener took it.
    pub(super) async fn serve(
        &self,
        mut request: Request<Incoming>,
        local: &Arc<str>,
        peer: IpAddr,
    ) -> Result<Response<Sent>, HangUp> {
        let _handling = Handling::begin(&self.handling);
        let method = request.method().clone();
        let wish = Wish::of(&mut request);
        let decoded = percent_decode_str(request.uri().path())
            .decode_utf8_lossy()
            .into_owned();
        if method == Method::GET
            && let Some(page) = status_page::page(&self.world, &decoded, peer)
        {
            return Ok(whole(compress(page, request.headers()).await));
        }
        let (format, path) = split_path(&decoded);
        let (index, fault) = self.world.faults.take(method.as_str(), &path);
        if let Some(fault) = &fault {
            tracing::info!(%method, path, ?fault, "a fault is due");
        }
        let mut record = RequestRecord {
            index,
            method: method.to_string(),
            path: path.chars().take(RECORDED_PATH).collect(),
            user: None,
            status: 0,
        };
        let headers = request.headers().clone();
        let mut half = false;
        let hang_up = || Err(Failure::new(0, "").with_shape(Shape::HangUp));
        let result = match fault {
            Some(FaultAction::Refuse) => hang_up(),
            Some(FaultAction::Status(status, reason)) => Err(Failure::new(status, reason).with_shape(Shape::Empty)),
            Some(FaultAction::Expired) => Err(Failure::unauthorized("Authentication failed!")),
            Some(FaultAction::Task(fault)) => {
                with_fault(fault, self.answer_or_fail(request, local, &format, &path, &mut record)).await
            }
            other => {
                match &other {
                    Some(FaultAction::Delay(time)) => tokio::time::sleep(*time).await,
                    Some(FaultAction::Hold(gate)) => gate.pass().await,
                    Some(FaultAction::CutRequest(after)) => {
                        request.extensions_mut().insert(CutAfter(*after));
                    }
                    Some(FaultAction::NodeOffline(node)) => {
                        let (world, node) = (Arc::clone(&self.world), node.clone());
                        // This very connection may end by it, the guests have to end all the same.
                        let done = tokio::spawn(async move { world.take_offline(&node).await }).await;
                        if let Err(error) = done {
                            tracing::error!(%error, "a node went away badly");
                        }
                    }
                    Some(FaultAction::NodeOnline(node)) => self.world.nodes.change(node, |s| s.offline = false),
                    Some(FaultAction::NodeSlow(node, by)) => self.world.nodes.change(node, |s| s.slow = *by),
                    _ => {}
                }
                half = matches!(other, Some(FaultAction::CutAnswer));
                let answer = self.answer_or_fail(request, local, &format, &path, &mut record).await;
                match &other {
                    Some(FaultAction::LoseAnswer) => hang_up(),
                    Some(FaultAction::HoldAnswer(gate)) => {
                        gate.pass().await;
                        answer
                    }
                    _ => answer,
                }
            }
        };
        let result = match (result, wish) {
            (Ok(answer), Some(wish)) if answer.door.is_some() => self.upgrade(&answer, wish),
            (result, _) => result.map(|answer| respond(answer, format.clone().unwrap_or(Format::Json))),
        };
        let format = format.unwrap_or(Format::Json);
        let response = match result {
            Ok(response) => Some(response),
            Err(failure) => {
                if failure.delayed {
                    let time = if failure.shape == Shape::HangUp { 5 } else { 3 };
                    self.world.delay(Duration::from_secs(time)).await;
                }
                respond_failure(&failure, format)
            }
        };
        record.status = response.as_ref().map_or(0, |r| r.status().as_u16());
        tracing::debug!(method = %record.method, path = %record.path, status = record.status, "request");
        {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            if records.len() == MAX_RECORDS {
                records.pop_front();
            }
            records.push_back(record);
        }
        let mut response = compress(response.ok_or(HangUp)?, &headers).await;
        self.date(response.headers_mut());
        Ok(if half { cut(response).await } else { whole(response) })
    }

    /// The time, where the server's clock was set forward; else the one of this machine, which every answer gets.
    fn date(&self, headers: &mut HeaderMap) {
        let ahead = Duration::from_secs(self.clock_ahead.load(Ordering::Relaxed));
        if ahead.is_zero() {
            return;
        }
        let time = SystemTime::now().checked_add(ahead).map(httpdate::fmt_http_date);
        if let Some(date) = time.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(DATE, date);
        }
    }

    /// Joins a websocket with the port that its ticket is for.
    fn upgrade(&self, answer: &Answer, wish: Wish) -> Result<Response<Body>, Failure> {
        wish.check()?;
        let doors = &self.world.doors;
        let tunnel = answer.door.as_deref().and_then(|ticket| doors.connect(ticket));
        match tunnel {
            Some(tunnel) => Ok(wish.grant(tunnel, doors.closing())),
            // Nothing listens there any more: PVE's worker process dies over it, after a while (FACTS 63).
            None => Err(Failure::new(0, "").with_shape(Shape::HangUp).delayed()),
        }
    }

    /// The answer; a panic of a handler ends its call alone and is counted.
    async fn answer_or_fail(
        &self,
        request: Request<Incoming>,
        local: &Arc<str>,
        format: &Result<Format, String>,
        path: &str,
        record: &mut RequestRecord,
    ) -> Result<Answer, Failure> {
        let long = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len();
        if request.headers().iter().map(long).any(|bytes| bytes > MAX_HEADER) {
            return Err(Failure::new(0, "").with_shape(Shape::HangUp).delayed());
        }
        let method = request.method().clone();
        // Locks are taken over from a handler that panicked, and state is written whole: what follows finds it in order.
        let answer = AssertUnwindSafe(self.answer(request, local, format, path, record)).catch_unwind();
        answer.await.unwrap_or_else(|panic| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            // What was put together at run time may hold what the caller sent: a password.
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.unwrap_or("its text is not shown");
            tracing::error!(%method, path, panic = text, "a handler panicked, which is a fault of this emulator");
            Err(Failure::die(format!("the emulator failed at this call: {text}")))
        })
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        local: &Arc<str>,
        format: &Result<Format, String>,
        path: &str,
        record: &mut RequestRecord,
    ) -> Result<Answer, Failure> {
        let method = request.method().clone();
        if ![Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&method) {
            return Err(Failure::new(501, format!("method '{method}' not available")).with_shape(Shape::Empty));
        }
        if request.headers().contains_key(TRANSFER_ENCODING) {
            return Err(Failure::new(501, "chunked transfer encoding not supported").with_shape(Shape::Text));
        }
        let found = self.world.settings.schema().find(method.as_str(), path);
        let world_may = found
            .as_ref()
            .is_some_and(|f| matches!(f.endpoint.permissions, Permissions::World));
        let is_upload = found.as_ref().is_some_and(|f| f.endpoint.key.ends_with("/upload"));
        let who = self.authenticate(request.headers(), &method, is_upload);
        let who = match who {
            Ok(who) => Some(who),
            Err(_) if world_may => None,
            Err(failure) => return Err(failure),
        };
        record.user = who.as_ref().map(Identity::full);
        if let Err(other) = format {
            return Err(Failure::new(501, format!("no formatter for uri {path}, {other}")).with_shape(Shape::Text));
        }
        let Some(found) = found else {
            tracing::warn!(%method, path, "unknown call");
            return Err(Failure::not_implemented(method.as_str(), path));
        };
        let mut params = Params::default();
        parse_form(request.uri().query().unwrap_or_default(), &mut params);
        for (key, value) in &found.path {
            params.set(key, value.clone());
        }
        let endpoint = found.endpoint;
        if who.as_ref().is_some_and(|w| w.token.is_some()) && !endpoint.allow_token {
            return Err(Failure::permission(&format!(
                "URI '{path}' not available with API token, need proper ticket.\n"
            )));
        }
        let who = who.unwrap_or_else(|| Identity {
            user: "nobody@none".into(),
            token: None,
        });
        let mut call = Call {
            world: Arc::clone(&self.world),
            local: Arc::clone(local),
            who,
            params,
            upload: None,
        };
        if is_upload {
            // Rights are checked before the body is read (FACTS 3, 22).
            api::check_permission(endpoint, &call).map_err(|f| f.with_shape(Shape::Empty).delayed())?;
            self.read_upload(request, &mut call).await?;
        } else {
            read_body(request, &method, &mut call.params).await?;
            for (key, value) in &found.path {
                call.params.set(key, value.clone());
            }
            api::check_permission(endpoint, &call)?;
        }
        api::dispatch(&self.routes, endpoint, call).await
    }
}

/// The formatter and the path below it; a formatter that is not served comes back by its name.
fn split_path(path: &str) -> (Result<Format, String>, String) {
    let rest = path.strip_prefix("/api2/").unwrap_or_default();
    let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
    let format = match name {
        "json" => Ok(Format::Json),
        "extjs" => Ok(Format::Extjs),
        other => Err(other.to_owned()),
    };
    (format, format!("/{}", below.trim_end_matches('/')))
}
