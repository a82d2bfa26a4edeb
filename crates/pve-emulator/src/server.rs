//! HTTPS on a socket: connections, authentication, dispatch.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Call, Routes};
use crate::faults::FaultAction;
use crate::schema::{Permissions, Schema};
use crate::state::{Identity, World};
use crate::wire::{
    Answer, Body, Failure, Format, Params, Shape, UploadError, parse_form, parse_json, receive_upload, respond,
    respond_failure,
};

/// PVE closes an idle connection after this time (`FACTS` 19).
const IDLE: Duration = Duration::from_secs(5);

/// PVE serves so many requests on a connection (`FACTS` 19).
const MAX_REQUESTS: u32 = 100;

/// More form data than this is refused (`FACTS` 17).
const MAX_FORM: usize = 512 * 1024;

/// How many requests the log for tests remembers.
const MAX_RECORDS: usize = 20_000;

/// One request as the emulator saw it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RequestRecord {
    /// Counted from 0 since the start.
    pub index: u64,
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path below `/api2/json`, percent-decoded.
    pub path: String,
    /// User or full token id, if it was authenticated.
    pub user: Option<String>,
    /// Status of the answer; 0 when the connection was closed instead.
    pub status: u16,
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    pub(crate) routes: Routes,
    records: Mutex<VecDeque<RequestRecord>>,
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed without an answer")]
struct HangUp;

impl Server {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self {
            world,
            routes: Routes::new(),
            records: Mutex::default(),
        }
    }

    pub(crate) fn records(&self) -> Vec<RequestRecord> {
        self.records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Accepts connections until `stop`, then waits for none of them.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, tls: TlsAcceptor, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, _) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others must end first.
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let server = Arc::clone(&self);
            let tls = tls.clone();
            let stop = stop.clone();
            connections.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = server.connection(stream, tls) => {}
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(self: Arc<Self>, mut stream: TcpStream, tls: TlsAcceptor) {
        let local = stream.local_addr().ok();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let mut first = [0];
        let peeked = tokio::time::timeout(IDLE, stream.peek(&mut first)).await;
        if !matches!(peeked, Ok(Ok(1))) {
            return;
        }
        // A TLS handshake begins with record type 22.
        if first[0] != 22 {
            redirect_to_https(&mut stream, local).await;
            return;
        }
        let Ok(Ok(stream)) = tokio::time::timeout(IDLE, tls.accept(stream)).await else {
            return;
        };
        let count = AtomicU32::new(0);
        let service = service_fn(|request| {
            let server = Arc::clone(&self);
            let last = count.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_REQUESTS;
            async move {
                let mut response = server.serve(request).await?;
                if last {
                    response
                        .headers_mut()
                        .insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, HangUp>(response)
            }
        });
        let result = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            // PVE takes 64 header lines and 8 KiB a line (FACTS 18).
            .max_headers(64)
            .max_buf_size(512 * 1024)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, HangUp> {
        let method = request.method().clone();
        let decoded = percent_decode_str(request.uri().path())
            .decode_utf8_lossy()
            .into_owned();
        let (format, path) = split_path(&decoded);
        let (index, fault) = self.world.faults.take(method.as_str(), &path);
        let mut record = RequestRecord {
            index,
            method: method.to_string(),
            path: path.clone(),
            user: None,
            status: 0,
        };
        let result = match fault {
            Some(FaultAction::Refuse) => Err(Failure::new(0, "").with_shape(Shape::HangUp)),
            Some(FaultAction::Status(status, reason)) => Err(Failure::new(status, reason).with_shape(Shape::Empty)),
            Some(FaultAction::LoseAnswer) => {
                let _lost = self.answer(request, &format, &path, &mut record).await;
                Err(Failure::new(0, "").with_shape(Shape::HangUp))
            }
            Some(FaultAction::Delay(time)) => {
                tokio::time::sleep(time).await;
                self.answer(request, &format, &path, &mut record).await
            }
            None => self.answer(request, &format, &path, &mut record).await,
        };
        let format = format.unwrap_or(Format::Json);
        let response = match result {
            Ok(answer) => Some(respond(answer, format)),
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
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() == MAX_RECORDS {
            records.pop_front();
        }
        records.push_back(record);
        response.ok_or(HangUp)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
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
        let found = Schema::get().find(method.as_str(), path);
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

    async fn read_upload(&self, request: Request<Incoming>, call: &mut Call) -> Result<(), Failure> {
        let content_type = header(request.headers(), CONTENT_TYPE.as_str())
            .unwrap_or_default()
            .to_owned();
        let boundary = content_type
            .strip_prefix("multipart/form-data")
            .and_then(|rest| rest.split_once("boundary="))
            .map(|(_, b)| b.split(';').next().unwrap_or(b).trim().trim_matches('"').to_owned());
        let Some(boundary) = boundary.filter(|b| !b.is_empty()) else {
            // PVE waits for parts that never come, then hangs up (FACTS 57).
            return Err(Failure::new(0, "").with_shape(Shape::HangUp).delayed());
        };
        let name = hex::encode(rand::random::<[u8; 16]>());
        let dir = self.world.settings.data_dir.join("tmp");
        tokio::fs::create_dir_all(&dir)
            .await
            .map_err(|e| Failure::die(e.to_string()))?;
        let file = dir.join(format!("pveupload-{name}"));
        match receive_upload(BodyStream(request.into_body()), &boundary, &file).await {
            Ok(upload) => {
                for (key, value) in upload.params.0.clone() {
                    call.params.push(key, value);
                }
                call.params.set("filename", upload.filename.clone());
                call.upload = Some(upload);
                Ok(())
            }
            Err(UploadError::Refused(failure)) => Err(failure),
            Err(UploadError::Broken(error)) => {
                tracing::debug!(%error, "upload broken off");
                Err(Failure::new(0, "").with_shape(Shape::HangUp))
            }
        }
    }

    /// Finds out who is calling. The cookie beats the token (`FACTS` 6).
    fn authenticate(&self, headers: &HeaderMap, method: &Method, is_upload: bool) -> Result<Identity, Failure> {
        let access = self.world.access();
        if let Some(ticket) = ticket_of(headers) {
            let user = access
                .check_ticket(&ticket)
                .ok_or_else(|| Failure::unauthorized("Authentication failed!"))?;
            // Uploads by cookie need no CSRF token (FACTS 10).
            if *method != Method::GET && !is_upload {
                let token = header(headers, "csrfpreventiontoken").unwrap_or_default();
                if !access.check_csrf(&user, token) {
                    return Err(Failure::unauthorized("Permission denied - invalid csrf token"));
                }
            }
            return Ok(Identity { user, token: None });
        }
        let token = header(headers, AUTHORIZATION.as_str())
            .and_then(|h| h.strip_prefix("PVEAPIToken"))
            .and_then(|h| h.strip_prefix(['=', ' ']));
        let Some(token) = token else {
            return Err(Failure::unauthorized("No ticket"));
        };
        let token = percent_decode_str(token).decode_utf8_lossy();
        access
            .check_token(&token)
            .ok_or_else(|| Failure::unauthorized("Authentication failed!"))
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

async fn read_body(request: Request<Incoming>, method: &Method, params: &mut Params) -> Result<(), Failure> {
    let length = request.body().size_hint().exact().unwrap_or(0);
    let (parts, body) = request.into_parts();
    if matches!(*method, Method::GET | Method::DELETE) {
        if length > 0 {
            return Err(Failure::new(501, format!("Unexpected content for method '{method}'")).with_shape(Shape::Text));
        }
        return Ok(());
    }
    let content_type = header(&parts.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !matches!(kind, "" | "application/x-www-form-urlencoded" | "application/json") {
        return Err(
            Failure::new(506, format!("upload 'Content-Type '{kind}' not implemented")).with_shape(Shape::Text),
        );
    }
    if length > MAX_FORM as u64 {
        return Err(Failure::new(501, "for data too large").with_shape(Shape::Text));
    }
    if length == 0 && (kind != "application/json" || !parts.headers.contains_key(CONTENT_LENGTH)) {
        return Ok(());
    }
    let bytes = body
        .collect()
        .await
        .map_err(|_| Failure::new(0, "").with_shape(Shape::HangUp))?
        .to_bytes();
    if kind == "application/json" {
        return parse_json(&bytes, params);
    }
    parse_form(&String::from_utf8_lossy(&bytes), params);
    Ok(())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The ticket from the cookie, percent-encoded or not, or from the header `Authorization: PVEAuthCookie=...`.
fn ticket_of(headers: &HeaderMap) -> Option<String> {
    let cookie = header(headers, COOKIE.as_str())
        .into_iter()
        .flat_map(|c| c.split(';'))
        .find_map(|c| {
            let (name, value) = c.trim().split_once('=')?;
            matches!(name, "PVEAuthCookie" | "__Host-PVEAuthCookie").then_some(value)
        });
    let text = cookie.or_else(|| header(headers, AUTHORIZATION.as_str())?.strip_prefix("PVEAuthCookie="))?;
    Some(percent_decode_str(text).decode_utf8_lossy().into_owned())
}

async fn redirect_to_https(stream: &mut TcpStream, local: Option<SocketAddr>) {
    let Some(local) = local else { return };
    // What is left unread would turn the answer into a reset.
    let mut request = [0; 8192];
    let read = tokio::time::timeout(IDLE, stream.read(&mut request)).await;
    if !matches!(read, Ok(Ok(_))) {
        return;
    }
    let text = format!(
        "HTTP/1.1 301 Moved Permanently\r\nLocation: https://{local}/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    if let Err(error) = stream.write_all(text.as_bytes()).await {
        tracing::debug!(%error, "no redirect sent");
    }
}

/// A request body as a stream of its bytes.
struct BodyStream(Incoming);

impl Stream for BodyStream {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return match Pin::new(&mut self.0).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Poll::Ready(Some(Ok(data))),
                    // Trailers are not part of the file.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(std::io::Error::other(error)))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            };
        }
    }
}
