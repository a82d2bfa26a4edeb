//! Serial consoles and screens as the real PVE served them, and from servers that serve something else.

mod support;

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compress, Compression, FlushCompress};
use proxmox_client::{Client, Error, ErrorKind, NodeName, Qemu, ScreenImage, Vmid};
use serde_json::Value;
use support::{Play, Reaction, Received, TestServer, data};

/// Far more than anything here takes on a busy machine, and less than the client's own limit where that is not what is tested.
const SOON: Duration = Duration::from_secs(15);

fn recorded(file: &str, name: &str) -> Value {
    let path = format!("{}/../../pve/traces/{file}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("a trace");
    let all: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    all.into_iter()
        .find(|entry| entry["name"] == name)
        .unwrap_or_else(|| panic!("{file} has no `{name}`"))
}

/// A frame as it was recorded.
fn content(message: &Value) -> Vec<u8> {
    match (message["text"].as_str(), message["base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(base64)) => STANDARD.decode(base64).expect("base64"),
        _ => panic!("{message}"),
    }
}

/// The frames of a recorded session up to the first gap; true for those of the client.
fn messages(entry: &Value) -> Vec<(bool, Vec<u8>)> {
    let all = entry["response"]["messages"].as_array().expect("messages");
    all.iter()
        .take_while(|message| message.get("omitted_messages").is_none() && message["truncated"] != true)
        .map(|message| (message["dir"] == "client", content(message)))
        .collect()
}

/// The server's half of a session.
fn half(messages: &[(bool, Vec<u8>)]) -> Vec<Play> {
    messages
        .iter()
        .map(|(client, content)| {
            if *client {
                Play::Hear
            } else {
                Play::Say(content.clone())
            }
        })
        .collect()
}

/// A server that answers `POST` with this and serves that on the websocket.
async fn serving(answer: String, plays: Vec<Play>) -> TestServer {
    TestServer::start(move |_, request: &Received| {
        if request.method == "POST" {
            data(&answer)
        } else {
            Reaction::Websocket(plays.clone())
        }
    })
    .await
}

fn vm(client: &Client) -> Qemu {
    client
        .node(&NodeName::new("pve").expect("a name"))
        .qemu(Vmid::new(900).expect("in range"))
}

#[tokio::test]
async fn a_recorded_serial_session() {
    let ticket = recorded("termproxy", "termproxy by token, serial=serial0");
    let session = recorded(
        "termproxy",
        "termproxy session by token from just after VM start until the shell prompt",
    );
    let mut messages = messages(&session);
    let typed = recorded(
        "termproxy",
        "data, resize, ping, split message, garbage on an open session",
    );
    let begun = messages.len();
    messages.extend(self::messages(&typed).into_iter().take(6));
    let server = serving(ticket["response"]["body"]["data"].to_string(), half(&messages)).await;
    let mut console = vm(&server.client()).serial_console(0).await.expect("attached");
    let expected: Vec<u8> = messages
        .iter()
        .skip(4)
        .filter(|(client, _)| !client)
        .flat_map(|(_, content)| content.clone())
        .collect();
    console.write(b"echo hi there\n").await.expect("typed");
    console.resize(132, 40).await.expect("told");
    console.write(b"busybox stty size\n").await.expect("typed");
    let mut heard = Vec::new();
    while let Some(bytes) = console.read().await.expect("readable") {
        heard.extend(bytes);
    }
    // `OK`, PVE's own warning and its line about the terminal are not the guest's.
    assert!(
        heard.starts_with(b"\r\nISOLINUX 6.04"),
        "{}",
        String::from_utf8_lossy(&heard)
    );
    let written = messages.iter().position(|(client, _)| *client);
    assert_eq!(written, Some(0));
    assert_eq!(
        String::from_utf8_lossy(&heard),
        String::from_utf8_lossy(&expected),
        "{begun} frames before the keys"
    );
    let said: Vec<Vec<u8>> = messages
        .into_iter()
        .filter(|(client, _)| *client)
        .map(|(_, content)| content)
        .collect();
    assert_eq!(server.frames(), said);
    let get = server.requests().into_iter().find(|request| request.method == "GET");
    let target = get.expect("an upgrade").target;
    assert!(
        target.contains("port=5900") && !target.contains('+') && target.contains("%2B"),
        "{target}"
    );
}

#[tokio::test]
async fn what_pve_says_instead_of_a_console() {
    let ticket = recorded("termproxy", "termproxy by token, serial=serial0")["response"]["body"]["data"].to_string();
    for (name, kind, told) in [
        (
            "termproxy of a VM without serial device, serial=serial0: websocket",
            ErrorKind::State,
            "no console: serial interface 'serial0' is not configured",
        ),
        (
            "termproxy of a VM without serial device, no serial parameter: websocket",
            ErrorKind::State,
            "no console: unable to find a serial interface",
        ),
        (
            "termproxy of a stopped VM: websocket",
            ErrorKind::State,
            "no console: VM 904 not running",
        ),
        (
            "termproxy, wrong ticket in the first line: websocket",
            ErrorKind::Transport,
            "the connection broke during GET /nodes/pve/qemu/900/vncwebsocket",
        ),
    ] {
        let mut plays = half(&messages(&recorded("termproxy", name)));
        // It stays open after its one line (FACTS 69): the error must not wait for an end.
        if kind == ErrorKind::State {
            plays.push(Play::Stay(Duration::from_secs(600)));
        }
        let server = serving(ticket.clone(), plays).await;
        let client = server.client();
        let ended = tokio::time::timeout(SOON, vm(&client).serial_console(0)).await;
        let error = ended.expect("at once").expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().starts_with(told), "{name}: {error}");
        assert_eq!(server.requests().len(), 2, "a ticket is used once (FACTS 63)");
    }
}

/// `FramebufferUpdate` with rectangles that are whole already.
fn update(rectangles: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend(u16::try_from(rectangles.len()).expect("few").to_be_bytes());
    bytes.extend(rectangles.concat());
    bytes
}

fn rectangle(place: [u16; 4], encoding: i32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = place.iter().flat_map(|number| number.to_be_bytes()).collect();
    bytes.extend(encoding.to_be_bytes());
    bytes.extend(pixels);
    bytes
}

/// The handshake of a recorded session, up to the picture: 640 by 480.
fn handshake() -> (String, Vec<(bool, Vec<u8>)>) {
    let ticket = recorded("vnc", "vncproxy by token, websocket=1");
    let session = recorded("vnc", "vncwebsocket + RFB handshake by token, websocket=1");
    let mut messages = messages(&session);
    // What the recording client asked for then is not what ours asks for.
    messages.truncate(9);
    (ticket["response"]["body"]["data"].to_string(), messages)
}

const WIDTH: u16 = 640;
const HEIGHT: u16 = 480;

/// A session that serves these messages once the client has asked for the screen.
fn screen(told: &[Vec<u8>]) -> (String, Vec<Play>) {
    let (ticket, messages) = handshake();
    let mut plays = half(&messages);
    // Pixel format and encodings, then the request.
    plays.extend([Play::Hear, Play::Hear]);
    plays.extend(told.iter().map(|message| Play::Say(message.clone())));
    (ticket, plays)
}

async fn capture(server: &TestServer) -> Result<ScreenImage, Error> {
    let client = server.client();
    vm(&client).screen().await?.capture().await
}

#[tokio::test]
async fn a_recorded_rfb_session() {
    // A grey bar above black, with the padding byte set as the recorded server sets it.
    let pixels: Vec<u8> = (0..usize::from(WIDTH) * usize::from(HEIGHT))
        .flat_map(|at| {
            if at < usize::from(WIDTH) {
                [8, 4, 2, 255]
            } else {
                [0, 0, 0, 255]
            }
        })
        .collect();
    let half_way = usize::from(WIDTH) * 200 * 4;
    let mut zlib = Compress::new(Compression::fast(), true);
    let mut packed = Vec::with_capacity(1 << 20);
    zlib.compress_vec(&pixels[half_way..], &mut packed, FlushCompress::Sync)
        .expect("packed");
    let mut lower = u32::try_from(packed.len()).expect("small").to_be_bytes().to_vec();
    lower.extend(packed);
    let told = [
        // A bell and a clipboard, which say nothing.
        vec![2],
        vec![3, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'],
        update(&[rectangle([0, 0, WIDTH, 200], 0, &pixels[..half_way])]),
        update(&[rectangle([0, 200, WIDTH, 280], 6, &lower)]),
    ];
    let (ticket, plays) = screen(&told);
    let server = serving(ticket, plays).await;
    let image = capture(&server).await.expect("a picture");
    assert_eq!((image.width, image.height), (WIDTH, HEIGHT));
    assert_eq!(image.rgb[..3], [2, 4, 8]);
    assert!(image.rgb[usize::from(WIDTH) * 3..].iter().all(|byte| *byte == 0));
    let (_, messages) = handshake();
    let mut said: Vec<Vec<u8>> = messages
        .into_iter()
        .filter(|(client, _)| *client)
        .map(|(_, content)| content)
        .collect();
    // 32 bits as QEMU has them; Zlib, Raw, DesktopSize; then everything, not only what changed.
    said.push(
        [
            &[0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0][..],
            &[2, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 0, 255, 255, 255, 33],
        ]
        .concat(),
    );
    said.push(vec![3, 0, 0, 0, 0, 0, 2, 128, 1, 224]);
    assert_eq!(server.frames(), said);
}

#[tokio::test]
async fn a_recorded_wrong_password() {
    let session = recorded("vnc", "RFB with wrong VNC password");
    let (ticket, _) = handshake();
    let server = serving(ticket, half(&messages(&session))).await;
    let error = capture(&server).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::State, "{error}");
    assert!(
        error
            .to_string()
            .starts_with("no console: Authentication failed: PVE has one VNC password"),
        "{error}"
    );
}

/// Whatever comes, it ends soon, in words, and takes little memory.
#[tokio::test]
async fn screens_that_are_none() {
    let init = |width: u16, height: u16, name: u32| {
        let mut bytes = [width.to_be_bytes(), height.to_be_bytes()].concat();
        bytes.extend([0; 16]);
        bytes.extend(name.to_be_bytes());
        bytes
    };
    let begun = |last: Vec<u8>| {
        let (ticket, messages) = handshake();
        let mut plays = half(&messages[..8]);
        plays.push(Play::Say(last));
        (ticket, plays)
    };
    let first = |bytes: &[u8]| (handshake().0, vec![Play::Say(bytes.to_vec()), Play::Stay(SOON * 4)]);
    let version = |then: &[u8]| {
        let plays = vec![
            Play::Say(b"RFB 003.008\n".to_vec()),
            Play::Hear,
            Play::Say(then.to_vec()),
            Play::Stay(SOON * 4),
        ];
        (handshake().0, plays)
    };
    let mut resizes: Vec<Vec<u8>> = vec![rectangle([0, 0, 3840, 2160], -223, &[]); 60_000];
    resizes.push(rectangle([0, 0, 1, 1], 0, &[0; 4]));
    let bell = |mut plays: (String, Vec<Play>)| {
        plays.1.push(Play::Forever(vec![2; 4000]));
        plays
    };
    let cases = [
        ("no RFB", first(b"SSH-2.0-OpenSSH_9.2\r\n"), "not the beginning of RFB"),
        ("old RFB", first(b"RFB 003.003\n"), "older than 3.8"),
        (
            "refused",
            version(&[&[0, 0, 0, 0, 5][..], b"no VM"].concat()),
            "refuses: no VM",
        ),
        ("an endless refusal", version(&[0, 255, 255, 255, 255]), "too long"),
        ("no password", version(&[1, 1]), "another authentication"),
        ("no pixels", begun(init(0, 480, 0)), "a screen of 0 by 480"),
        (
            "too many pixels",
            begun(init(65535, 65535, 0)),
            "a screen of 65535 by 65535",
        ),
        ("an endless name", begun(init(640, 480, u32::MAX)), "too large"),
        (
            "beyond the screen",
            screen(&[update(&[rectangle([600, 0, 100, 10], 0, &[0; 4000])])]),
            "beyond the screen",
        ),
        (
            "another encoding",
            screen(&[update(&[rectangle([0, 0, 1, 1], 7, &[0; 4])])]),
            "encoding 7",
        ),
        (
            "no zlib",
            screen(&[update(&[rectangle([0, 0, 4, 4], 6, &[0, 0, 0, 4, 1, 2, 3, 4])])]),
            "cannot be unpacked",
        ),
        (
            "too much zlib",
            screen(&[update(&[rectangle([0, 0, 4, 4], 6, &[255, 255, 255, 255])])]),
            "larger than plain",
        ),
        ("another message", screen(&[vec![9]]), "no message 9"),
        ("sizes without end", screen(&[update(&resizes)]), "never comes to rest"),
        ("bells without end", bell(screen(&[])), "never came as a whole"),
        (
            "colours without end",
            screen(&[[vec![1, 0, 0, 0, 255, 255], vec![0; 393_210]].concat(), vec![9]]),
            "no message 9",
        ),
        ("a message too large", screen(&[vec![2; 3 << 20]]), "Message too long"),
        (
            "half a picture",
            screen(&[update(&[rectangle([0, 0, 640, 1], 0, &[0; 2560])])]),
            "ended",
        ),
    ];
    for (name, (ticket, plays), told) in cases {
        let server = serving(ticket, plays).await;
        let begun = Instant::now();
        let ended = tokio::time::timeout(SOON, capture(&server)).await;
        let error = ended.unwrap_or_else(|_| panic!("{name}: still at it")).expect_err(name);
        assert!(error_text(&error).contains(told), "{name}: {}", error_text(&error));
        assert!(begun.elapsed() < SOON, "{name}");
    }
}

fn error_text(error: &Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[tokio::test]
async fn serial_consoles_that_are_none() {
    let ticket = recorded("termproxy", "termproxy by token, serial=serial0")["response"]["body"]["data"].to_string();
    let lines = b"perl: warning: Setting locale failed.\r\n".repeat(20);
    let cases = [
        (vec![Play::Hear, Play::Say(b"NO".to_vec())], "did not say OK"),
        (
            vec![Play::Hear, Play::Say(b"OK".to_vec()), Play::Forever(lines)],
            "never said that it has started",
        ),
        (
            vec![Play::Hear, Play::Say(b"OK".to_vec()), Play::Forever(b"x".repeat(4096))],
            "never said that it has started",
        ),
        (
            vec![Play::Hear, Play::Say(b"OK".to_vec())],
            "ended before the terminal started",
        ),
        (vec![Play::Hear, Play::Bytes(b"\xf2\x01a".to_vec())], "Reserved bits"),
        (vec![Play::Hear, Play::Say(vec![b'x'; 3 << 20])], "Message too long"),
    ];
    for (plays, told) in cases {
        let server = serving(ticket.clone(), plays).await;
        let client = server.client();
        let ended = tokio::time::timeout(SOON, vm(&client).serial_console(0)).await;
        let error = ended.unwrap_or_else(|_| panic!("{told}: still at it")).expect_err(told);
        assert!(error_text(&error).contains(told), "{told}: {}", error_text(&error));
    }
}

/// A guest that prints without end is read piece by piece; nothing is gathered.
#[tokio::test]
async fn a_guest_that_never_stops_printing_is_read_in_pieces() {
    let ticket = recorded("termproxy", "termproxy by token, serial=serial0")["response"]["body"]["data"].to_string();
    let plays = vec![
        Play::Hear,
        Play::Say(b"OK".to_vec()),
        Play::Say(b"starting serial terminal on interface serial0\r\n".to_vec()),
        Play::Forever(vec![b'y'; 128 * 1024]),
    ];
    let server = serving(ticket, plays).await;
    let mut console = vm(&server.client()).serial_console(0).await.expect("attached");
    let mut read = 0;
    while read < 16 << 20 {
        let bytes = console.read().await.expect("readable").expect("no end");
        assert!(bytes.len() <= 128 * 1024);
        read += bytes.len();
    }
}
