//! The VNC server against recorded challenges and a client of a few lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::display::{GRAPHICS, Picture, TEXT};
use super::*;

struct Still(Mutex<Picture>);

impl Screen for Still {
    fn name(&self) -> String {
        "QEMU (con)".to_owned()
    }

    fn version(&self) -> u64 {
        lock(&self.0).width.into()
    }

    fn picture(&self) -> Picture {
        lock(&self.0).clone()
    }

    fn press(&self, _key: Key) {}
}

/// Challenges and answers recorded from QEMU with the client that it let in (`pve/traces/vnc.json`).
#[test]
fn recorded_answers_fit() {
    for (password, challenge, answer) in [
        ("$_?K*T*L", "lj1zpO8GiEpYD5yQ8CdwzA==", "FqBPRGKdIcQLr7OtQCncYw=="),
        ("*M,@Q3MJ", "66vabsxbmMMg1xgbKk6zBA==", "TUnXcbFnJPIctttxAELK+Q=="),
        ("3.@.NXOU", "1MsGcChtFqBYNePJFv5Uwg==", "Mxiu6W2jrM4A9wDhGQizDQ=="),
        ("RR6U#7UK", "uSPBml+SBNFTRxff5W6jpw==", "Z9Lgkfpl6xE4DgWfGfpyRA=="),
    ] {
        let block = |text: &str| -> [u8; 16] {
            STANDARD
                .decode(text)
                .expect("base64")
                .try_into()
                .expect("sixteen bytes")
        };
        assert_eq!(
            respond(password.as_bytes(), block(challenge)),
            block(answer),
            "{password}"
        );
    }
}

fn connect(screen: &Arc<Still>, sessions: &Arc<Sessions>) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(4 << 20);
    tokio::spawn(serve(
        ours,
        Arc::clone(screen) as Arc<dyn Screen>,
        Arc::clone(sessions),
        CancellationToken::new(),
    ));
    theirs
}

async fn log_in(stream: &mut DuplexStream, password: &str) -> u32 {
    let mut version = [0; 12];
    stream.read_exact(&mut version).await.expect("a greeting");
    assert_eq!(&version, b"RFB 003.008\n");
    stream.write_all(&version).await.expect("sent");
    assert_eq!(stream.read_u16().await.expect("types"), 0x0102);
    stream.write_u8(2).await.expect("sent");
    let mut challenge = [0; 16];
    stream.read_exact(&mut challenge).await.expect("a challenge");
    stream
        .write_all(&respond(password.as_bytes(), challenge))
        .await
        .expect("sent");
    stream.read_u32().await.expect("a result")
}

fn still() -> (Arc<Still>, Arc<Sessions>) {
    let sessions = Arc::new(Sessions::default());
    sessions.set_password("12345678");
    (Arc::new(Still(Mutex::new(Picture::of("login:", TEXT)))), sessions)
}

#[tokio::test]
async fn the_hello_is_qemus() {
    let (screen, sessions) = still();
    let mut stream = connect(&screen, &sessions);
    assert_eq!(log_in(&mut stream, "12345678").await, 0);
    stream.write_u8(1).await.expect("sent");
    let mut hello = [0; 34];
    stream.read_exact(&mut hello).await.expect("a hello");
    // Recorded: 720 by 400.
    let recorded = STANDARD
        .decode("AtABkCAYAAEA/wD/AP8QCAAAAAAAAAAKUUVNVSAoY29uKQ==")
        .expect("base64");
    assert_eq!(hello.as_slice(), recorded);
}

#[tokio::test]
async fn a_wrong_password_gets_qemus_words_and_the_end() {
    let (screen, sessions) = still();
    let mut stream = connect(&screen, &sessions);
    assert_eq!(log_in(&mut stream, "87654321").await, 1);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(rest, b"\0\0\0\x16Authentication failed\0");
}

#[tokio::test]
async fn the_last_password_wins_and_ages() {
    tokio::time::pause();
    let (screen, sessions) = still();
    sessions.set_password("abcdefgh");
    assert_eq!(log_in(&mut connect(&screen, &sessions), "12345678").await, 1);
    assert_eq!(log_in(&mut connect(&screen, &sessions), "abcdefgh").await, 0);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(log_in(&mut connect(&screen, &sessions), "abcdefgh").await, 1);
}

async fn rectangle(stream: &mut DuplexStream) -> (u16, u16, i32) {
    assert_eq!(stream.read_u32().await.expect("an update"), 1, "one rectangle");
    stream.read_u32().await.expect("its place");
    let width = stream.read_u16().await.expect("a width");
    let height = stream.read_u16().await.expect("a height");
    (width, height, stream.read_i32().await.expect("an encoding"))
}

#[tokio::test]
async fn raw_zlib_and_a_new_size() {
    let (screen, sessions) = still();
    let mut stream = connect(&screen, &sessions);
    assert_eq!(log_in(&mut stream, "12345678").await, 0);
    stream.write_u8(1).await.expect("sent");
    stream.read_exact(&mut [0; 34]).await.expect("a hello");
    let ask = |width: u16, height: u16| {
        let mut request = vec![3, 0, 0, 0, 0, 0];
        request.extend(width.to_be_bytes());
        request.extend(height.to_be_bytes());
        request
    };
    stream.write_all(&ask(720, 400)).await.expect("sent");
    assert_eq!(rectangle(&mut stream).await, (720, 400, RAW));
    let mut raw = vec![0; 720 * 400 * 4];
    stream.read_exact(&mut raw).await.expect("pixels");
    let lit = raw.chunks(4).filter(|pixel| **pixel == [0xa8, 0xa8, 0xa8, 0]).count();
    assert!(lit > 100, "{lit}");

    stream
        .write_all(&[2, 0, 0, 2, 0, 0, 0, 6, 255, 255, 255, 0x21])
        .await
        .expect("sent");
    let mut unpack = flate2::Decompress::new(true);
    for _ in 0..2 {
        stream.write_all(&ask(720, 400)).await.expect("sent");
        assert_eq!(rectangle(&mut stream).await, (720, 400, ZLIB));
        let mut packed = vec![0; stream.read_u32().await.expect("a length") as usize];
        stream.read_exact(&mut packed).await.expect("packed pixels");
        assert!(packed.len() < 20_000, "{}", packed.len());
        let mut plain = Vec::with_capacity(raw.len() + 1);
        unpack
            .decompress_vec(&packed, &mut plain, flate2::FlushDecompress::Sync)
            .expect("zlib");
        assert!(plain == raw, "the same picture");
    }

    *lock(&screen.0) = Picture::of("kernel", GRAPHICS);
    assert_eq!(rectangle(&mut stream).await, (1280, 800, DESKTOP_SIZE));
}

#[tokio::test]
async fn small_pixels_and_a_colour_map() {
    let (screen, sessions) = still();
    let mut stream = connect(&screen, &sessions);
    assert_eq!(log_in(&mut stream, "12345678").await, 0);
    stream.write_u8(1).await.expect("sent");
    stream.read_exact(&mut [0; 34]).await.expect("a hello");
    // 16 bits, big-endian, 5-6-5.
    stream
        .write_all(&[0, 0, 0, 0, 16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0])
        .await
        .expect("sent");
    stream.write_all(&[3, 0, 0, 0, 0, 0, 0, 8, 0, 16]).await.expect("sent");
    assert_eq!(rectangle(&mut stream).await, (8, 16, RAW));
    let mut pixels = vec![0; 8 * 16 * 2];
    stream.read_exact(&mut pixels).await.expect("pixels");
    // 168 of 255 is 20 of 31 and 41 of 63.
    assert!(pixels.chunks(2).any(|pixel| pixel == [0xa5, 0x34]), "{pixels:?}");
    stream
        .write_all(&[0, 0, 0, 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        .await
        .expect("sent");
    let mut map = vec![0; 6 + 256 * 6];
    stream.read_exact(&mut map).await.expect("a map");
    assert_eq!(map[..6], [1, 0, 0, 0, 1, 0]);
    assert_eq!(map[map.len() - 6..], [255; 6]);
}

#[tokio::test]
async fn an_exclusive_client_throws_the_others_out() {
    let (screen, sessions) = still();
    let mut shared = connect(&screen, &sessions);
    assert_eq!(log_in(&mut shared, "12345678").await, 0);
    shared.write_u8(1).await.expect("sent");
    shared.read_exact(&mut [0; 34]).await.expect("a hello");
    let mut alone = connect(&screen, &sessions);
    assert_eq!(log_in(&mut alone, "12345678").await, 0);
    alone.write_u8(0).await.expect("sent");
    alone.read_exact(&mut [0; 34]).await.expect("a hello");
    assert_eq!(shared.read(&mut [0]).await.expect("the end"), 0);
}
