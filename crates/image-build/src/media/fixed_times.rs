//! Sets every time in an ISO 9660 image to one fixed moment: the library writes the time of day, and equal inputs must
//! give equal bytes.

const SECTOR: usize = 2048;
/// 1 January 2000 as a directory record has it: years since 1900, month, day, hour, minute, second, zone.
const RECORD_TIME: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];
/// The same moment as a volume descriptor has it.
const VOLUME_TIME: &[u8; 17] = b"2000010100000000\0";

/// Walks the volume descriptors and, from each, the directory of its root and what lies below.
///
/// # Source
/// ECMA-119 8.4 (volume descriptors), 9.1 (directory records), 9.5; Rock Ridge RRIP 1.12, entry `TF`.
pub(super) fn fix(image: &mut [u8]) {
    let mut descriptor = 16 * SECTOR;
    while let Some(kind) = image.get(descriptor).copied() {
        // 255 ends the set; 1 and 2 are the primary one and Joliet's, with the same layout.
        if kind == 255 {
            break;
        }
        if kind == 1 || kind == 2 {
            // Creation, modification and the moment from which it holds; that of expiry is unset.
            for offset in [813, 830, 864] {
                put(image, descriptor + offset, VOLUME_TIME);
            }
            fix_record(image, descriptor + 156);
            if let Some((start, length)) = extent(image, descriptor + 156) {
                fix_directory(image, start, length, 0);
            }
        }
        descriptor += SECTOR;
    }
}

fn fix_directory(image: &mut [u8], start: usize, length: usize, depth: u8) {
    let end = (start + length).min(image.len());
    let mut at = start;
    let mut index = 0;
    while at < end {
        let size = usize::from(image[at]);
        if size == 0 {
            // Records do not cross sectors: the rest of this one is empty.
            at = (at / SECTOR + 1) * SECTOR;
            continue;
        }
        fix_record(image, at);
        fix_rock_ridge(image, at, size);
        let is_directory = image.get(at + 25).is_some_and(|flags| flags & 2 != 0);
        // The first two records are the directory itself and its parent.
        if is_directory
            && index >= 2
            && depth < 8
            && let Some((start, length)) = extent(image, at)
        {
            fix_directory(image, start, length, depth + 1);
        }
        at += size;
        index += 1;
    }
}

fn fix_record(image: &mut [u8], at: usize) {
    put(image, at + 18, &RECORD_TIME);
}

fn fix_rock_ridge(image: &mut [u8], record: usize, size: usize) {
    let end = (record + size).min(image.len());
    let name = usize::from(image.get(record + 32).copied().unwrap_or(0));
    // The system use area begins behind the name, on an even offset.
    let mut at = record + 33 + name + (name + 1) % 2;
    while at + 4 <= end {
        let length = usize::from(image[at + 2]);
        if length < 4 || at + length > end {
            break;
        }
        if &image[at..at + 2] == b"TF" && image[at + 4] & 0x80 == 0 {
            for stamp in (at + 5..at + length).step_by(7) {
                put(image, stamp, &RECORD_TIME);
            }
        }
        at += length;
    }
}

/// Where a record's data lies, in bytes.
fn extent(image: &[u8], record: usize) -> Option<(usize, usize)> {
    let number = |at: usize| {
        let bytes: [u8; 4] = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    Some((number(record + 2)?.checked_mul(SECTOR)?, number(record + 10)?))
}

fn put(image: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = image.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}
