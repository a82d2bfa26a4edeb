//! The parsers with what must hold of them, for the targets in `fuzz/` and the replay of their corpora.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::str::from_utf8;

use bytes::Bytes;
use futures_util::stream;

use crate::schema::{Format, Property, PropertyString, Schema, verify};
use crate::state::{StorageKind, StorageSpec, Storages, parse_volume_name};
use crate::tasks::Upid;
use crate::wire::{Params, UploadError, parse_form, parse_json, receive_upload};

pub use crate::engine::simulated::fuzzing::{is_key, iso, kickstart, shell};

/// The call with most options, most of them property strings.
fn create_vm() -> &'static crate::schema::Endpoint {
    let found = Schema::get().find("POST", "/nodes/pve/qemu");
    found.expect("in the schema").endpoint
}

/// Options with their structures; the first byte of an input picks one.
fn structures() -> Vec<(&'static str, &'static BTreeMap<String, Property>)> {
    let schema = Schema::get();
    let properties = create_vm().properties.iter();
    properties
        .filter_map(|(key, property)| match property.format.as_ref()? {
            Format::Structure(structure) => Some((key.as_str(), structure)),
            Format::Named(name) => Some((key.as_str(), schema.named(name)?)),
        })
        .collect()
}

/// Property strings of VM options, and whole bodies in both forms against the schema.
///
/// # Panics
/// When a property does not hold.
pub fn property_string(data: &[u8]) {
    let schema = Schema::get();
    if let Some((first, rest)) = data.split_first()
        && let Ok(text) = from_utf8(rest)
    {
        let structures = structures();
        let (key, structure) = structures[usize::from(*first) % structures.len()];
        match PropertyString::parse(schema, structure, text, key) {
            Ok(parsed) => {
                let default_key = structure.iter().find(|(_, property)| property.default_key);
                let printed = parsed.print(default_key.map_or("", |(name, _)| name));
                let again = PropertyString::parse(schema, structure, &printed, key);
                assert_eq!(again.as_ref(), Ok(&parsed), "{key}: {text:?} became {printed:?}");
            }
            Err(message) => assert!(message.ends_with('\n'), "{message:?} is one of Perl's texts"),
        }
    }
    let mut params = Params::default();
    parse_form(&String::from_utf8_lossy(data), &mut params);
    let _ = verify(schema, create_vm(), &params.0);
    let mut params = Params::default();
    if parse_json(data, &mut params).is_ok() {
        let _ = verify(schema, create_vm(), &params.0);
    }
}

/// UPIDs. Tells whether it is one.
///
/// # Panics
/// When a property does not hold.
pub fn upid(data: &[u8]) -> bool {
    let Ok(text) = from_utf8(data) else { return false };
    let Ok(upid) = text.parse::<Upid>() else { return false };
    let printed = upid.to_string();
    assert_eq!(printed.parse(), Ok(upid));
    assert!(printed.eq_ignore_ascii_case(text), "{text:?} became {printed:?}");
    true
}

/// Volume names of both kinds of storages. Tells whether either takes it.
///
/// # Panics
/// When a property does not hold.
pub fn volid(data: &[u8]) -> bool {
    let Ok(text) = from_utf8(data) else { return false };
    let mut taken = false;
    let name = text.split_once(':').map_or(text, |(_, name)| name);
    for spec in [StorageSpec::dir("local", "/var/lib/vz"), StorageSpec::lvmthin("thin")] {
        let Ok((own, base)) = parse_volume_name(spec.kind, name) else {
            continue;
        };
        taken = true;
        for name in [Some(&own), base.as_ref()].into_iter().flatten() {
            assert_eq!(parse_volume_name(spec.kind, name), Ok((name.clone(), None)), "{text:?}");
            // What is put together from it stays below the storage's own folder.
            let shown = Storages::shown_file(&spec, name);
            let rest = Path::new(&shown).strip_prefix(&spec.shown_path);
            let rest = rest.unwrap_or_else(|_| panic!("{text:?} leads to {shown:?}"));
            assert!(
                rest.components().all(|part| matches!(part, Component::Normal(_))),
                "{text:?}: {}",
                rest.display()
            );
            assert!(!name.contains('\0'), "{text:?} is no file name");
        }
        let shown = base.map_or_else(|| own.clone(), |base| format!("{base}/{own}"));
        if spec.kind == StorageKind::Dir {
            assert_eq!(shown, name);
        }
    }
    taken
}

/// Uploads: the first byte says how the body is cut.
///
/// # Panics
/// When a property does not hold.
pub fn multipart(data: &[u8]) {
    thread_local! {
        static RUNTIME: (tokio::runtime::Runtime, tempfile::TempDir) = (
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers"),
            tempfile::tempdir().expect("a folder for the uploads"),
        );
    }
    let Some((cut, body)) = data.split_first() else { return };
    RUNTIME.with(|(runtime, dir)| {
        let file = dir.path().join("up");
        let receive = |size: usize| {
            let chunks = body.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
            let received = runtime.block_on(receive_upload(stream::iter(chunks), "B", &file));
            match received {
                Ok(upload) => {
                    let bytes = std::fs::read(&file).expect("the received file");
                    assert_eq!(bytes.len() as u64, upload.size_bytes);
                    assert!(
                        bytes.len() < body.len(),
                        "a file is smaller than the body that brought it"
                    );
                    assert!(upload.filename.len() <= 3 * body.len());
                    Ok((upload.params.0, upload.filename, bytes))
                }
                Err(error) => {
                    assert!(!file.exists(), "a refused upload leaves nothing");
                    match error {
                        UploadError::Refused(failure) => Err(failure.status),
                        UploadError::Broken(_) => Err(0),
                    }
                }
            }
        };
        let whole = receive(body.len().max(1));
        assert_eq!(receive(usize::from(*cut).max(1)), whole, "the cut shows");
    });
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::replay;

    #[test]
    fn property_strings() {
        replay("property_string", super::property_string);
    }

    #[test]
    fn names() {
        replay("upid", |data| {
            super::upid(data);
        });
        replay("volid", |data| {
            super::volid(data);
        });
    }

    #[test]
    fn uploads() {
        replay("multipart", super::multipart);
    }

    #[test]
    fn guests() {
        replay("iso", super::iso);
        replay("kickstart", |data| {
            super::kickstart(data);
        });
        replay("shell", super::shell);
    }
}
