//! The reader against volumes of several writers, and against damage.

use std::io::Cursor;
use std::process::Command;
use std::sync::Arc;

use hadris_iso::joliet::JolietLevel;
use hadris_iso::read::PathSeparator;
use hadris_iso::write::options::{CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{File as IsoInput, InputFiles, IsoImageWriter};

use super::*;

/// A volume written by hand, plain names only.
pub(in crate::engine::simulated) fn plain_volume(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut image = vec![0_u8; 19 * 2048];
    let mut records = Vec::new();
    for name in [&[0_u8][..], &[1]] {
        records.extend(record(18, 2048, 2, name));
    }
    let mut data = Vec::new();
    for (name, bytes) in files {
        let sector = 19 + u32::try_from(data.len() / 2048).unwrap();
        records.extend(record(sector, u32::try_from(bytes.len()).unwrap(), 0, name.as_bytes()));
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(2048), 0);
    }
    image[16 * 2048] = 1;
    image[16 * 2048 + 1..16 * 2048 + 6].copy_from_slice(b"CD001");
    let padded = format!("{label:<32}");
    image[16 * 2048 + 40..16 * 2048 + 72].copy_from_slice(padded.as_bytes());
    let root = record(18, 2048, 2, &[0]);
    image[16 * 2048 + 156..16 * 2048 + 156 + root.len()].copy_from_slice(&root);
    image[17 * 2048] = 255;
    image[17 * 2048 + 1..17 * 2048 + 6].copy_from_slice(b"CD001");
    image[18 * 2048..18 * 2048 + records.len()].copy_from_slice(&records);
    image.extend(data);
    image
}

fn record(sector: u32, bytes: u32, flags: u8, name: &[u8]) -> Vec<u8> {
    let mut record = vec![0_u8; 33];
    record[2..6].copy_from_slice(&sector.to_le_bytes());
    record[6..10].copy_from_slice(&sector.to_be_bytes());
    record[10..14].copy_from_slice(&bytes.to_le_bytes());
    record[14..18].copy_from_slice(&bytes.to_be_bytes());
    record[25] = flags;
    record[32] = u8::try_from(name.len()).unwrap();
    record.extend_from_slice(name);
    if record.len() % 2 == 1 {
        record.push(0);
    }
    record[0] = u8::try_from(record.len()).unwrap();
    record
}

#[test]
fn plain_names() {
    let image = plain_volume("OEMDRV", &[("KS.CFG;1", b"text\n"), ("EMPTY.;1", b"")]);
    let mut iso = Iso::new(Cursor::new(image)).unwrap();
    assert_eq!(iso.label(), "OEMDRV");
    assert_eq!(iso.read("/ks.cfg").unwrap().as_deref(), Some(&b"text\n"[..]));
    assert_eq!(iso.read("/empty").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(iso.read("/other").unwrap(), None);
    assert_eq!(iso.read("/ks.cfg/x").unwrap(), None);
}

#[test]
fn volumes_of_a_library() {
    for features in [
        CreationFeatures::default(),
        CreationFeatures::rock_ridge(),
        CreationFeatures::joliet(JolietLevel::Level3),
        CreationFeatures::extensions(),
    ] {
        let files = InputFiles {
            path_separator: PathSeparator::ForwardSlash,
            files: vec![IsoInput::File {
                name: Arc::new("ks.cfg".into()),
                contents: b"lang en_US\n".to_vec(),
            }],
        };
        let options = IsoFormatOptions {
            volume_name: "OEMDRV".into(),
            system_id: None,
            volume_set_id: None,
            publisher_id: None,
            preparer_id: None,
            application_id: None,
            sector_size: 2048,
            features,
            path_separator: PathSeparator::ForwardSlash,
            strict_charset: false,
        };
        let mut image = Cursor::new(vec![0_u8; 1 << 20]);
        IsoImageWriter::create(&mut image, files, options).unwrap();
        let mut iso = Iso::new(image).unwrap();
        assert_eq!(iso.label(), "OEMDRV");
        assert_eq!(iso.read("/ks.cfg").unwrap().as_deref(), Some(&b"lang en_US\n"[..]));
    }
}

#[test]
fn volumes_of_a_program() {
    let Some(tool) = ["xorrisofs", "genisoimage", "mkisofs"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("-version").output().is_ok())
    else {
        // No such program here: the volumes above have been read, this one cannot be made.
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree/sub");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(dir.path().join("tree/ks.cfg"), "root file\n").unwrap();
    std::fs::write(tree.join("a_rather_long_file_name.cfg"), vec![b'x'; 5000]).unwrap();
    for flags in [&["-R"][..], &["-J"], &["-R", "-J"]] {
        let image = dir.path().join("out.iso");
        let output = Command::new(tool)
            .args(flags)
            .args(["-V", "OEMDRV", "-quiet", "-o"])
            .arg(&image)
            .arg(dir.path().join("tree"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut iso = IsoFile::open(&image).unwrap();
        assert_eq!(iso.label(), "OEMDRV");
        assert_eq!(
            iso.read("/ks.cfg").unwrap().as_deref(),
            Some(&b"root file\n"[..]),
            "{flags:?}"
        );
        let long = iso
            .read("/sub/a_rather_long_file_name.cfg")
            .unwrap()
            .map(|bytes| bytes.len());
        assert_eq!(long, Some(5000), "{flags:?}");
    }
}

#[test]
fn damage_is_an_error_and_no_panic() {
    assert!(Iso::new(Cursor::new(vec![0_u8; 100])).is_err());
    assert!(Iso::new(Cursor::new(vec![0_u8; 64 * 2048])).is_err());
    let good = plain_volume("OEMDRV", &[("KS.CFG;1", b"text\n")]);
    for at in 16 * 2048..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(mut iso) = Iso::new(Cursor::new(bad)) {
                let _ = iso.read("/ks.cfg");
            }
        }
    }
}
