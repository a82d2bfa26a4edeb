//! A VNC server on a guest's screen, as QEMU's behaves: RFB 3.8, password authentication, Raw and Zlib, `DesktopSize`.
//!
//! # Source
//! RFC 6143; recordings of QEMU's server in `pve/traces/vnc.json` (`FACTS` 62 to 67).

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use des::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::display::Picture;
use super::host::lock;
use super::keys::Key;

/// How often a changed screen is looked for while a client waits for one.
const REFRESH: Duration = Duration::from_millis(50);
/// `qm vncproxy` sets `expire_password +30` (`FACTS` 63).
const PASSWORD_LIFE: Duration = Duration::from_secs(30);
/// The largest clipboard text that is skipped rather than refused, in bytes.
const MAX_CUT_TEXT: u32 = 1 << 20;

const RAW: i32 = 0;
const ZLIB: i32 = 6;
const DESKTOP_SIZE: i32 = -223;

/// What all connections to one guest's screen share.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    password: Mutex<Option<(Vec<u8>, Instant)>>,
    /// Those let in, so that an exclusive client can throw them out.
    open: Mutex<Vec<CancellationToken>>,
}

impl Sessions {
    pub(super) fn set_password(&self, password: &str) {
        *lock(&self.password) = Some((password.as_bytes().to_vec(), Instant::now() + PASSWORD_LIFE));
    }

    fn accepts(&self, challenge: [u8; 16], response: [u8; 16]) -> bool {
        let password = lock(&self.password);
        password
            .as_ref()
            .is_some_and(|(password, until)| Instant::now() < *until && respond(password, challenge) == response)
    }

    fn enter(&self, shared: bool, own: &CancellationToken) {
        let mut open = lock(&self.open);
        if !shared {
            open.drain(..).for_each(|other| other.cancel());
        }
        open.retain(|other| !other.is_cancelled());
        open.push(own.clone());
    }

    /// The guest's process is gone.
    pub(super) fn close(&self) {
        lock(&self.open).drain(..).for_each(|session| session.cancel());
    }
}

/// The answer to a challenge: DES with the password as key, each of its bytes mirrored (RFC 6143, 7.2.2, and its erratum).
fn respond(password: &[u8], challenge: [u8; 16]) -> [u8; 16] {
    let mut key = [0; 8];
    for (slot, byte) in key.iter_mut().zip(password) {
        *slot = byte.reverse_bits();
    }
    let cipher = des::Des::new(&Array::from(key));
    let mut answer = challenge;
    for block in answer.chunks_exact_mut(8) {
        let mut whole = [0; 8];
        whole.copy_from_slice(block);
        let mut whole = Array::from(whole);
        cipher.encrypt_block(&mut whole);
        block.copy_from_slice(&whole);
    }
    answer
}

/// The guest as its VNC server sees it.
pub(super) trait Screen: Send + Sync {
    fn name(&self) -> String;
    /// Another number whenever the picture is another.
    fn version(&self) -> u64;
    fn picture(&self) -> Picture;
    fn press(&self, key: Key);
}

/// Serves one client until it leaves, breaks the protocol, is thrown out, or the guest ends.
pub(super) async fn serve(
    mut stream: DuplexStream,
    screen: Arc<dyn Screen>,
    sessions: Arc<Sessions>,
    guest_gone: CancellationToken,
) {
    let own = guest_gone.child_token();
    let served = tokio::select! {
        () = own.cancelled() => Ok(()),
        served = session(&mut stream, &*screen, &sessions, &own) => served,
    };
    own.cancel();
    if let Err(error) = served {
        tracing::debug!(%error, "a VNC client left");
    }
}

fn broken(reason: &str) -> Error {
    Error::new(ErrorKind::InvalidData, reason.to_owned())
}

async fn session(
    stream: &mut DuplexStream,
    screen: &dyn Screen,
    sessions: &Sessions,
    own: &CancellationToken,
) -> Result<()> {
    authenticate(stream, sessions).await?;
    let shared = stream.read_u8().await? != 0;
    sessions.enter(shared, own);
    let version = screen.version();
    let picture = screen.picture();
    let mut hello = Vec::with_capacity(64);
    hello.extend(picture.width.to_be_bytes());
    hello.extend(picture.height.to_be_bytes());
    hello.extend(PixelFormat::OWN);
    let name = screen.name();
    hello.extend(u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
    hello.extend(name.as_bytes());
    stream.write_all(&hello).await?;
    let mut client = Client::new(picture, version);
    let mut kind = [0];
    loop {
        tokio::select! {
            biased;
            read = stream.read_exact(&mut kind) => {
                read?;
                client.message(kind[0], stream, screen).await?;
            }
            () = tokio::time::sleep(REFRESH), if client.entered => {
                client.refresh(stream, screen).await?;
            }
        }
    }
}

async fn authenticate(stream: &mut DuplexStream, sessions: &Sessions) -> Result<()> {
    stream.write_all(b"RFB 003.008\n").await?;
    let mut version = [0; 12];
    stream.read_exact(&mut version).await?;
    let minor = match &version {
        b"RFB 003.008\n" => 8,
        b"RFB 003.007\n" => 7,
        b"RFB 003.003\n" => 3,
        _ => return Err(broken("unknown protocol version")),
    };
    if minor == 3 {
        stream.write_u32(2).await?;
    } else {
        stream.write_all(&[1, 2]).await?;
        if stream.read_u8().await? != 2 {
            return refuse(stream, minor).await;
        }
    }
    let challenge = rand::random::<[u8; 16]>();
    stream.write_all(&challenge).await?;
    let mut response = [0; 16];
    stream.read_exact(&mut response).await?;
    if !sessions.accepts(challenge, response) {
        return refuse(stream, minor).await;
    }
    stream.write_u32(0).await
}

async fn refuse(stream: &mut DuplexStream, minor: u8) -> Result<()> {
    let mut result = 1_u32.to_be_bytes().to_vec();
    if minor == 8 {
        // With its NUL, as QEMU counts it.
        let reason = b"Authentication failed\0";
        result.extend(22_u32.to_be_bytes());
        result.extend(reason);
    }
    stream.write_all(&result).await?;
    Err(broken("authentication failed"))
}

/// How a client wants its pixels.
#[derive(Clone, Copy, Debug)]
struct PixelFormat {
    bytes: usize,
    big_endian: bool,
    max: [u16; 3],
    shift: [u8; 3],
}

impl PixelFormat {
    /// 32 bits, depth 24, little-endian, true colour, 255 each, shifts 16, 8, 0 (`FACTS` 64).
    const OWN: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];

    /// Reads what the client sent; the flag tells whether it wants a colour map.
    fn parse(wire: [u8; 16]) -> Result<(Self, bool)> {
        let max = |at: usize| u16::from_be_bytes([wire[at], wire[at + 1]]);
        if !matches!(wire[0], 8 | 16 | 32) {
            return Err(broken("pixels of 8, 16 or 32 bits only"));
        }
        if wire[3] == 0 {
            // QEMU answers with a map of 256 colours: 3 bits red, 3 green, 2 blue.
            let map = Self {
                bytes: 1,
                big_endian: false,
                max: [7, 7, 3],
                shift: [0, 3, 6],
            };
            return Ok((map, true));
        }
        let format = Self {
            bytes: usize::from(wire[0] / 8),
            big_endian: wire[2] != 0,
            max: [max(4), max(6), max(8)],
            shift: [wire[10], wire[11], wire[12]],
        };
        if format.shift.iter().any(|shift| *shift > 31) {
            return Err(broken("a colour beyond its pixel"));
        }
        Ok((format, false))
    }

    fn write(&self, pixel: u32, out: &mut Vec<u8>) {
        let mut value = 0_u32;
        for (index, from) in [16, 8, 0].into_iter().enumerate() {
            let colour = (pixel >> from & 0xff) * u32::from(self.max[index]) / 255;
            value |= colour << self.shift[index];
        }
        let bytes = value.to_le_bytes();
        if self.big_endian {
            out.extend(bytes[..self.bytes].iter().rev());
        } else {
            out.extend(&bytes[..self.bytes]);
        }
    }

    /// `SetColourMapEntries` for the map of 256 colours.
    fn colour_map() -> Vec<u8> {
        let mut message = vec![1, 0, 0, 0, 1, 0];
        for index in 0..256_u32 {
            for (max, shift) in [(7, 0), (7, 3), (3, 6)] {
                let colour = (index >> shift & max) * 65535 / max;
                message.extend(u16::try_from(colour).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        message
    }
}

#[derive(Clone, Copy, Debug)]
struct Area {
    x: u16,
    y: u16,
    width: u16,
    height: u16,
}

/// One client: what it asked for and what it was shown.
struct Client {
    format: PixelFormat,
    encoding: i32,
    resizes: bool,
    /// One zlib stream for the whole connection (RFC 6143, 7.7.6 for ZRLE; Zlib likewise).
    zlib: Compress,
    shown: Picture,
    version: u64,
    waiting: Option<Area>,
    control: bool,
    /// It has sent a message, and so speaks RFB.
    entered: bool,
}

impl Client {
    fn new(shown: Picture, version: u64) -> Self {
        Self {
            version,
            format: PixelFormat {
                bytes: 4,
                big_endian: false,
                max: [255; 3],
                shift: [16, 8, 0],
            },
            encoding: RAW,
            resizes: false,
            zlib: Compress::new(Compression::default(), true),
            shown,
            waiting: None,
            control: false,
            entered: false,
        }
    }

    async fn message(&mut self, kind: u8, stream: &mut DuplexStream, screen: &dyn Screen) -> Result<()> {
        self.entered = true;
        match kind {
            0 => {
                let mut wire = [0; 19];
                stream.read_exact(&mut wire).await?;
                let mut format = [0; 16];
                format.copy_from_slice(&wire[3..]);
                let (format, mapped) = PixelFormat::parse(format)?;
                self.format = format;
                if mapped {
                    stream.write_all(&PixelFormat::colour_map()).await?;
                }
            }
            2 => {
                stream.read_u8().await?;
                let count = stream.read_u16().await?;
                let mut encodings = Vec::new();
                for _ in 0..count {
                    encodings.push(stream.read_i32().await?);
                }
                // The client lists what it likes best first.
                self.encoding = encodings
                    .iter()
                    .copied()
                    .find(|encoding| [RAW, ZLIB].contains(encoding))
                    .unwrap_or(RAW);
                self.resizes = encodings.contains(&DESKTOP_SIZE);
            }
            3 => {
                let incremental = stream.read_u8().await? != 0;
                let mut fields = [0; 4];
                for field in &mut fields {
                    *field = stream.read_u16().await?;
                }
                let [x, y, width, height] = fields;
                let area = Area { x, y, width, height };
                if incremental {
                    self.waiting = Some(area);
                } else {
                    let now = screen.picture();
                    self.resize(stream, &now).await?;
                    self.send(stream, area, now).await?;
                }
            }
            4 => {
                let down = stream.read_u8().await? != 0;
                stream.read_u16().await?;
                let symbol = stream.read_u32().await?;
                match symbol {
                    // Control_L, Control_R.
                    0xffe3 | 0xffe4 => self.control = down,
                    _ if down => screen.press(key(symbol, self.control)),
                    _ => {}
                }
            }
            5 => {
                let mut pointer = [0; 5];
                stream.read_exact(&mut pointer).await?;
            }
            6 => {
                let mut padding = [0; 3];
                stream.read_exact(&mut padding).await?;
                let length = stream.read_u32().await?;
                if length > MAX_CUT_TEXT {
                    return Err(broken("a clipboard that large is refused"));
                }
                let mut rest = stream.take(length.into());
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            }
            _ => return Err(broken("unknown message")),
        }
        Ok(())
    }

    async fn refresh(&mut self, stream: &mut DuplexStream, screen: &dyn Screen) -> Result<()> {
        let version = screen.version();
        if version == self.version {
            return Ok(());
        }
        self.version = version;
        let now = screen.picture();
        // A new size is told unasked, as QEMU does.
        self.resize(stream, &now).await?;
        match self.waiting.take() {
            Some(area) => self.send(stream, area, now).await,
            None => Ok(()),
        }
    }

    async fn resize(&mut self, stream: &mut DuplexStream, now: &Picture) -> Result<()> {
        if (now.width, now.height) == (self.shown.width, self.shown.height) || !self.resizes {
            return Ok(());
        }
        let mut message = vec![0, 0, 0, 1, 0, 0, 0, 0];
        message.extend(now.width.to_be_bytes());
        message.extend(now.height.to_be_bytes());
        message.extend(DESKTOP_SIZE.to_be_bytes());
        self.shown = Picture {
            width: now.width,
            height: now.height,
            pixels: Vec::new(),
        };
        stream.write_all(&message).await
    }

    async fn send(&mut self, stream: &mut DuplexStream, area: Area, now: Picture) -> Result<()> {
        // A client that cannot follow a new size keeps the one it knows.
        let (width, height) = (self.shown.width, self.shown.height);
        let left = area.x.min(width);
        let top = area.y.min(height);
        let right = left.saturating_add(area.width).min(width);
        let bottom = top.saturating_add(area.height).min(height);
        let mut pixels = Vec::with_capacity(usize::from(right - left) * usize::from(bottom - top) * self.format.bytes);
        for y in top..bottom {
            for x in left..right {
                let inside = x < now.width && y < now.height;
                let at = usize::from(y) * usize::from(now.width) + usize::from(x);
                self.format.write(if inside { now.pixels[at] } else { 0 }, &mut pixels);
            }
        }
        let mut message = vec![0, 0, 0, 1];
        for field in [left, top, right - left, bottom - top] {
            message.extend(field.to_be_bytes());
        }
        message.extend(self.encoding.to_be_bytes());
        if self.encoding == ZLIB {
            let packed = self.pack(&pixels)?;
            message.extend(u32::try_from(packed.len()).unwrap_or(u32::MAX).to_be_bytes());
            message.extend(packed);
        } else {
            message.extend(pixels);
        }
        self.shown = Picture {
            width,
            height,
            pixels: now.pixels,
        };
        stream.write_all(&message).await
    }

    fn pack(&mut self, pixels: &[u8]) -> Result<Vec<u8>> {
        let mut packed = Vec::with_capacity(pixels.len() / 16 + 256);
        let before = self.zlib.total_in();
        loop {
            let done = usize::try_from(self.zlib.total_in() - before).unwrap_or(pixels.len());
            self.zlib
                .compress_vec(&pixels[done..], &mut packed, FlushCompress::Sync)
                .map_err(Error::other)?;
            let all = self.zlib.total_in() - before == pixels.len() as u64;
            // Room left over means that the flush is complete.
            if all && packed.len() < packed.capacity() {
                return Ok(packed);
            }
            packed.reserve(16 * 1024);
        }
    }
}

/// X11 key symbols (keysymdef.h) that mean something to a boot loader.
fn key(symbol: u32, control: bool) -> Key {
    match symbol {
        0x20..=0x7e => {
            let character = char::from_u32(symbol).unwrap_or(' ');
            if control {
                Key::Ctrl(character.to_ascii_lowercase())
            } else {
                Key::Char(character)
            }
        }
        0xff08 => Key::Backspace,
        0xff09 => Key::Tab,
        0xff0d | 0xff8d => Key::Enter,
        0xff1b => Key::Escape,
        0xff50 => Key::Home,
        0xff51 => Key::Left,
        0xff52 => Key::Up,
        0xff53 => Key::Right,
        0xff54 => Key::Down,
        0xff55 => Key::PageUp,
        0xff56 => Key::PageDown,
        0xff57 => Key::End,
        0xffff => Key::Delete,
        0xffbe..=0xffc9 => Key::Function(u8::try_from(symbol - 0xffbd).unwrap_or(1)),
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests;
