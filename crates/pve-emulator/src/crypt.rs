//! Password hashes of `/etc/shadow`: SHA-512 and SHA-256 crypt, as EL9 makes and accepts them.
//!
//! # Source
//! U. Drepper, "Unix crypt using SHA-256 and SHA-512", version 0.6. The hash alphabets and rounds are its own.

use sha2::{Digest, Sha256, Sha512};

const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DEFAULT_ROUNDS: usize = 5000;
/// Longest salt that counts.
const MAX_SALT: usize = 16;
/// Rounds beyond this are refused rather than run: nobody's kickstart asks a guest to hash for minutes.
const MAX_ROUNDS: usize = 1_000_000;

/// Hashes a password with a fresh salt, in the `$6$` form.
pub(crate) fn hash(password: &str) -> String {
    let salt: String = rand::random::<[u8; MAX_SALT]>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 64)]))
        .collect();
    let digest = digest::<Sha512>(password.as_bytes(), salt.as_bytes(), DEFAULT_ROUNDS);
    format!("$6${salt}${}", encode512(&digest))
}

/// Hashes a password with a fresh salt of eight characters, in the `$5$` form that PVE gives the option `cipassword`.
pub(crate) fn hash_sha256(password: &str) -> String {
    let salt: String = rand::random::<[u8; 8]>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 64)]))
        .collect();
    let digest = digest::<Sha256>(password.as_bytes(), salt.as_bytes(), DEFAULT_ROUNDS);
    format!("$5${salt}${}", encode256(&digest))
}

/// Whether the password fits the hash. Locked (`!`, `*`) and unknown forms fit no password.
pub(crate) fn verify(password: &str, hashed: &str) -> bool {
    let Some((kind, rest)) = hashed.strip_prefix('$').and_then(|rest| rest.split_once('$')) else {
        return false;
    };
    let (rounds, rest) = match rest.strip_prefix("rounds=").and_then(|rest| rest.split_once('$')) {
        Some((number, rest)) => match number.parse::<usize>() {
            Ok(rounds) if rounds <= MAX_ROUNDS => (rounds.max(1000), rest),
            _ => return false,
        },
        None => (DEFAULT_ROUNDS, rest),
    };
    let Some((salt, expected)) = rest.rsplit_once('$') else {
        return false;
    };
    let salt = &salt.as_bytes()[..salt.len().min(MAX_SALT)];
    match kind {
        "6" => encode512(&digest::<Sha512>(password.as_bytes(), salt, rounds)) == expected,
        "5" => encode256(&digest::<Sha256>(password.as_bytes(), salt, rounds)) == expected,
        _ => false,
    }
}

fn digest<D: Digest>(password: &[u8], salt: &[u8], rounds: usize) -> Vec<u8> {
    let size = <D as Digest>::output_size();
    let repeat = |block: &[u8], length: usize| block.iter().copied().cycle().take(length).collect::<Vec<u8>>();

    let alternate = D::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize()
        .to_vec();
    let mut first = D::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(repeat(&alternate, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { alternate.as_slice() } else { password });
        bits >>= 1;
    }
    let mut digest = first.finalize().to_vec();

    let mut of_password = D::new();
    for _ in 0..password.len() {
        of_password.update(password);
    }
    let p = repeat(&of_password.finalize(), password.len());
    let mut of_salt = D::new();
    for _ in 0..16 + usize::from(digest[0]) {
        of_salt.update(salt);
    }
    let s = repeat(&of_salt.finalize(), salt.len());

    for round in 0..rounds {
        let mut hasher = D::new();
        hasher.update(if round % 2 == 1 { &p } else { &digest });
        if round % 3 != 0 {
            hasher.update(&s);
        }
        if round % 7 != 0 {
            hasher.update(&p);
        }
        hasher.update(if round % 2 == 1 { &digest } else { &p });
        digest = hasher.finalize().to_vec();
    }
    debug_assert_eq!(digest.len(), size);
    digest
}

fn encode(
    digest: &[u8],
    groups: impl Iterator<Item = (usize, usize, usize)>,
    tail: (Option<usize>, usize, usize, usize),
) -> String {
    let mut text = String::new();
    let mut push = |value: u32, characters: usize| {
        let mut value = value;
        for _ in 0..characters {
            text.push(char::from(ALPHABET[(value & 63) as usize]));
            value >>= 6;
        }
    };
    let byte = |at: usize| u32::from(digest[at]);
    for (a, b, c) in groups {
        push(byte(a) << 16 | byte(b) << 8 | byte(c), 4);
    }
    let (high, middle, low, characters) = tail;
    let high = high.map_or(0, byte);
    let value = if characters == 2 {
        byte(low)
    } else {
        high << 16 | byte(middle) << 8 | byte(low)
    };
    push(value, characters);
    text
}

fn encode512(digest: &[u8]) -> String {
    // 21 groups that rotate through the three thirds of the digest, then byte 63 alone.
    let groups = (0..21).map(|i| match i % 3 {
        0 => (i, i + 21, i + 42),
        1 => (i + 21, i + 42, i),
        _ => (i + 42, i, i + 21),
    });
    encode(digest, groups, (None, 0, 63, 2))
}

fn encode256(digest: &[u8]) -> String {
    let groups = (0..10).map(|i| match i % 3 {
        0 => (i, i + 10, i + 20),
        1 => (i + 20, i, i + 10),
        _ => (i + 10, i + 20, i),
    });
    encode(digest, groups, (None, 31, 30, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the specification and of `openssl passwd`.
    const VECTORS: &[(&str, &str)] = &[
        (
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
            "Hello world!",
        ),
        (
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
            "Hello world!",
        ),
        (
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
            "Hello world!",
        ),
    ];

    #[test]
    fn known_hashes() {
        for (hashed, password) in VECTORS {
            assert!(verify(password, hashed), "{hashed}");
            assert!(!verify("hello world!", hashed));
        }
    }

    #[test]
    fn own_hashes_fit_and_locked_ones_do_not() {
        let hashed = hash("packer");
        assert!(verify("packer", &hashed));
        assert!(!verify("packet", &hashed));
        for locked in [
            "",
            "!",
            "*",
            "!!",
            &format!("!{hashed}"),
            "$1$x$y",
            "$6$",
            "$6$rounds=999999999$s$h",
        ] {
            assert!(!verify("packer", locked), "{locked}");
            assert!(!verify("", locked), "{locked}");
        }
    }

    #[test]
    fn a_fresh_sha256_hash_fits_its_password() {
        let hash = hash_sha256("secret");
        assert!(hash.starts_with("$5$"), "{hash}");
        assert!(verify("secret", &hash));
        assert!(!verify("Secret", &hash));
    }
}
