//! Bodies of requests: forms, JSON, uploads.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep};

use super::Server;
use super::auth::header;
use super::serve::CutAfter;
use crate::api::Call;
use crate::wire::{Failure, Params, Shape, UploadError, parse_form, parse_json, receive_upload};

/// A body of which nothing comes for so long is given up. PVE does so after 5 s; a machine that runs tests may be slower.
const BODY_IDLE: Duration = Duration::from_secs(30);

/// A form or JSON body is to be there whole after this time, however it trickles.
const FORM_TIME: Duration = Duration::from_secs(60);

/// More form data than this is refused (`FACTS` 17).
const MAX_FORM: usize = 512 * 1024;

impl Server {
    pub(super) async fn read_upload(&self, request: Request<Incoming>, call: &mut Call) -> Result<(), Failure> {
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
        let limit = request.extensions().get::<CutAfter>().map(|cut| cut.0);
        let body = BodyStream::new(request.into_body(), limit);
        match receive_upload(body, &boundary, &file).await {
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
}

pub(super) async fn read_body(request: Request<Incoming>, method: &Method, params: &mut Params) -> Result<(), Failure> {
    if request.extensions().get::<CutAfter>().is_some() {
        // A form is read whole or not at all.
        return Err(Failure::new(0, "").with_shape(Shape::HangUp));
    }
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
    let mut stream = BodyStream::new(body, None);
    let whole = async {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok::<_, std::io::Error>(bytes)
    };
    let Ok(Ok(bytes)) = tokio::time::timeout(FORM_TIME, whole).await else {
        return Err(Failure::new(0, "").with_shape(Shape::HangUp));
    };
    if kind == "application/json" {
        return parse_json(&bytes, params);
    }
    parse_form(&String::from_utf8_lossy(&bytes), params);
    Ok(())
}

/// A request body as a stream of its bytes; it breaks off when nothing comes for [`BODY_IDLE`].
struct BodyStream {
    body: Incoming,
    /// Bytes until a fault ends it.
    left: Option<u64>,
    idle: Pin<Box<Sleep>>,
}

impl BodyStream {
    fn new(body: Incoming, left: Option<u64>) -> Self {
        Self {
            body,
            left,
            idle: Box::pin(tokio::time::sleep(BODY_IDLE)),
        }
    }
}

impl Stream for BodyStream {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(left) = &mut self.left {
                            match left.checked_sub(data.len() as u64) {
                                Some(rest) => *left = rest,
                                None => return Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
                            }
                        }
                        self.idle.as_mut().reset(Instant::now() + BODY_IDLE);
                        Poll::Ready(Some(Ok(data)))
                    }
                    // Trailers are not part of the file.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(std::io::Error::other(error)))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => self
                    .idle
                    .as_mut()
                    .poll(cx)
                    .map(|()| Some(Err(std::io::ErrorKind::TimedOut.into()))),
            };
        }
    }
}
