//! The readers of the simulated guest with what must hold of them; see [`crate::fuzzing`].

use std::io::Cursor;
use std::str::from_utf8;

use super::iso::Iso;
use super::{keys, kickstart as reader, pattern};

pub use super::shell::fuzz as shell;

const SECTOR: usize = 2048;
/// Sectors of the volume that inputs change.
const SECTORS: usize = 24;

/// Is it a name that `sendkey` takes?
pub fn is_key(name: &str) -> bool {
    keys::parse(name).is_ok()
}

/// ISO 9660 volumes. An input is a list of changes to a small volume: where (2 bytes), how many (1), the bytes.
///
/// # Panics
/// When a property does not hold.
pub fn iso(data: &[u8]) {
    let mut image = volume();
    let mut rest = data;
    while let [low, high, length, tail @ ..] = rest {
        // Nothing is read before sector 16.
        let at = 16 * SECTOR + usize::from(u16::from_le_bytes([*low, *high])) % (image.len() - 16 * SECTOR);
        let length = usize::from(*length).min(tail.len()).min(image.len() - at);
        image[at..at + length].copy_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    let Ok(mut iso) = Iso::new(Cursor::new(&image)) else {
        return;
    };
    assert!(iso.label().len() <= 3 * 32, "a label has 32 bytes");
    for path in [
        "/ks.cfg",
        "/EFI/BOOT/grub.cfg",
        "/isolinux/isolinux.cfg",
        "/",
        "",
        "/no/such/../file",
    ] {
        if let Ok(Some(bytes)) = iso.read(path) {
            assert!(bytes.len() <= image.len(), "{path} is larger than the volume");
            assert_eq!(
                iso.read(path).ok().flatten(),
                Some(bytes),
                "{path} reads the same again"
            );
        }
    }
}

/// A volume with plain, Rock Ridge and Joliet names, and a folder.
fn volume() -> Vec<u8> {
    let mut image = vec![0; SECTORS * SECTOR];
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    for (sector, kind, root) in [(16, 1, 19), (17, 2, 21), (18, 255, 0)] {
        let at = sector * SECTOR;
        image[at] = kind;
        image[at + 1..at + 6].copy_from_slice(b"CD001");
        image[at + 40..at + 46].copy_from_slice(b"OEMDRV");
        image[at + 88..at + 91].copy_from_slice(b"%/E");
        let root = record(root, 2048, 2, &[0], &[]);
        image[at + 156..at + 156 + root.len()].copy_from_slice(&root);
    }
    let name = |text: &str| {
        let mut entry = vec![b'N', b'M', u8::try_from(5 + text.len()).unwrap_or(u8::MAX), 1, 0];
        entry.extend_from_slice(text.as_bytes());
        entry
    };
    let directories: [(usize, Vec<Vec<u8>>); 3] = [
        (
            19,
            vec![
                record(19, 2048, 2, &[0], &[]),
                record(23, 5, 0, b"KS.CFG;1", &name("ks.cfg")),
                record(20, 2048, 2, b"EFI", &[]),
                record(22, 2048, 2, b"ISOLINUX", &name("isolinux")),
            ],
        ),
        (20, vec![record(22, 2048, 2, b"BOOT", &[])]),
        (
            22,
            vec![
                record(23, 5, 0, b"GRUB.CFG;1", &name("grub.cfg")),
                record(23, 5, 0, b"ISOLINUX.CFG;1", &[]),
            ],
        ),
    ];
    let joliet = vec![
        record(23, 5, 0, &utf16("ks.cfg"), &[]),
        record(20, 2048, 2, &utf16("EFI"), &[]),
    ];
    for (sector, records) in directories.into_iter().chain([(21, joliet)]) {
        let bytes = records.concat();
        image[sector * SECTOR..sector * SECTOR + bytes.len()].copy_from_slice(&bytes);
    }
    image[23 * SECTOR..23 * SECTOR + 5].copy_from_slice(b"text\n");
    image
}

fn record(sector: u32, bytes: u32, flags: u8, name: &[u8], system_use: &[u8]) -> Vec<u8> {
    let mut record = vec![0; 33];
    record[2..6].copy_from_slice(&sector.to_le_bytes());
    record[10..14].copy_from_slice(&bytes.to_le_bytes());
    record[25] = flags;
    record[32] = u8::try_from(name.len()).unwrap_or(u8::MAX);
    record.extend_from_slice(name);
    for part in [&[][..], system_use] {
        record.extend_from_slice(part);
        if record.len() % 2 == 1 {
            record.push(0);
        }
    }
    record[0] = u8::try_from(record.len()).unwrap_or(u8::MAX);
    record
}

/// Kickstarts: line, name and words of every command, if the installer takes the text.
///
/// # Panics
/// When a property does not hold.
pub fn kickstart(data: &[u8]) -> Option<Vec<(usize, String, Vec<String>)>> {
    let text = from_utf8(data).ok()?;
    let lines = text.lines().count();
    let kickstart = match reader::parse(text) {
        Ok(kickstart) => kickstart,
        Err(error) => {
            assert!((1..=lines).contains(&error.line), "{error:?} is outside of the text");
            return None;
        }
    };
    assert!(
        kickstart
            .commands
            .iter()
            .all(|command| (1..=lines).contains(&command.line))
    );
    let _ = (kickstart.questions(true), kickstart.questions(false));
    for command in &kickstart.commands {
        for option in ["name", "username", "groups"] {
            let _ = (command.option(option), command.flag(option));
        }
        assert!(command.positional(&["username"]).len() <= command.args.len());
    }
    let commands = kickstart.commands.into_iter();
    Some(
        commands
            .map(|command| (command.line, command.name, command.args))
            .collect(),
    )
}

/// Shell patterns, and those of `dnf`, in a time that grows with their length only.
pub(super) fn patterns(text: &str) {
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    let fits = pattern::matches_pattern(pattern, name);
    assert!(
        !fits || pattern::matches_pattern(&format!("*{pattern}"), name),
        "{pattern:?} {name:?}"
    );
    assert!(pattern::matches_pattern("*", name));
}
