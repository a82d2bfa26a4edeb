//! Durations, sizes and ids as people read them.

use std::time::Duration;

/// `0.4 s`, `9.1 s`, `6 m 12 s`, `1 h 02 m`.
pub(crate) fn human_duration(duration: Duration) -> String {
    let whole = duration.as_secs();
    match whole {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} m {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} m", whole / 3600, whole % 3600 / 60),
    }
}

/// `366 KiB`, `1.7 GiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1000.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A random UUID (version 4), as Packer's manifest identifies a run.
pub(crate) fn uuid_v4() -> String {
    use rand::RngExt as _;
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_form_and_differ() {
        let uuid = uuid_v4();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]), "{uuid}");
        assert_ne!(uuid, uuid_v4());
    }

    #[test]
    fn people_can_read_them() {
        for (millis, text) in [
            (40, "0.0 s"),
            (9_100, "9.1 s"),
            (59_900, "59.9 s"),
            (372_000, "6 m 12 s"),
            (3_725_000, "1 h 02 m"),
        ] {
            assert_eq!(human_duration(Duration::from_millis(millis)), text);
        }
        for (bytes, text) in [
            (7, "7 B"),
            (374_784, "366 KiB"),
            (1_825_361_101, "1.7 GiB"),
            (34_359_738_368, "32 GiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
