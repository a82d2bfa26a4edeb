//! A small real ISO 9660 volume with the label of an AlmaLinux medium: enough for a guest to boot from, too little to
//! install anything real.

/// Bytes of a sector.
const SECTOR: usize = 2048;

/// Sectors before the first descriptor are the system's own.
const DESCRIPTORS: usize = 16;

/// The label that AlmaLinux gives the medium of a file name: `AlmaLinux-9-3-x86_64-minimal` for
/// `AlmaLinux-9.3-x86_64-minimal.iso`, and that of 9.3 for a name that says nothing.
pub(crate) fn label_of(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let known = stem
        .strip_prefix("AlmaLinux-")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let label = if known {
        stem.replacen('.', "-", 1)
    } else {
        "AlmaLinux-9-3-x86_64-minimal".to_owned()
    };
    // A volume identifier has 32 bytes.
    label.chars().filter(char::is_ascii).take(32).collect()
}

/// A volume with `label` and one text file, `/README.TXT`.
pub(crate) fn volume(label: &str, readme: &str) -> Vec<u8> {
    // 16 primary descriptor, 17 terminator, 18 and 19 path tables, 20 root directory, 21 and on the file.
    let file_sectors = readme.len().div_ceil(SECTOR).max(1);
    let sectors = 21 + file_sectors;
    let mut image = vec![0; sectors * SECTOR];
    let root = record(20, SECTOR, true, &[0]);

    let primary = &mut image[DESCRIPTORS * SECTOR..(DESCRIPTORS + 1) * SECTOR];
    primary[0] = 1;
    primary[1..6].copy_from_slice(b"CD001");
    primary[6] = 1;
    padded(&mut primary[8..40], "LINUX");
    padded(&mut primary[40..72], label);
    both(&mut primary[80..88], sectors);
    both16(&mut primary[120..124], 1);
    both16(&mut primary[124..128], 1);
    both16(&mut primary[128..132], SECTOR);
    both(&mut primary[132..140], 10);
    primary[140..144].copy_from_slice(&18_u32.to_le_bytes());
    primary[148..152].copy_from_slice(&19_u32.to_be_bytes());
    primary[156..156 + root.len()].copy_from_slice(&root);
    for range in [190..318, 318..446, 446..574, 574..702, 702..739, 739..776, 776..813] {
        padded(&mut primary[range], "");
    }
    for start in [813, 830, 847, 864] {
        // No date: sixteen zero digits and a zero offset.
        primary[start..start + 16].fill(b'0');
    }
    primary[881] = 1;

    let terminator = &mut image[17 * SECTOR..];
    terminator[0] = 255;
    terminator[1..6].copy_from_slice(b"CD001");
    terminator[6] = 1;

    for (sector, at, parent) in [
        (18, 20_u32.to_le_bytes(), 1_u16.to_le_bytes()),
        (19, 20_u32.to_be_bytes(), 1_u16.to_be_bytes()),
    ] {
        let table = &mut image[sector * SECTOR..];
        table[0] = 1;
        table[2..6].copy_from_slice(&at);
        table[6..8].copy_from_slice(&parent);
    }

    let mut directory = Vec::new();
    directory.extend(record(20, SECTOR, true, &[0]));
    directory.extend(record(20, SECTOR, true, &[1]));
    directory.extend(record(21, readme.len(), false, b"README.TXT;1"));
    image[20 * SECTOR..20 * SECTOR + directory.len()].copy_from_slice(&directory);
    image[21 * SECTOR..21 * SECTOR + readme.len()].copy_from_slice(readme.as_bytes());
    image
}

/// A directory record.
fn record(sector: usize, size: usize, directory: bool, name: &[u8]) -> Vec<u8> {
    let length = (33 + name.len()).next_multiple_of(2);
    let mut record = vec![0; length];
    record[0] = u8::try_from(length).unwrap_or(u8::MAX);
    both(&mut record[2..10], sector);
    both(&mut record[10..18], size);
    // 1 January 2024.
    record[18..25].copy_from_slice(&[124, 1, 1, 0, 0, 0, 0]);
    record[25] = if directory { 2 } else { 0 };
    both16(&mut record[28..32], 1);
    record[32] = u8::try_from(name.len()).unwrap_or(u8::MAX);
    record[33..33 + name.len()].copy_from_slice(name);
    record
}

/// Text padded with spaces.
fn padded(field: &mut [u8], text: &str) {
    field.fill(b' ');
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// A number in both byte orders.
fn both(field: &mut [u8], number: usize) {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    field[..4].copy_from_slice(&number.to_le_bytes());
    field[4..8].copy_from_slice(&number.to_be_bytes());
}

fn both16(field: &mut [u8], number: usize) {
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    field[..2].copy_from_slice(&number.to_le_bytes());
    field[2..4].copy_from_slice(&number.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_file_name() {
        for (name, label) in [
            ("AlmaLinux-9.3-x86_64-minimal.iso", "AlmaLinux-9-3-x86_64-minimal"),
            ("AlmaLinux-9.4-x86_64-dvd.iso", "AlmaLinux-9-4-x86_64-dvd"),
            ("other.iso", "AlmaLinux-9-3-x86_64-minimal"),
        ] {
            assert_eq!(label_of(name), label);
        }
    }

    #[test]
    fn the_volume_is_iso_9660() {
        let image = volume("AlmaLinux-9-3-x86_64-minimal", "hello");
        assert_eq!(image.len() % SECTOR, 0);
        let primary = &image[16 * SECTOR..17 * SECTOR];
        assert_eq!(&primary[..7], b"\x01CD001\x01");
        assert_eq!(&primary[40..72], b"AlmaLinux-9-3-x86_64-minimal    ");
        assert_eq!(
            usize::try_from(u32::from_le_bytes([primary[80], primary[81], primary[82], primary[83]])).unwrap(),
            image.len() / SECTOR
        );
        assert_eq!(&image[17 * SECTOR..17 * SECTOR + 6], b"\xffCD001");
        assert!(
            image[20 * SECTOR..21 * SECTOR]
                .windows(12)
                .any(|w| w == b"README.TXT;1")
        );
        assert_eq!(&image[21 * SECTOR..21 * SECTOR + 5], b"hello");
    }
}
