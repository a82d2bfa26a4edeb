//! A reader of ISO 9660 volumes: label, and files by path, with plain, Rock Ridge or Joliet names.
//!
//! Written from ECMA-119, the Joliet specification and IEEE P1282; shares nothing with any writer.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::files::Content;

const SECTOR: usize = 2048;
/// Descriptors begin here; a few suffice, the set is closed by type 255.
const FIRST_DESCRIPTOR: u64 = 16;
const MAX_DESCRIPTORS: u64 = 32;
/// A directory larger than this is not one we need to read.
const MAX_DIRECTORY: u32 = 1 << 20;
/// A kickstart larger than this is none.
const MAX_FILE: u32 = 4 << 20;
/// Bytes that are hashed at a time.
const PART_BYTES: usize = 256 * 1024;

/// A directory or file as a directory record points to it.
#[derive(Clone, Copy, Debug)]
struct Extent {
    sector: u32,
    bytes: u32,
    is_dir: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// ISO 9660, and Rock Ridge where a record carries it.
    Plain,
    /// UCS-2, big-endian.
    Joliet,
}

/// One volume in a file or in memory.
#[derive(Debug)]
pub(super) struct Iso<R> {
    source: R,
    label: String,
    trees: Vec<(Names, Extent)>,
}

/// A volume in a file.
pub(super) type IsoFile = Iso<File>;

impl Iso<File> {
    /// Opens the volume in a file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no ISO 9660 volume.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::new(File::open(path)?)
    }
}

impl<R: Read + Seek> Iso<R> {
    /// Reads the volume descriptors.
    ///
    /// # Errors
    /// The source cannot be read, or holds no ISO 9660 volume.
    pub(super) fn new(mut source: R) -> io::Result<Self> {
        let mut label = None;
        let mut trees = Vec::new();
        for number in 0..MAX_DESCRIPTORS {
            let mut sector = [0_u8; SECTOR];
            source.seek(SeekFrom::Start((FIRST_DESCRIPTOR + number) * SECTOR as u64))?;
            source.read_exact(&mut sector)?;
            if &sector[1..6] != b"CD001" {
                return Err(invalid("no ISO 9660 volume descriptor"));
            }
            match sector[0] {
                1 => {
                    label = Some(
                        String::from_utf8_lossy(&sector[40..72])
                            .trim_end_matches([' ', '\0'])
                            .to_owned(),
                    );
                    trees.push((Names::Plain, root_of(&sector)?));
                }
                // The three escape sequences of Joliet's levels 1 to 3.
                2 if [b"%/@", b"%/C", b"%/E"].iter().any(|escape| &sector[88..91] == *escape) => {
                    trees.push((Names::Joliet, root_of(&sector)?));
                }
                255 => break,
                _ => {}
            }
        }
        let label = label.ok_or_else(|| invalid("no primary volume descriptor"))?;
        Ok(Self { source, label, trees })
    }

    /// The primary volume's label.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Reads a file by its absolute path; case does not matter. `None` if there is no such file.
    ///
    /// # Errors
    /// The volume is damaged, or the file larger than any kickstart.
    pub(super) fn read(&mut self, path: &str) -> io::Result<Option<Vec<u8>>> {
        for (names, root) in self.trees.clone() {
            let mut at = Some(root);
            for part in path.split('/').filter(|part| !part.is_empty()) {
                at = match at {
                    Some(dir) if dir.is_dir => self.lookup(names, dir, part)?,
                    _ => None,
                };
            }
            if let Some(file) = at.filter(|extent| !extent.is_dir) {
                if file.bytes > MAX_FILE {
                    return Err(invalid("file too large"));
                }
                return self.bytes(file).map(Some);
            }
        }
        Ok(None)
    }

    /// The files at the top of the volume, by their longest name: that of Rock Ridge or Joliet where there is one. Of a file larger than
    /// `keep` bytes only size and SHA-256 are read.
    ///
    /// # Errors
    /// The volume is damaged.
    pub(super) fn files(&mut self, keep: u64) -> io::Result<Vec<(String, Content)>> {
        let Some((names, root)) = self.trees.first().copied() else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for (name, extent) in self.entries(names, root)? {
            if let (Some(name), false) = (name.last(), extent.is_dir) {
                let content = if u64::from(extent.bytes) > keep {
                    self.digest(extent)?
                } else {
                    Content::Bytes(self.bytes(extent)?.into())
                };
                files.push((name.clone(), content));
            }
        }
        Ok(files)
    }

    fn digest(&mut self, extent: Extent) -> io::Result<Content> {
        self.source
            .seek(SeekFrom::Start(u64::from(extent.sector) * SECTOR as u64))?;
        let mut hash = Sha256::new();
        let mut part = vec![0; PART_BYTES];
        let mut left = extent.bytes as usize;
        while left > 0 {
            let part = &mut part[..left.min(PART_BYTES)];
            self.source.read_exact(part)?;
            hash.update(&*part);
            left -= part.len();
        }
        Ok(Content::Digest {
            size: extent.bytes.into(),
            sha256: hex::encode(hash.finalize()),
        })
    }

    fn bytes(&mut self, extent: Extent) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; extent.bytes as usize];
        self.source
            .seek(SeekFrom::Start(u64::from(extent.sector) * SECTOR as u64))?;
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn lookup(&mut self, names: Names, dir: Extent, wanted: &str) -> io::Result<Option<Extent>> {
        let entries = self.entries(names, dir)?;
        let found = entries
            .into_iter()
            .find(|(names, _)| names.iter().any(|name| name.eq_ignore_ascii_case(wanted)));
        Ok(found.map(|(_, extent)| extent))
    }

    /// What a directory holds: the names of each entry, and where it lies.
    fn entries(&mut self, names: Names, dir: Extent) -> io::Result<Vec<(Vec<String>, Extent)>> {
        if dir.bytes > MAX_DIRECTORY {
            return Err(invalid("directory too large"));
        }
        let bytes = self.bytes(dir)?;
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let length = usize::from(bytes[at]);
            if length == 0 {
                // Records do not cross sectors: the rest of this one is padding.
                at = (at / SECTOR + 1) * SECTOR;
                continue;
            }
            let record = bytes
                .get(at..at + length)
                .ok_or_else(|| invalid("directory record crosses its end"))?;
            at += length;
            found.push(read_record(names, record)?);
        }
        Ok(found)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Little-endian half of a both-endian 32-bit number (ECMA-119 7.3.3).
fn number(bytes: &[u8], at: usize) -> io::Result<u32> {
    let field = bytes.get(at..at + 4).and_then(|field| <[u8; 4]>::try_from(field).ok());
    field.map(u32::from_le_bytes).ok_or_else(|| invalid("short record"))
}

fn root_of(descriptor: &[u8]) -> io::Result<Extent> {
    let record = descriptor.get(156..190).ok_or_else(|| invalid("short descriptor"))?;
    Ok(Extent {
        sector: number(record, 2)?,
        bytes: number(record, 10)?,
        is_dir: true,
    })
}

/// The names a directory record answers to, and where it points.
fn read_record(names: Names, record: &[u8]) -> io::Result<(Vec<String>, Extent)> {
    let short = || invalid("short directory record");
    let flags = *record.get(25).ok_or_else(short)?;
    let extent = Extent {
        sector: number(record, 2)?,
        bytes: number(record, 10)?,
        is_dir: flags & 2 != 0,
    };
    let name_length = usize::from(*record.get(32).ok_or_else(short)?);
    let name = record.get(33..33 + name_length).ok_or_else(short)?;
    if matches!(name, [0 | 1]) {
        return Ok((Vec::new(), extent));
    }
    let text = match names {
        Names::Plain => String::from_utf8_lossy(name).into_owned(),
        Names::Joliet => {
            let units: Vec<u16> = name
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                .collect();
            String::from_utf16_lossy(&units)
        }
    };
    // `KS.CFG;1` is version 1 of `KS.CFG`; a name without extension still ends in a dot.
    let base = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_owned();
    let mut found = vec![base];
    if names == Names::Plain {
        // The system use area begins on an even offset after the name.
        let system_use = record
            .get(33 + name_length + (1 - name_length % 2)..)
            .unwrap_or_default();
        if let Some(name) = rock_ridge_name(system_use) {
            found.push(name);
        }
    }
    Ok((found, extent))
}

/// The alternate name that `NM` entries spell. Continuation areas (`CE`) are not followed: a name that short of one is
/// longer than any kickstart's.
fn rock_ridge_name(mut entries: &[u8]) -> Option<String> {
    let mut name = Vec::new();
    while let [kind_a, kind_b, length, _version, ..] = entries {
        let length = usize::from(*length);
        let entry = entries.get(..length).filter(|_| length >= 4)?;
        if (*kind_a, *kind_b) == (b'N', b'M') {
            name.extend_from_slice(entry.get(5..).unwrap_or_default());
        }
        entries = &entries[length..];
    }
    (!name.is_empty()).then(|| String::from_utf8_lossy(&name).into_owned())
}

#[cfg(test)]
#[path = "iso_tests.rs"]
pub(super) mod tests;
