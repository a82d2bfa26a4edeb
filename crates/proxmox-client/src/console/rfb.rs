//! The client's half of RFB 3.8, as much of it as a picture needs: password, Raw, Zlib, changes of size.
//!
//! # Source
//! RFC 6143; `pve/traces/vnc.json`.

use bytes::{Bytes, BytesMut};
use des::cipher::{Array, BlockCipherEncrypt as _, KeyInit as _};
use flate2::{Decompress, FlushDecompress};
use secrecy::{ExposeSecret as _, SecretString};

use super::screen::ScreenImage;
use crate::{error::Error, transport::websocket::Socket};

/// 4K; a larger screen is refused, so that a server cannot ask for any memory it likes.
const MAX_PIXELS: usize = 3840 * 2160;
/// Messages of one capture, and changes of size among them. QEMU needs one of each; a server could send others for ever, and the
/// latter cost work.
const MAX_MESSAGES: usize = 4096;
const MAX_RESIZES: usize = 16;
/// Name of the desktop, clipboard, colour map: read over, up to so many bytes.
const MAX_ASIDE: usize = 1 << 20;

const RAW: i32 = 0;
const ZLIB: i32 = 6;
const DESKTOP_SIZE: i32 = -223;

/// `SetPixelFormat`: 32 bits, depth 24, little-endian, 255 each, red at 16, green at 8, blue at 0. QEMU's own (`FACTS` 64), but
/// said, so that it need not be believed.
const SET_PIXEL_FORMAT: [u8; 20] = [0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0];
const BYTES: usize = 4;

/// A session past its authentication.
#[derive(Debug)]
pub(super) struct Rfb {
    wire: Wire,
    picture: Picture,
    /// One zlib stream for the whole session.
    zlib: Decompress,
    /// Changes of size in this capture.
    resizes: usize,
}

/// Bytes of a websocket, whatever its messages were.
#[derive(Debug)]
struct Wire {
    socket: Socket,
    bytes: BytesMut,
}

impl Wire {
    async fn take(&mut self, count: usize) -> Result<Bytes, Error> {
        while self.bytes.len() < count {
            match self.socket.next().await? {
                Some(more) => self.bytes.extend_from_slice(&more),
                None => return Err(self.socket.ended("before all of the screen was there")),
            }
        }
        Ok(self.bytes.split_to(count).freeze())
    }

    async fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.take(N).await?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    async fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>().await?[0])
    }

    async fn u16(&mut self) -> Result<u16, Error> {
        Ok(u16::from_be_bytes(self.array().await?))
    }

    async fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_be_bytes(self.array().await?))
    }

    /// Reads over bytes that mean nothing here.
    async fn skip(&mut self, count: usize) -> Result<(), Error> {
        if count > MAX_ASIDE {
            return Err(self.wrong("something beside the picture is too large"));
        }
        self.take(count).await.map(drop)
    }

    fn wrong(&self, reason: &str) -> Error {
        self.socket.unreadable(reason)
    }
}

#[derive(Debug, Default)]
struct Picture {
    width: u16,
    height: u16,
    rgb: Vec<u8>,
    /// Pixels of this capture that have come.
    fresh: Vec<bool>,
    missing: usize,
}

impl Picture {
    fn resize(&mut self, width: u16, height: u16) -> bool {
        let pixels = usize::from(width) * usize::from(height);
        if pixels == 0 || pixels > MAX_PIXELS {
            return false;
        }
        (self.width, self.height) = (width, height);
        self.rgb = vec![0; pixels * 3];
        self.expect_all();
        true
    }

    fn expect_all(&mut self) {
        self.missing = usize::from(self.width) * usize::from(self.height);
        self.fresh.clear();
        self.fresh.resize(self.missing, false);
    }

    fn holds(&self, x: u16, y: u16, width: u16, height: u16) -> bool {
        x.checked_add(width).is_some_and(|right| right <= self.width)
            && y.checked_add(height).is_some_and(|bottom| bottom <= self.height)
    }

    /// Pixels of a rectangle that the picture holds.
    fn put(&mut self, x: u16, y: u16, width: u16, pixels: &[u8]) {
        if width == 0 {
            return;
        }
        for (row, line) in pixels.chunks(usize::from(width) * BYTES).enumerate() {
            let start = (usize::from(y) + row) * usize::from(self.width) + usize::from(x);
            for (column, pixel) in line.chunks_exact(BYTES).enumerate() {
                let at = start + column;
                self.rgb[at * 3..at * 3 + 3].copy_from_slice(&[pixel[2], pixel[1], pixel[0]]);
                if !std::mem::replace(&mut self.fresh[at], true) {
                    self.missing -= 1;
                }
            }
        }
    }
}

/// The answer to a challenge: DES with the password as key, each of its bytes mirrored (RFC 6143, 7.2.2, and its erratum).
fn respond(password: &str, challenge: [u8; 16]) -> [u8; 16] {
    let mut key = [0; 8];
    for (slot, byte) in key.iter_mut().zip(password.bytes()) {
        *slot = byte.reverse_bits();
    }
    let cipher = des::Des::new(&Array::from(key));
    let mut answer = challenge;
    for half in answer.chunks_exact_mut(8) {
        let mut block = [0; 8];
        block.copy_from_slice(half);
        let mut block = Array::from(block);
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    answer
}

impl Rfb {
    /// Goes through version, password and greeting.
    pub(super) async fn begin(socket: Socket, password: &SecretString) -> Result<Self, Error> {
        let mut wire = Wire {
            socket,
            bytes: BytesMut::new(),
        };
        let version: [u8; 12] = wire.array().await?;
        if !version.starts_with(b"RFB 003.") || version[11] != b'\n' {
            return Err(wire.wrong("it is not the beginning of RFB"));
        }
        if version[8..11] < b"008"[..] {
            return Err(wire.wrong("the server's RFB is older than 3.8"));
        }
        wire.socket.send(b"RFB 003.008\n").await?;
        let count = usize::from(wire.u8().await?);
        if count == 0 {
            let reason = reason(&mut wire).await?;
            return Err(wire.wrong(&format!("the VNC server refuses: {reason}")));
        }
        if !wire.take(count).await?.contains(&2) {
            return Err(wire.wrong("the VNC server wants another authentication than a password"));
        }
        wire.socket.send(&[2]).await?;
        let challenge = wire.array().await?;
        wire.socket.send(&respond(password.expose_secret(), challenge)).await?;
        if wire.u32().await? != 0 {
            let reason = reason(&mut wire).await?;
            return Err(Error::Console {
                reason: format!(
                    "{reason}: PVE has one VNC password a VM, and somebody else may just have opened its screen"
                ),
            });
        }
        // Shared: whoever is watching may stay.
        wire.socket.send(&[1]).await?;
        let (width, height) = (wire.u16().await?, wire.u16().await?);
        wire.skip(16).await?;
        let name = wire.u32().await?;
        wire.skip(usize::try_from(name).unwrap_or(usize::MAX)).await?;
        let mut picture = Picture::default();
        if !picture.resize(width, height) {
            return Err(wire.wrong(&format!("a screen of {width} by {height} pixels")));
        }
        let mut setup = SET_PIXEL_FORMAT.to_vec();
        setup.extend([2, 0, 0, 3]);
        for encoding in [ZLIB, RAW, DESKTOP_SIZE] {
            setup.extend(encoding.to_be_bytes());
        }
        wire.socket.send(&setup).await?;
        Ok(Self {
            wire,
            picture,
            zlib: Decompress::new(true),
            resizes: 0,
        })
    }

    /// Asks for the whole screen until every pixel of it has come once.
    pub(super) async fn capture(&mut self) -> Result<ScreenImage, Error> {
        self.picture.expect_all();
        self.resizes = 0;
        self.ask().await?;
        let mut messages = 0;
        while self.picture.missing > 0 {
            messages += 1;
            if messages > MAX_MESSAGES {
                return Err(self.wire.wrong("the screen never came as a whole"));
            }
            match self.wire.u8().await? {
                0 => self.update().await?,
                // A colour map, a bell, a clipboard.
                1 => {
                    self.wire.skip(3).await?;
                    let colours = self.wire.u16().await?;
                    self.wire.skip(usize::from(colours) * 6).await?;
                }
                2 => {}
                3 => {
                    self.wire.skip(3).await?;
                    let length = self.wire.u32().await?;
                    self.wire.skip(usize::try_from(length).unwrap_or(usize::MAX)).await?;
                }
                other => return Err(self.wire.wrong(&format!("RFB has no message {other}"))),
            }
        }
        Ok(ScreenImage {
            width: self.picture.width,
            height: self.picture.height,
            rgb: self.picture.rgb.clone(),
        })
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let mut request = vec![3, 0, 0, 0, 0, 0];
        request.extend(self.picture.width.to_be_bytes());
        request.extend(self.picture.height.to_be_bytes());
        self.wire.socket.send(&request).await
    }

    async fn update(&mut self) -> Result<(), Error> {
        self.wire.skip(1).await?;
        let rectangles = self.wire.u16().await?;
        let mut resized = false;
        for _ in 0..rectangles {
            let (x, y) = (self.wire.u16().await?, self.wire.u16().await?);
            let (width, height) = (self.wire.u16().await?, self.wire.u16().await?);
            let encoding = i32::from_be_bytes(self.wire.array().await?);
            if encoding == DESKTOP_SIZE {
                resized = true;
                self.resizes += 1;
                if self.resizes > MAX_RESIZES {
                    return Err(self.wire.wrong("the screen's size never comes to rest"));
                }
                if !self.picture.resize(width, height) {
                    return Err(self.wire.wrong(&format!("a screen of {width} by {height} pixels")));
                }
                continue;
            }
            if !self.picture.holds(x, y, width, height) {
                return Err(self.wire.wrong("a rectangle beyond the screen"));
            }
            let length = usize::from(width) * usize::from(height) * BYTES;
            let pixels = match encoding {
                RAW => self.wire.take(length).await?,
                ZLIB => self.unpack(length).await?,
                other => {
                    return Err(self
                        .wire
                        .wrong(&format!("RFB encoding {other}, which was not asked for")));
                }
            };
            self.picture.put(x, y, width, &pixels);
        }
        // A new size is empty until it is asked for.
        if resized { self.ask().await } else { Ok(()) }
    }

    async fn unpack(&mut self, length: usize) -> Result<Bytes, Error> {
        let packed = usize::try_from(self.wire.u32().await?).unwrap_or(usize::MAX);
        // What cannot be packed grows by a few bytes only.
        if packed > length + length / 100 + 1024 {
            return Err(self.wire.wrong("packed pixels are larger than plain ones"));
        }
        let packed = self.wire.take(packed).await?;
        let mut pixels = Vec::with_capacity(length);
        let before = self.zlib.total_in();
        loop {
            let used = usize::try_from(self.zlib.total_in() - before).unwrap_or(packed.len());
            let (had, fed) = (pixels.len(), used);
            let result = self
                .zlib
                .decompress_vec(&packed[used..], &mut pixels, FlushDecompress::Sync);
            if result.is_err() {
                return Err(self.wire.wrong("packed pixels cannot be unpacked"));
            }
            let used = usize::try_from(self.zlib.total_in() - before).unwrap_or(packed.len());
            if pixels.len() == length {
                // The flush marker behind the last pixel belongs to the stream as well.
                if used < packed.len() {
                    let mut none = [0; 1];
                    let rest = self.zlib.decompress(&packed[used..], &mut none, FlushDecompress::Sync);
                    let whole = self.zlib.total_in() - before == packed.len() as u64;
                    if rest.is_err() || !whole {
                        return Err(self.wire.wrong("packed pixels are more than their rectangle"));
                    }
                }
                return Ok(pixels.into());
            }
            if pixels.len() == had && used == fed {
                return Err(self.wire.wrong("packed pixels are fewer than their rectangle"));
            }
        }
    }
}

async fn reason(wire: &mut Wire) -> Result<String, Error> {
    let length = usize::try_from(wire.u32().await?).unwrap_or(usize::MAX);
    if length > 4096 {
        return Err(wire.wrong("the reason for a refusal is too long"));
    }
    let text = wire.take(length).await?;
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    /// Challenges and answers recorded from the real server with a client that it let in (`pve/traces/vnc.json`).
    #[test]
    fn recorded_answers_fit() {
        for (password, challenge, answer) in [
            ("$_?K*T*L", "lj1zpO8GiEpYD5yQ8CdwzA==", "FqBPRGKdIcQLr7OtQCncYw=="),
            ("*M,@Q3MJ", "66vabsxbmMMg1xgbKk6zBA==", "TUnXcbFnJPIctttxAELK+Q=="),
            ("RR6U#7UK", "uSPBml+SBNFTRxff5W6jpw==", "Z9Lgkfpl6xE4DgWfGfpyRA=="),
        ] {
            let block =
                |text: &str| -> [u8; 16] { STANDARD.decode(text).expect("base64").try_into().expect("sixteen") };
            assert_eq!(respond(password, block(challenge)), block(answer), "{password}");
        }
    }

    #[test]
    fn a_picture_is_whole_when_each_pixel_came_once() {
        let mut picture = Picture::default();
        assert!(picture.resize(2, 2));
        assert!(!picture.holds(1, 0, 2, 1) && !picture.holds(0, u16::MAX, 1, 2));
        picture.put(0, 0, 2, &[3, 2, 1, 0, 6, 5, 4, 0]);
        picture.put(0, 0, 2, &[3, 2, 1, 0, 6, 5, 4, 0]);
        assert_eq!(picture.missing, 2);
        picture.put(1, 1, 1, &[9, 8, 7, 0]);
        assert_eq!(picture.missing, 1);
        assert_eq!(picture.rgb, [1, 2, 3, 4, 5, 6, 0, 0, 0, 7, 8, 9]);
        for (width, height) in [(0, 5), (5, 0), (65535, 65535), (3841, 2160)] {
            assert!(!picture.resize(width, height), "{width}x{height}");
        }
    }
}
