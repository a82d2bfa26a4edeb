//! Uploads as they leave: order of the parts, length, digest, progress.

mod support;

use std::sync::{Arc, Mutex};

use proxmox_client::{Checksum, Content, Error, ErrorKind, NodeName, Storage, StorageId, Upload};
use support::{Reaction, TestServer, data, error};

const UPID: &str = "UPID:pve:0000778E:000B3A73:6B046495:imgcopy::packer@pve!build:";

fn storage(server: &TestServer) -> Storage {
    server
        .client()
        .node(&NodeName::new("pve").expect("a name"))
        .storage(&StorageId::new("local").expect("a name"))
}

/// Names and values of the parts, cut by hand, so that our own writer is not its own judge.
fn parts(body: &[u8], content_type: &str) -> Vec<(String, Vec<u8>)> {
    let boundary = content_type.split_once("boundary=").expect("a boundary").1;
    let delimiter = format!("--{boundary}");
    let mut rest = body
        .strip_prefix(delimiter.as_bytes())
        .expect("begins with the boundary");
    let mut parts = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(b"--") {
            assert_eq!(end, b"\r\n", "nothing follows the last part");
            return parts;
        }
        let part = rest.strip_prefix(b"\r\n").expect("a line end");
        let head_end = part
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("the end of its head");
        let next = format!("\r\n{delimiter}");
        let value = &part[head_end + 4..];
        let end = value
            .windows(next.len())
            .position(|bytes| bytes == next.as_bytes())
            .expect("the next boundary");
        parts.push((
            String::from_utf8(part[..head_end].to_vec()).expect("text"),
            value[..end].to_vec(),
        ));
        rest = &value[end + next.len()..];
    }
}

#[tokio::test]
async fn the_body_is_what_pve_reads() {
    let server = TestServer::start(|_, _| data(&format!("\"{UPID}\""))).await;
    let bytes: Vec<u8> = (0..700_000_u32)
        .map(|index| u8::try_from(index % 253).expect("small"))
        .collect();
    let file = tempfile::Builder::new().suffix(".iso").tempfile().expect("a file");
    std::fs::write(file.path(), &bytes).expect("written");
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let progress = Arc::clone(&seen);
    let upload = Upload::file(Content::Iso, "seed.iso", file.path())
        .expect("a good name")
        .on_progress(move |done, total| progress.lock().expect("not poisoned").push((done, total)));
    let upid = storage(&server).upload(&upload).await.expect("uploaded");
    assert_eq!((upid.as_str(), upid.kind()), (UPID, "imgcopy"));

    let request = &server.requests()[0];
    assert_eq!(request.line(), "POST /nodes/pve/storage/local/upload");
    assert_eq!(request.header("transfer-encoding"), None);
    assert_eq!(
        request.header("content-length"),
        Some(request.body.len().to_string().as_str())
    );
    assert_eq!(request.header("expect"), None, "PVE never answers it");
    let parts = parts(&request.body, request.header("content-type").expect("a type"));
    let names: Vec<&str> = parts
        .iter()
        .map(|(head, _)| head.lines().next().expect("a line"))
        .collect();
    let field = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"");
    let want = [
        field("content"),
        field("checksum-algorithm"),
        field("checksum"),
        field("filename") + "; filename=\"seed.iso\"",
    ];
    assert_eq!(names, want);
    assert_eq!(
        (parts[0].1.as_slice(), parts[1].1.as_slice()),
        (&b"iso"[..], &b"sha256"[..])
    );
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    assert_eq!(parts[2].1, digest.as_bytes());
    assert_eq!(parts[3].1, bytes);

    let seen = seen.lock().expect("not poisoned");
    assert!(seen.len() > 1 && seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&(700_000, 700_000)));
}

#[tokio::test]
async fn bytes_and_given_digests_work_too() {
    let server = TestServer::start(|_, _| data(&format!("\"{UPID}\""))).await;
    let given = Checksum::parse(&format!("sha512:{}", "ab".repeat(64))).expect("a digest");
    let storage = storage(&server);
    for upload in [
        Upload::iso_bytes("a.iso", "tiny").expect("a name").checksum(given),
        Upload::iso_bytes("a.iso", "").expect("a name").without_checksum(),
    ] {
        storage.upload(&upload).await.expect("uploaded");
    }
    let requests = server.requests();
    let of = |index: usize| {
        parts(
            &requests[index].body,
            requests[index].header("content-type").expect("a type"),
        )
    };
    assert_eq!(
        (of(0)[1].1.as_slice(), of(0)[3].1.as_slice()),
        (&b"sha512"[..], &b"tiny"[..])
    );
    assert_eq!((of(1).len(), of(1)[1].1.len()), (2, 0));
}

#[tokio::test]
async fn an_upload_is_sent_once_and_says_what_may_be_wrong() {
    let server = TestServer::start(|_, _| Reaction::Close).await;
    let error = storage(&server)
        .upload(&Upload::iso_bytes("a.iso", "x").expect("a name"))
        .await
        .expect_err("dropped");
    assert!(matches!(error, Error::Transport { attempts: 1, .. }), "{error:?}");
    assert!(
        error
            .advice()
            .expect("PVE gives no reason")
            .contains("Datastore.AllocateTemplate")
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn refusals_and_missing_files_are_told() {
    let server = TestServer::start(|_, _| error("500 storage 'local' does not support 'iso' content")).await;
    let upload = Upload::iso_bytes("a.iso", "x").expect("a name");
    let refused = storage(&server).upload(&upload).await.expect_err("refused");
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::Parameter, Some(500)));
    let missing = storage(&server)
        .upload(&Upload::iso_file("/nonexistent/a.iso").expect("a name"))
        .await;
    assert!(matches!(missing, Err(Error::File { .. })));
    assert_eq!(server.requests().len(), 1, "nothing is sent for a missing file");
}

/// PVE may refuse, or just hang up, while the body is still on its way.
#[tokio::test]
async fn an_answer_before_the_end_of_the_body_is_an_error_of_the_right_kind() {
    let server = TestServer::start(|_, _| {
        Reaction::Early("403 Permission check failed (/storage/local, Datastore.AllocateTemplate)".into())
    })
    .await;
    let upload = Upload::iso_bytes("a.iso", vec![0; 32 << 20])
        .expect("a name")
        .without_checksum();
    let error = storage(&server).upload(&upload).await.expect_err("refused");
    assert!(
        matches!(error.kind(), ErrorKind::Permission | ErrorKind::Transport),
        "{error:?}"
    );
    assert!(
        error
            .advice()
            .expect("a hint in both cases")
            .contains("Datastore.AllocateTemplate")
    );
}
