//! Bodies on their way out: compressed when asked, cut short by a fault.

use std::future::Future as _;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{CONTENT_ENCODING, HeaderValue};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// Larger bodies are compressed.
///
/// # Source
/// `PVE::APIServer::AnyEvent::response`; `pve/traces/http.json` shows a body of 73 bytes left as it is.
const COMPRESSED_FROM: usize = 1025;

/// How long the first half of a cut answer gets to reach the wire.
const HALF_TIME: Duration = Duration::from_millis(50);

/// A body that hyper sends: whole, or ending too early.
pub(crate) type Sent = Either<Full<Bytes>, CutBody>;

/// Compresses a large body with what the client takes, gzip before deflate (`FACTS` 21).
pub(crate) async fn compress(response: Response<Full<Bytes>>, asked: &HeaderMap) -> Response<Full<Bytes>> {
    let accepted = asked
        .get(http::header::ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    // PVE looks for the word and knows no weights; a weight of nought is honoured all the same.
    let takes = |name: &str| {
        accepted.split(',').any(|part| {
            let (coding, weight) = part.split_once(';').unwrap_or((part, ""));
            coding.trim().eq_ignore_ascii_case(name) && !weight.trim().trim_end_matches(['0', '.']).ends_with("q=")
        })
    };
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes);
    if bytes.len() < COMPRESSED_FROM || parts.headers.contains_key(CONTENT_ENCODING) {
        return Response::from_parts(parts, bytes.into());
    }
    let packed = if takes("gzip") {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder
            .write_all(&bytes)
            .and_then(|()| encoder.finish())
            .map(|b| ("gzip", b))
    } else if takes("deflate") {
        // What HTTP calls deflate is zlib's format.
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder
            .write_all(&bytes)
            .and_then(|()| encoder.finish())
            .map(|b| ("deflate", b))
    } else {
        return Response::from_parts(parts, bytes.into());
    };
    match packed {
        Ok((name, packed)) => {
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
            Response::from_parts(parts, packed.into())
        }
        // Writing to memory cannot fail; the plain body is right in any case.
        Err(_) => Response::from_parts(parts, bytes.into()),
    }
}

/// Sends a response whole.
pub(crate) fn whole(response: Response<Full<Bytes>>) -> Response<Sent> {
    response.map(Either::Left)
}

/// Sends a response's head and the first half of its body; then the connection ends.
pub(crate) async fn cut(response: Response<Full<Bytes>>) -> Response<Sent> {
    let (parts, body) = response.into_parts();
    let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes);
    let body = CutBody {
        length: bytes.len() as u64,
        half: Some(bytes.slice(..bytes.len() / 2)),
        wait: Box::pin(tokio::time::sleep(HALF_TIME)),
    };
    Response::from_parts(parts, Either::Right(body))
}

/// Announces all its bytes, gives half of them and breaks.
#[derive(Debug)]
pub(crate) struct CutBody {
    length: u64,
    half: Option<Bytes>,
    wait: Pin<Box<Sleep>>,
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        // hyper throws away what it has not yet sent when a body breaks.
        match self.wait.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http::header::ACCEPT_ENCODING;

    use super::*;

    #[tokio::test]
    async fn large_bodies_are_compressed_when_asked() {
        let large = "abcdefgh".repeat(200);
        for (asked, body, expected) in [
            ("gzip, deflate", large.as_str(), Some("gzip")),
            ("deflate", &large, Some("deflate")),
            ("gzip;q=0, deflate;q=0.5", &large, Some("deflate")),
            ("br", &large, None),
            ("", &large, None),
            ("gzip", &large[..1024], None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, asked.parse().unwrap());
            let response = compress(Response::new(Full::from(body.to_owned())), &headers).await;
            let encoding = response
                .headers()
                .get(CONTENT_ENCODING)
                .map(|v| v.to_str().unwrap().to_owned());
            assert_eq!(encoding.as_deref(), expected, "{asked}");
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let mut text = String::new();
            match expected {
                Some("gzip") => flate2::read::GzDecoder::new(&bytes[..])
                    .read_to_string(&mut text)
                    .unwrap(),
                Some(_) => flate2::read::ZlibDecoder::new(&bytes[..])
                    .read_to_string(&mut text)
                    .unwrap(),
                None => (&bytes[..]).read_to_string(&mut text).unwrap(),
            };
            assert_eq!(text, body);
        }
    }
}
