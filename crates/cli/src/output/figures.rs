//! Figures as people read them: `0.4 s`, `6 m 12 s`, `366 KiB`.

use std::time::Duration;

/// A length of time: tenths of a second below a minute, then minutes and seconds, then hours and minutes.
pub(crate) fn duration(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    // 59.95 would round to 60.0.
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = length.as_millis().div_ceil(500) / 2;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours} h {minutes:02} m")
    } else {
        format!("{minutes} m {seconds:02} s")
    }
}

/// A size in binary units, as PVE counts: whole numbers from 10 up, one digit after the point below.
pub(crate) fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = size as f64 / 1024.0;
    let mut unit = 0;
    // 1023.5 would round to 1024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit = UNITS.get(unit).copied().unwrap_or_default();
    if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (millis, text) in [
            (0, "0.0 s"),
            (449, "0.4 s"),
            (9_100, "9.1 s"),
            (59_949, "59.9 s"),
            (59_950, "1 m 00 s"),
            (63_000, "1 m 03 s"),
            (372_499, "6 m 12 s"),
            (372_501, "6 m 13 s"),
            (3_599_400, "59 m 59 s"),
            (3_600_000, "1 h 00 m"),
            (3_720_000, "1 h 02 m"),
            (90_000_000, "25 h 00 m"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text, "{millis}");
        }
    }

    #[test]
    fn sizes() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (374_784, "366 KiB"),
            (10 * 1024, "10 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_825_361_101, "1.7 GiB"),
            (32 << 30, "32 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
    }
}
