//! Durations as Go and so Packer writes them: `20m`, `1h30m`, `500ms`.

use std::time::Duration;

/// Units in nanoseconds, longest names first so that `ms` is not read as `m`.
const UNITS: &[(&str, u64)] = &[
    ("ms", 1_000_000),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Reads a duration such as `1h30m`, `90s`, `1.5h` or `0`.
///
/// # Errors
/// A sentence that says what is wrong.
///
/// # Source
/// `time.ParseDuration` of Go; negative durations make no sense here and are refused.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const FORM: &str = "a duration looks like 20m, 90s or 1h30m";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(format!("it is empty; {FORM}"));
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if tail.is_empty() && !number.is_empty() {
            return Err(format!("it lacks a unit; {FORM}"));
        }
        let (unit, factor) = UNITS
            .iter()
            .find(|(unit, _)| tail.starts_with(unit))
            .ok_or_else(|| FORM.to_owned())?;
        let nanos = nanoseconds(number, *factor).ok_or_else(|| FORM.to_owned())?;
        total = total.checked_add(nanos).ok_or("it is too long")?;
        rest = &tail[unit.len()..];
    }
    Ok(Duration::from_nanos(total))
}

/// `number` (digits, at most one point) times `factor`, exact to the nanosecond, cut below.
fn nanoseconds(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(factor)?;
    let mut scale = factor;
    for digit in fraction.bytes() {
        scale /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0') * scale)?;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, millis) in [
            ("20m", 1_200_000),
            ("1h30m", 5_400_000),
            ("90s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "20",
            "m",
            "20 m",
            "-5m",
            "1h30",
            "abc",
            "1.2.3s",
            ".s",
            "99999999999h",
            "5d",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn units_add_up(hours in 0_u64..100, minutes in 0_u64..100, millis in 0_u64..100_000) {
            let want = Duration::from_secs(hours * 3600 + minutes * 60) + Duration::from_millis(millis);
            prop_assert_eq!(parse(&format!("{hours}h{minutes}m{millis}ms")), Ok(want));
        }

        #[test]
        fn any_text_is_a_duration_or_an_error(text in "\\PC{0,12}") {
            let _ = parse(&text);
        }
    }
}
