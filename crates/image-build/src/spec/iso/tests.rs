//! Which texts become which source, and what the others are told.

use std::fs;

use super::*;

const LIST: &str = include_str!("../../../tests/fixtures/checksum/CHECKSUM");
const NAME: &str = "AlmaLinux-9.6-x86_64-dvd.iso";
const FOLDER: &str = "https://mirror.example.com/9.6/isos/x86_64/";

fn url(scheme: &str) -> String {
    format!("{FOLDER}{NAME}").replace("https", scheme)
}

fn listed(address: &str) -> IsoChecksum {
    IsoChecksum::Listed(address.parse().unwrap())
}

/// A folder with an ISO and its list.
fn folder() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join(NAME), "iso").unwrap();
    fs::write(temp.path().join("CHECKSUM"), LIST).unwrap();
    fs::write(temp.path().join("other.txt"), "no list\n").unwrap();
    temp
}

#[test]
fn an_address_is_looked_up_in_the_list_beside_it() {
    let temp = folder();
    let dir = temp.path();
    let checksum = |iso: &str, said: Option<&str>| IsoSource::read(dir, iso, said).map(|iso| iso.checksum().cloned());
    let beside = Some(listed(&format!("{FOLDER}CHECKSUM")));
    for said in [None, Some(""), Some("auto"), Some(" auto ")] {
        assert_eq!(checksum(&url("https"), said).unwrap(), beside, "{said:?}");
    }
    assert_eq!(
        checksum(&format!("{}?token=1#x", url("https")), None).unwrap(),
        beside,
        "no token goes to the list"
    );
    let elsewhere = "https://repo.almalinux.org/almalinux/9.6/isos/x86_64/CHECKSUM";
    for scheme in ["http", "https"] {
        assert_eq!(
            checksum(&url(scheme), Some(&format!("file:{elsewhere}"))).unwrap(),
            Some(listed(elsewhere))
        );
        assert_eq!(
            checksum(&url(scheme), Some("none")).unwrap(),
            Some(IsoChecksum::Unchecked)
        );
        let given = format!("sha256:{}", "a".repeat(64));
        assert_eq!(
            checksum(&url(scheme), Some(&given)).unwrap(),
            Some(IsoChecksum::Given(given.parse().unwrap()))
        );
    }
}

#[test]
fn a_list_here_is_read_at_once() {
    let temp = folder();
    let dir = temp.path();
    let wanted = crate::checksum_list::checksum_of(LIST, NAME).unwrap();
    let absolute = dir.join("CHECKSUM");
    let absolute = absolute.to_str().unwrap();
    for (iso, said) in [
        (NAME, "auto".to_owned()),
        (NAME, "file:CHECKSUM".to_owned()),
        (NAME, "file:./CHECKSUM".to_owned()),
        (&url("http"), format!("file:{absolute}")),
        (&url("http"), format!("file://{absolute}")),
        (&url("https"), format!("file:file://{absolute}")),
    ] {
        let source = IsoSource::read(dir, iso, Some(&said)).unwrap();
        assert_eq!(
            source.checksum(),
            Some(&IsoChecksum::Given(wanted.clone())),
            "{iso} {said}"
        );
    }
    for said in [None, Some("none")] {
        let source = IsoSource::read(dir, NAME, said).unwrap();
        assert_eq!(source.checksum(), Some(&IsoChecksum::Unchecked));
    }
}

#[test]
fn what_proves_nothing_is_refused_by_name() {
    let temp = folder();
    for (iso, said, subject, reason) in [
        (url("http"), None, CHECKSUM, "over http://"),
        (url("http"), Some("auto"), CHECKSUM, "over http://"),
        (url("https"), Some("file:http://m/CHECKSUM"), CHECKSUM, "proves nothing"),
        (
            url("https"),
            Some("file:ftp://m/CHECKSUM"),
            CHECKSUM,
            "cannot be fetched by `ftp:`",
        ),
        (url("https"), Some("file:https://"), CHECKSUM, "is no address"),
        (url("https"), Some("file:nothing"), CHECKSUM, "cannot be used"),
        (url("https"), Some("file:."), CHECKSUM, "it is no file"),
        (url("https"), Some("file:other.txt"), CHECKSUM, "no list of checksums"),
        (url("https"), Some("sha256:abc"), CHECKSUM, "64 hex digits, these are 3"),
        (
            "local:iso/x.iso".to_owned(),
            Some("sha256:abc"),
            CHECKSUM,
            "64 hex digits",
        ),
        (
            "other.iso".to_owned(),
            Some("auto"),
            CHECKSUM,
            "has no line for other.iso",
        ),
        ("https://".to_owned(), None, ISO, "is no address"),
    ] {
        let problem = IsoSource::read(temp.path(), &iso, said).expect_err(&iso);
        assert_eq!(problem.subject, subject, "{problem}");
        assert!(problem.message.contains(reason), "`{reason}` is not in: {problem}");
    }
}
