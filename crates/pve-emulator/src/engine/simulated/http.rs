//! A small HTTP client for what the installer fetches: `http://` only, as a kickstart server in a build network speaks.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use url::Url;

/// Most bytes read; a kickstart is a few KiB.
const MAX_BODY: usize = 4 << 20;
/// Most redirects followed; curl's own default is 50, a kickstart server needs one.
const MAX_REDIRECTS: usize = 5;
/// Host time for one attempt. Guest time may be far shorter, but sockets live in host time.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Fetches a URL; the error is one line as curl words it.
pub(super) async fn get(url: &str) -> Result<Vec<u8>, String> {
    match tokio::time::timeout(ATTEMPT, get_with_redirects(url)).await {
        Ok(result) => result,
        Err(_) => Err("curl: (28) Operation timed out".to_owned()),
    }
}

async fn get_with_redirects(url: &str) -> Result<Vec<u8>, String> {
    let mut url = Url::parse(url).map_err(|_| "curl: (3) URL using bad/illegal format or missing URL".to_owned())?;
    for _ in 0..=MAX_REDIRECTS {
        match get_one(&url).await? {
            Answer::Body(body) => return Ok(body),
            Answer::Redirect(to) => {
                url = url
                    .join(&to)
                    .map_err(|_| "curl: (3) URL using bad/illegal format or missing URL".to_owned())?;
            }
        }
    }
    Err("curl: (47) Maximum redirects followed".to_owned())
}

enum Answer {
    Body(Vec<u8>),
    Redirect(String),
}

async fn get_one(url: &Url) -> Result<Answer, String> {
    if url.scheme() != "http" {
        return Err(format!("curl: (1) Protocol \"{}\" not supported", url.scheme()));
    }
    let host = url.host_str().ok_or("curl: (3) no host part in the URL")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((address, port)).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::ConnectionRefused {
            format!("curl: (7) Failed to connect to {host} port {port}: Connection refused")
        } else {
            format!("curl: (6) Could not reach host {host}: {error}")
        }
    })?;
    let lost = |error: hyper::Error| format!("curl: (56) Failure when receiving data from the peer: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(lost)?;
    let request = http::Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .header(http::header::HOST, format!("{host}:{port}"))
        // Anaconda's dracut module sends what it knows of the machine only when asked; the plain name is curl's.
        .header(http::header::USER_AGENT, "curl/7.76.1")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("curl: (3) {error}"))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        if status.is_redirection()
            && let Some(to) = response
                .headers()
                .get(http::header::LOCATION)
                .and_then(|value| value.to_str().ok())
        {
            return Ok(Answer::Redirect(to.to_owned()));
        }
        if !status.is_success() {
            return Err(format!(
                "curl: (22) The requested URL returned error: {}",
                status.as_u16()
            ));
        }
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|error| format!("curl: (56) Failure when receiving data from the peer: {error}"))?;
        Ok(Answer::Body(body.to_bytes().to_vec()))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    // The connection only moves when polled; it ends by itself, mostly after the exchange.
    let mut alive = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            _ = &mut connection, if alive => alive = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Serves the given raw answers, one a connection, and returns the request heads.
    async fn serve(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                heads.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            heads
        });
        (port, task)
    }

    #[tokio::test]
    async fn follows_a_redirect_and_keeps_the_query() {
        let (port, task) = serve(vec![
            "HTTP/1.1 302 Found\r\nLocation: /b?x=1\r\nContent-Length: 0\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".into(),
        ])
        .await;
        let body = get(&format!("http://127.0.0.1:{port}/a")).await.unwrap();
        assert_eq!(body, b"hello");
        let heads = task.await.unwrap();
        assert!(heads[0].starts_with("GET /a HTTP/1.1\r\n"), "{}", heads[0]);
        assert!(heads[1].starts_with("GET /b?x=1 HTTP/1.1\r\n"), "{}", heads[1]);
    }

    #[tokio::test]
    async fn says_what_curl_would() {
        let (port, _task) = serve(vec!["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into()]).await;
        let error = get(&format!("http://127.0.0.1:{port}/a")).await.unwrap_err();
        assert_eq!(error, "curl: (22) The requested URL returned error: 404");
        assert!(
            get("https://127.0.0.1/ks.cfg")
                .await
                .unwrap_err()
                .contains("not supported")
        );
        let free = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert!(
            get(&format!("http://127.0.0.1:{free}/"))
                .await
                .unwrap_err()
                .contains("Connection refused")
        );
    }
}
