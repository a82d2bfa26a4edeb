//! Tests of the volume: its bytes, and what other programs read from it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::media::volume::SECTOR;

fn volume(text: &str) -> Vec<u8> {
    oemdrv(&KickstartText::new(text)).unwrap()
}

/// The bytes of the file whose directory record of that name stands in the image.
fn file<'a>(image: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = (18 * SECTOR..image.len().saturating_sub(name.len())).find(|at| {
        image[*at..].starts_with(name)
            && usize::from(image[at - 1]) == name.len()
            && usize::from(image[at - 33]) >= 33 + name.len()
    })?;
    let record = at - 33;
    let number = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    let start = number(record + 2) * SECTOR;
    image.get(start..start + number(record + 10))
}

#[test]
fn label_and_file_are_where_they_must_be() {
    let text = "text\nreboot\n";
    let image = volume(text);
    assert_eq!(image.len() % SECTOR, 0);
    assert!(image.len() < 512 * 1024, "{} bytes", image.len());
    // ECMA-119 8.4: type 1, CD001; the volume identifier at 40, padded with blanks.
    assert_eq!(&image[16 * SECTOR..16 * SECTOR + 6], b"\x01CD001");
    assert_eq!(
        &image[16 * SECTOR + 40..16 * SECTOR + 72],
        format!("{OEMDRV_LABEL:32}").as_bytes()
    );
    let blocks = u32::from_le_bytes(image[16 * SECTOR + 80..16 * SECTOR + 84].try_into().unwrap());
    assert!(
        blocks as usize * SECTOR <= image.len(),
        "the volume claims {blocks} blocks of {}",
        image.len() / SECTOR
    );
    assert_eq!(file(&image, b"KS.CFG;1"), Some(text.as_bytes()));
    let joliet: Vec<u8> = "ks.cfg".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let found = image.windows(joliet.len()).any(|window| window == joliet);
    assert!(found, "no Joliet name");
    assert!(
        image
            .windows(11)
            .any(|window| window.starts_with(b"NM") && window.ends_with(b"ks.cfg")),
        "no Rock Ridge name"
    );
}

#[test]
fn the_same_text_gives_the_same_bytes_at_any_time() {
    let first = volume("text\n");
    // The library notes whole seconds: wait until the clock shows another one.
    let start = Instant::now();
    let second = |now: std::time::SystemTime| now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = second(std::time::SystemTime::now());
    while second(std::time::SystemTime::now()) == begun && start.elapsed() < Duration::from_secs(2) {
        std::hint::spin_loop();
    }
    assert_eq!(first, volume("text\n"));
    assert_ne!(first, volume("text \n"));
}

#[test]
fn what_is_no_kickstart_is_refused() {
    let error = oemdrv(&KickstartText::new("x".repeat(MAX_KICKSTART_BYTES + 1))).unwrap_err();
    assert!(error.to_string().contains("262145 bytes"), "{error}");
    assert!(volume(&"x".repeat(MAX_KICKSTART_BYTES)).len() < 512 * 1024);
}

/// What a program prints; `None`, with a visible line, where it is not installed.
fn run(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let Ok(output) = output else {
        assert!(
            std::env::var_os("CI").is_none(),
            "{program} is needed in CI: apt-get install xorriso genisoimage"
        );
        println!("skipped: {program} is not installed (apt-get install xorriso genisoimage)");
        return None;
    };
    // isoinfo prints on its output, xorriso beside it.
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn other_programs_read_the_volume() {
    let text = "# \u{e9}\ntext\nreboot\n";
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("oemdrv.iso");
    std::fs::write(&path, volume(text)).unwrap();
    let iso = path.to_str().unwrap();
    for args in [
        &["-x", "/KS.CFG;1"][..],
        &["-R", "-x", "/ks.cfg"],
        &["-J", "-x", "/ks.cfg"],
    ] {
        if let Some(output) = run("isoinfo", &[args, &["-i", iso]].concat()) {
            assert_eq!(output, text, "isoinfo {args:?}");
        }
    }
    if let Some(output) = run("isoinfo", &["-d", "-i", iso]) {
        assert!(
            output.contains("Volume id: OEMDRV\n") && output.contains("Rock Ridge"),
            "{output}"
        );
    }
    let copy = temp.path().join("ks.cfg");
    let extract = [
        "-osirrox",
        "on",
        "-indev",
        iso,
        "-extract",
        "/ks.cfg",
        copy.to_str().unwrap(),
    ];
    if let Some(output) = run("xorriso", &extract) {
        assert!(output.contains("'OEMDRV'"), "{output}");
        assert_eq!(std::fs::read_to_string(copy).unwrap(), text, "{output}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_arrives(text in "\\PC{0,3000}") {
        let image = volume(&text);
        prop_assert_eq!(file(&image, b"KS.CFG;1"), Some(text.as_bytes()));
    }

    #[test]
    fn times_of_any_bytes_are_set_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096), kind in 1_u8..3) {
        let mut image = vec![0; 16 * SECTOR];
        image.push(kind);
        image.append(&mut bytes);
        super::super::fixed_times::fix(&mut image);
    }
}
