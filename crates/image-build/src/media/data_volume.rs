//! A volume that carries one file of any size into a guest, and the script that takes the file out of it there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use hadris_iso::read::PathSeparator;
use hadris_iso::write::{FileSource, InputEntry, InputEntryKind, InputTree, IsoImageWriter};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::volume::{SECTOR, options};
use crate::communicator::Source;

/// What the file is called on the volume.
const NAME: &str = "file";
/// Bytes that are hashed at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Takes the file out: label `$1`, SHA-256 `$2`, mode `$3`, destination `$4`. It is written beside its destination and moved there once
/// it is what was sent. A drive tells of a new medium at the next look at it, and Linux looks every two seconds.
pub const TAKE_FROM_VOLUME: &str = r#"umask 077; part="$4.part"; at="$4.volume"; n=0
until device="$(blkid -c /dev/null -L "$1")" && [ -n "$device" ]; do
    n=$((n+1)); if [ $n -gt 30 ]; then echo "no drive shows the volume $1" >&2; exit 3; fi; sleep 1
done
mkdir -p "$at" && mount -o ro,nosuid,nodev,noexec "$device" "$at" || exit
cp "$at/file" "$part"; status=$?
umount "$at" && rmdir "$at"
[ $status -eq 0 ] || exit $status
case "$(sha256sum "$part")" in "$2 "* | "\\$2 "*) ;; *) rm -f "$part"; echo "what arrived has another SHA-256" >&2; exit 4 ;; esac
chmod "$3" "$part" && mv -f "$part" "$4""#;

/// A volume with one file on it, in a temporary file of this machine that goes with it.
#[derive(Debug)]
pub struct DataVolume {
    /// The volume's label, which no other content has.
    pub label: String,
    /// The file's SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// The volume.
    pub image: NamedTempFile,
}

impl DataVolume {
    /// Lays the volume out. It takes the file's size once more on this machine's disk, and no memory beyond a buffer.
    ///
    /// # Errors
    /// What reading the file or writing the volume said. Blocks: call it off the async threads.
    pub fn of(source: &Source) -> io::Result<Self> {
        let (kind, sha256) = match source {
            Source::Bytes(bytes) => {
                let sum = hex::encode(Sha256::digest(bytes));
                (InputEntryKind::File(bytes.to_vec()), sum)
            }
            Source::File(path) => (
                InputEntryKind::Source(FileSource::from_path(path)?),
                hash(&mut File::open(path)?)?,
            ),
        };
        let label = format!("K3SIMAGE_{}", sha256[..12].to_uppercase());
        let options = options(&label, None);
        let image = NamedTempFile::new().map_err(in_temporary_folder)?;
        let mut entry = InputEntry::file(NAME, Vec::new());
        entry.kind = kind;
        let tree = InputTree::new(PathSeparator::ForwardSlash, vec![entry]);
        let mut why = None;
        let target = Target {
            file: image.reopen()?,
            why: &mut why,
        };
        let written = IsoImageWriter::create(target, tree, options).map(|target| target.file);
        let mut written = written.map_err(|error| match why {
            Some(error) => in_temporary_folder(error),
            None => io::Error::other(error),
        })?;
        // A drive has whole sectors.
        let length = written.seek(SeekFrom::End(0))?;
        written
            .set_len(length.next_multiple_of(SECTOR as u64))
            .map_err(in_temporary_folder)?;
        Ok(Self { label, sha256, image })
    }
}

/// The volume's file. Keeps why it could not be written: the writer of the volume tells some errors as another one.
struct Target<'a> {
    file: File,
    why: &'a mut Option<io::Error>,
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| {
            let kind = error.kind();
            *self.why = Some(error);
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for Target<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for Target<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Says where there was no room, and how another place is named.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn in_temporary_folder(error: io::Error) -> io::Error {
    let folder = std::env::temp_dir();
    let text = format!("writing to {}, which TMPDIR can name: {error}", folder.display());
    io::Error::new(error.kind(), text)
}

fn hash(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_reads_the_file_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        let content: Vec<u8> = (0..300_001_u32).map(|n| (n * 7 % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let volumes = [Source::File(path), Source::Bytes(content.clone().into())].map(|source| {
            let volume = DataVolume::of(&source).unwrap();
            assert_eq!(volume.sha256, hex::encode(Sha256::digest(&content)));
            assert!(volume.label.len() <= 32, "{}", volume.label);
            let bytes = std::fs::read(volume.image.path()).unwrap();
            assert_eq!(bytes.len() % SECTOR, 0);
            let label = &bytes[16 * SECTOR + 40..16 * SECTOR + 72];
            assert_eq!(label.trim_ascii_end(), volume.label.as_bytes());
            volume
        });
        for volume in &volumes {
            let output = std::process::Command::new("isoinfo")
                .args(["-R", "-x", "/file", "-i"])
                .arg(volume.image.path())
                .output();
            let Ok(output) = output else {
                let required = std::env::var_os("CI").is_some_and(|ci| ci == "true");
                assert!(!required, "isoinfo is missing: apt-get install genisoimage");
                println!("SKIPPED: isoinfo is not installed");
                return;
            };
            assert!(output.status.success(), "{output:?}");
            assert!(output.stdout == content, "another content");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let error = DataVolume::of(&Source::File("/nowhere/x".into())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
