//! Lists of checksums, as mirrors publish them beside their ISOs: the line of one file, and no doubt about it.

mod fetch;

use thiserror::Error;

use crate::diagnostic::nearest;
use crate::spec::{Checksum, ChecksumAlgorithm};

pub(crate) use fetch::{FetchError, Fetcher};

/// The name of AlmaLinux's list, in the folder of its ISOs.
pub(crate) const FILE_NAME: &str = "CHECKSUM";

/// A list has some ten lines; a server that sends this much sends something else.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;

const SIGNED_BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE_BEGIN: &str = "-----BEGIN PGP SIGNATURE-----";
const SIGNATURE_END: &str = "-----END PGP SIGNATURE-----";

/// Why a list does not tell what a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ListError {
    /// A signed list without its end; the line in question may be what is missing.
    #[error("it is cut off: its signature is missing or not whole")]
    CutOff,
    /// Nothing is said of the file.
    #[error("{}", no_line(file, near, *lines))]
    NoLine {
        /// The file.
        file: String,
        /// Names of the list that are much like it.
        near: Vec<String>,
        /// How many files the list names.
        lines: usize,
    },
    /// Two lines of one algorithm that cannot both be right.
    #[error("it has two lines for {file} that differ: {first} and {second}")]
    Differ {
        /// The file.
        file: String,
        /// What the first line says.
        first: Checksum,
        /// What a later one says.
        second: Checksum,
    },
    /// A line that names the file and says nothing usable.
    #[error("its line {line} names {file} and has no checksum")]
    Malformed {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
    },
    /// Nothing but an algorithm for which files can be forged.
    #[error("it has only {algorithm} for {file}, for which a second file of the same sum can be made")]
    Weak {
        /// The file.
        file: String,
        /// The best that it has.
        algorithm: ChecksumAlgorithm,
    },
}

fn no_line(file: &str, near: &[String], lines: usize) -> String {
    match (near, lines) {
        (_, 0) => format!("it is no list of checksums: no line of it looks like `SHA256 ({file}) = ...`"),
        ([], lines) => format!("it has no line for {file} ({lines} other files)"),
        (near, _) => format!("it has no line for {file}; it has {}", near.join(", ")),
    }
}

/// What a list says a file must be: its strongest checksum.
///
/// Of a signed list only the signed lines count; whether the signature is right is not looked at
/// (`docs/decisions/0020-what-vouches-for-an-iso.md`).
///
/// # Source
/// `isos/x86_64/CHECKSUM` of AlmaLinux: BSD lines, each after a comment with the file's size, in a text signed as
/// [RFC 9580, 7](https://www.rfc-editor.org/rfc/rfc9580#name-cleartext-signature-framewo) has it. The lines of `sha256sum` are
/// read too: other EL9 systems publish those.
pub(crate) fn checksum_of(list: &str, file: &str) -> Result<Checksum, ListError> {
    let mut found: Vec<Checksum> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for (number, line) in signed_lines(list)? {
        let Some((name, checksum)) = read_line(line) else {
            continue;
        };
        if name != file {
            names.push(name);
            continue;
        }
        let Some(checksum) = checksum else {
            return Err(ListError::Malformed {
                file: file.to_owned(),
                line: number,
            });
        };
        if let Some(first) = found.iter().find(|known| known.algorithm() == checksum.algorithm()) {
            if *first != checksum {
                return Err(ListError::Differ {
                    file: file.to_owned(),
                    first: first.clone(),
                    second: checksum,
                });
            }
        } else {
            found.push(checksum);
        }
    }
    match found
        .into_iter()
        .max_by_key(|checksum| checksum.algorithm().hex_digits())
    {
        Some(best) if best.algorithm().is_weak() => Err(ListError::Weak {
            file: file.to_owned(),
            algorithm: best.algorithm(),
        }),
        Some(best) => Ok(best),
        None => {
            names.sort_unstable();
            names.dedup();
            Err(ListError::NoLine {
                file: file.to_owned(),
                near: nearest(file, names.iter().copied())
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                lines: names.len(),
            })
        }
    }
}

/// The lines that count, with their numbers: all of a plain list; of a signed one those between its head and its signature.
fn signed_lines(list: &str) -> Result<Vec<(usize, &str)>, ListError> {
    let all = || (1..).zip(list.lines().map(str::trim_end));
    let Some((begin, _)) = all().find(|(_, line)| *line == SIGNED_BEGIN) else {
        return Ok(all().collect());
    };
    // Headers such as `Hash: SHA256`, then an empty line.
    let head_end = all()
        .find(|(number, line)| *number > begin && line.is_empty())
        .map(|(number, _)| number);
    let signature = |mark: &str| all().find(|(number, line)| *number > begin && *line == mark);
    match (head_end, signature(SIGNATURE_BEGIN), signature(SIGNATURE_END)) {
        (Some(head_end), Some((body_end, _)), Some((end, _))) if head_end < body_end && body_end < end => Ok(all()
            .filter(|(number, _)| (head_end + 1..body_end).contains(number))
            // A line that begins with a dash has `- ` in front of it there.
            .map(|(number, line)| (number, line.strip_prefix("- ").unwrap_or(line)))
            .collect()),
        _ => Err(ListError::CutOff),
    }
}

/// A line's file name and checksum: `SHA256 (NAME) = HEX`, `HEX  NAME` or `HEX *NAME`. `None` for any other line.
fn read_line(line: &str) -> Option<(&str, Option<Checksum>)> {
    if line.starts_with('#') {
        return None;
    }
    if let Some((algorithm, rest)) = line.split_once(" (")
        && let Ok(algorithm) = algorithm.to_ascii_lowercase().parse::<ChecksumAlgorithm>()
    {
        let (name, digits) = rest.rsplit_once(')')?;
        let digits = digits.trim_start().strip_prefix('=').map(str::trim);
        let checksum = digits.and_then(|digits| format!("{algorithm}:{digits}").parse().ok());
        return Some((bare(name), checksum));
    }
    let (digits, name) = line.split_once(' ')?;
    // The blank after the first says how the file was read: `*` for binary.
    let name = name.strip_prefix([' ', '*'])?;
    Some((bare(name), Some(digits.parse().ok()?)))
}

fn bare(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

#[cfg(test)]
mod tests;
