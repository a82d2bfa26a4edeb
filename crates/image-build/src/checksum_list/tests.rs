//! Lists as mirrors publish them, and what hostile or broken ones lead to.

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

const SIGNED: &str = include_str!("../../tests/fixtures/checksum/CHECKSUM");
const DVD: &str = "AlmaLinux-9.6-x86_64-dvd.iso";

fn sum(of: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(of)))
}

fn line(algorithm: &str, digit: char, count: usize) -> String {
    format!("{algorithm} ({DVD}) = {}\n", digit.to_string().repeat(count))
}

#[test]
fn the_line_of_each_iso_is_found_in_almalinux_form() {
    for kind in ["boot", "dvd", "minimal"] {
        let name = format!("AlmaLinux-9.6-x86_64-{kind}.iso");
        assert_eq!(checksum_of(SIGNED, &name).unwrap().to_string(), sum(&name), "{name}");
    }
}

#[test]
fn every_form_of_line_is_read() {
    let digits = "Ab".repeat(32);
    for list in [
        format!("SHA256 ({DVD}) = {digits}\n"),
        format!("sha256 ({DVD}) = {digits}\r\n"),
        format!("SHA256 (./{DVD})= {digits}"),
        format!("{digits}  {DVD}\n"),
        format!("{digits} *{DVD}\n"),
        format!("# a comment\n\n{digits}  ./{DVD}\n{}  other.iso\n", "0".repeat(64)),
        // The same line twice says the same thing.
        format!("SHA256 ({DVD}) = {digits}\n{}  {DVD}\n", digits.to_lowercase()),
        // The strongest counts, wherever it stands.
        format!(
            "{}SHA256 ({DVD}) = {digits}\n{}",
            line("MD5", '0', 32),
            line("SHA1", '0', 40)
        ),
    ] {
        assert_eq!(
            checksum_of(&list, DVD).map(|sum| sum.to_string()),
            Ok(format!("sha256:{}", digits.to_lowercase())),
            "{list}"
        );
    }
    let two = format!("{}{}", line("SHA256", 'a', 64), line("SHA512", 'b', 128));
    assert_eq!(checksum_of(&two, DVD).unwrap().algorithm(), ChecksumAlgorithm::Sha512);
}

#[test]
fn what_proves_nothing_is_refused_by_name() {
    let unsigned = SIGNED
        .lines()
        .take_while(|line| *line != SIGNATURE_BEGIN)
        .collect::<Vec<_>>()
        .join("\n");
    let cut = &SIGNED[..SIGNED.len() - 40];
    for (list, reason) in [
        (
            String::new(),
            "no line of it looks like `SHA256 (AlmaLinux-9.6-x86_64-dvd.iso) = ...`",
        ),
        (
            "<html>\n<title>Log in to the hotel</title>\n".to_owned(),
            "no list of checksums",
        ),
        (SIGNED.replace("dvd", "live"), "it has AlmaLinux-9.6-x86_64-"),
        (
            format!("{}  other.img\n", "0".repeat(64)),
            "no line for AlmaLinux-9.6-x86_64-dvd.iso (1 other files)",
        ),
        (
            line("SHA256", 'a', 64) + &line("SHA256", 'b', 64),
            "two lines for AlmaLinux-9.6-x86_64-dvd.iso that differ: sha256:aaaa",
        ),
        (line("MD5", 'a', 32), "only md5 for AlmaLinux-9.6-x86_64-dvd.iso"),
        (line("MD5", 'a', 32) + &line("SHA1", 'b', 40), "only sha1 for"),
        (format!("{}  {DVD}\n", "a".repeat(40)), "only sha1 for"),
        (
            line("SHA256", 'a', 63),
            "line 1 names AlmaLinux-9.6-x86_64-dvd.iso and has no checksum",
        ),
        (line("SHA256", 'g', 64), "line 1 names"),
        (format!("SHA256 ({DVD})\n"), "line 1 names"),
        (unsigned, "cut off"),
        (cut.to_owned(), "cut off"),
        (
            SIGNED
                .replacen("Hash: SHA256\n\n", "Hash: SHA256\n", 1)
                .replace("\n\n", "\n"),
            "cut off",
        ),
    ] {
        let error = checksum_of(&list, DVD).expect_err(&list).to_string();
        assert!(error.contains(reason), "`{reason}` is not in: {error}");
    }
}

/// A line outside of the signed text is nobody's word.
#[test]
fn of_a_signed_list_only_the_signed_lines_count() {
    let other = line("SHA256", 'f', 64);
    for list in [format!("{other}{SIGNED}"), format!("{SIGNED}{other}")] {
        assert_eq!(checksum_of(&list, DVD).unwrap().to_string(), sum(DVD));
    }
    // Written as RFC 9580 has it: a line that begins with a dash gets another in front.
    let dashed = SIGNED.replace(&format!("SHA256 ({DVD})"), &format!("- SHA256 ({DVD})"));
    assert_eq!(checksum_of(&dashed, DVD).unwrap().to_string(), sum(DVD));
}

proptest! {
    /// Whatever a mirror sends: never a panic, and a checksum only where a line of this very name has it.
    #[test]
    fn hostile_lists_yield_nothing_that_no_line_says(list in "(?s).{0,400}", name in "[a-z(). =*]{1,12}") {
        if let Ok(sum) = checksum_of(&list, &name) {
            prop_assert!(list.to_lowercase().contains(sum.hex()));
            prop_assert!(list.contains(&name));
        }
    }

    /// A name is found whatever characters it has, and no other file's line is taken for it.
    #[test]
    fn names_are_compared_whole(name in "[A-Za-z0-9()_+.~-]{1,30}\\.iso", before in "[A-Za-z0-9(]{1,8}") {
        let digits = "1".repeat(64);
        let list = format!("SHA256 ({name}) = {digits}\nSHA256 ({before}{name}) = {}\n{}  {name}.sig\n", "2".repeat(64), "3".repeat(64));
        prop_assert_eq!(checksum_of(&list, &name).map(|sum| sum.hex().to_owned()), Ok(digits));
    }
}
