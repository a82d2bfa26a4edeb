//! `POST /nodes/{node}/storage/{storage}/upload`.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::storage::spec;
use super::{Call, Outcome, Routes};
use crate::state::{Storages, file_volume};
use crate::wire::Failure;

/// Files are read in pieces of this size for their checksum.
const PIECE: usize = 1024 * 1024;

pub(super) fn add(routes: &mut Routes) {
    routes.add("POST /nodes/{node}/storage/{storage}/upload", upload);
}

/// The volume name that a file name gets, or why it has none (`FACTS` 56).
pub(super) fn volume_name(content: &str, filename: &str) -> Result<String, &'static str> {
    let name = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let lower = safe.to_ascii_lowercase();
    let ends = |suffixes: &[&str]| suffixes.iter().any(|s| lower.ends_with(s) && lower.len() > s.len());
    let (folder, fits) = match content {
        "iso" => ("iso", ends(&[".iso", ".img"])),
        "vztmpl" => (
            "vztmpl",
            ends(&[".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tar", ".tgz"]),
        ),
        "import" => ("import", ends(&[".ova", ".qcow2", ".raw", ".vmdk"])),
        _ => ("", false),
    };
    if fits {
        Ok(format!("{folder}/{safe}"))
    } else {
        Err("wrong file extension")
    }
}

async fn upload(mut call: Call) -> Outcome {
    let Some(upload) = call.upload.take() else {
        return Err(Failure::die("no file received"));
    };
    let temporary = upload.file;
    let spec = spec(&call)?;
    let content = call.params.required("content")?;
    let name = volume_name(&content, &upload.filename).map_err(|e| Failure::param("filename", e))?;
    if !spec.holds(&content) {
        return Err(Failure::die(format!(
            "storage '{}' does not support '{content}' content",
            spec.id
        )));
    }
    let checksum = call.params.text("checksum-algorithm").zip(call.params.text("checksum"));
    let node = call.node();
    let shown_temporary = format!(
        "/var/tmp/{}",
        temporary
            .path()
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    );
    let upid = call.task("imgcopy", "", |world, worker| async move {
        worker.log(format!("starting file import from: {shown_temporary}"));
        if let Some((algorithm, expected)) = checksum {
            worker.log("calculating checksum...");
            let file = temporary.path().to_owned();
            let found = tokio::task::spawn_blocking(move || checksum_of(&file, &algorithm))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())?;
            if !found.eq_ignore_ascii_case(&expected) {
                return Err(format!("checksum mismatch: got '{found}' != expect '{expected}'"));
            }
            worker.append("OK, checksum verified");
        }
        let target = Storages::shown_file(&spec, &name);
        worker.log(format!("target node: {node}"));
        worker.log(format!("target file: {target}"));
        worker.log(format!("file size is: {}", upload.size_bytes));
        worker.log(format!("command: cp -- {shown_temporary} {target}"));
        world.spend(Duration::from_millis(100)).await;
        let mut storages = world.storages_mut();
        if storages.used(&node, &spec).saturating_add(upload.size_bytes) > spec.total_bytes {
            return Err(format!(
                "import failed: cp: error writing '{target}': No space left on device"
            ));
        }
        // The data directory is one file system: a rename is the whole copy.
        storages
            .place(&node, &spec, file_volume(&name, upload.size_bytes), temporary.path())
            .map_err(|e| format!("import failed: {e}"))?;
        worker.log("finished file import successfully");
        Ok(())
    });
    Ok(upid.into())
}

/// The checksum of a file in lower-case hexadecimal.
pub(super) fn checksum_of(file: &Path, algorithm: &str) -> std::io::Result<String> {
    fn run<D: sha2::Digest>(mut file: std::fs::File) -> std::io::Result<String> {
        let mut digest = D::new();
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(hex::encode(digest.finalize().as_slice()));
            }
            digest.update(&piece[..read]);
        }
    }
    let open = std::fs::File::open(file)?;
    match algorithm {
        "md5" => run::<md5::Md5>(open),
        "sha1" => run::<sha1::Sha1>(open),
        "sha224" => run::<sha2::Sha224>(open),
        "sha256" => run::<sha2::Sha256>(open),
        "sha384" => run::<sha2::Sha384>(open),
        "sha512" => run::<sha2::Sha512>(open),
        other => Err(std::io::Error::other(format!("unknown checksum algorithm '{other}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe() {
        for (content, given, expected) in [
            ("iso", "alma.iso", Ok("iso/alma.iso")),
            ("iso", "alma.ISO", Ok("iso/alma.ISO")),
            ("iso", "disk.img", Ok("iso/disk.img")),
            ("iso", "my file (1).iso", Ok("iso/my_file__1_.iso")),
            ("iso", "dir/sub/deep.iso", Ok("iso/deep.iso")),
            ("iso", "a\\back.iso", Ok("iso/back.iso")),
            ("iso", "../../etc/passwd", Err("wrong file extension")),
            ("iso", "a+b=c@d.iso", Ok("iso/a_b_c_d.iso")),
            ("iso", "..", Err("wrong file extension")),
            ("iso", ".iso", Err("wrong file extension")),
            ("iso", "x.iso.gz", Err("wrong file extension")),
            ("vztmpl", "t.tar.gz", Ok("vztmpl/t.tar.gz")),
            ("import", "d.qcow2", Ok("import/d.qcow2")),
        ] {
            assert_eq!(volume_name(content, given), expected.map(str::to_owned), "{given}");
        }
    }

    #[test]
    fn checksums_are_those_of_the_tools() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        for (algorithm, sum) in [
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "sha256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            assert_eq!(checksum_of(file.path(), algorithm).unwrap(), sum, "{algorithm}");
        }
    }
}
