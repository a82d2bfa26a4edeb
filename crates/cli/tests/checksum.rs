//! An ISO by its address: the mirror's list says what it must be, and nothing that no list vouches for is installed.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::{Ended, Folder, ISO, k3simage};
use image_build::spec::Checksum;
use pve_emulator::Emulator;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

const PATH: &str = "/9.3/isos/x86_64/";

/// A mirror on loopback, over TLS, with an authority of its own; it serves until the test ends.
struct Mirror {
    port: u16,
    authority: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    fn start(dir: &Path, files: BTreeMap<String, Vec<u8>>) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = dir.join("authority.pem");
        std::fs::write(&authority, ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &rcgen::Issuer::new(ca, ca_key))
            .unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
        let port = listener.local_addr().unwrap().port();
        let (asked, files) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(files));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, seen, files) = (Arc::clone(&config), Arc::clone(&seen), Arc::clone(&files));
                std::thread::spawn(move || serve(stream, config, &seen, &files));
            }
        });
        Self { port, authority, asked }
    }

    fn iso(&self) -> String {
        format!("https://127.0.0.1:{}{PATH}{ISO}", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request a connection; one that fails is the client's to tell.
fn serve(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
    seen: &Mutex<Vec<String>>,
    files: &BTreeMap<String, Vec<u8>>,
) -> Option<()> {
    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config).ok()?, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let path = String::from_utf8(head).ok()?.split(' ').nth(1)?.to_owned();
    seen.lock().unwrap().push(path.clone());
    let (status, body) = match files.get(&path) {
        Some(body) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", b"".as_slice()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}

/// A small ISO that a simulated guest boots from.
fn iso() -> Vec<u8> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let emulator = runtime.block_on(Emulator::start()).unwrap();
    emulator.add_installer_iso("local", ISO).unwrap();
    let [path] = found(emulator.data_dir(), ISO).try_into().unwrap();
    std::fs::read(path).unwrap()
}

/// The files of that name below a folder.
fn found(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(found(&path, name));
        } else if path.file_name().is_some_and(|file| file == name) {
            paths.push(path);
        }
    }
    paths
}

/// AlmaLinux's form, with this line for the ISO.
fn list(line: &str) -> Vec<u8> {
    format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# {ISO}: 1 bytes\n{line}\n\
         -----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n"
    )
    .into_bytes()
}

fn sum_of(bytes: &[u8], dir: &Path) -> String {
    let file = dir.join("sum-of-this");
    std::fs::write(&file, bytes).unwrap();
    let output = std::process::Command::new("sha256sum").arg(file).output().unwrap();
    let sum = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
    assert_eq!(sum.parse::<Checksum>().unwrap().hex(), sum);
    sum
}

struct Case {
    folder: Folder,
    mirror: Mirror,
    data: PathBuf,
}

impl Case {
    fn new(list: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let folder = Folder::new();
        folder.edit(
            "variables.auto.pkrvars.hcl",
            "alma_iso_checksum = \"none\"",
            "alma_iso_checksum = \"\"",
        );
        let iso = iso();
        let mut files = BTreeMap::new();
        if let Some(list) = list(&sum_of(&iso, folder.temp.path())) {
            files.insert(format!("{PATH}CHECKSUM"), list);
        }
        files.insert(format!("{PATH}{ISO}"), iso);
        let mirror = Mirror::start(folder.temp.path(), files);
        let data = folder.temp.path().join("pve");
        Self { folder, mirror, data }
    }

    fn build(&self, vars: &[&str]) -> Ended {
        let mut command = k3simage(&["build", self.folder.path(), "--emulator", "--data"]);
        command
            .arg(&self.data)
            .args(["-var", &format!("alma_iso_url={}", self.mirror.iso())])
            .args(vars.iter().flat_map(|var| ["-var", *var]))
            // Trusted by the command and by the emulated node alike.
            .env("SSL_CERT_FILE", &self.mirror.authority);
        Ended::of(&command.output().unwrap())
    }

    fn isos(&self) -> Vec<PathBuf> {
        found(&self.data, ISO)
    }
}

#[test]
fn an_address_alone_is_enough_where_the_mirror_lists_it() {
    let case = Case::new(|sum| Some(list(&format!("SHA256 ({ISO}) = {sum}"))));
    case.build(&[])
        .expect(0, &["sha256 as 127.0.0.1 lists it", " ok  template"]);
    assert_eq!(case.mirror.asked()[0], format!("{PATH}CHECKSUM"));
    assert_eq!(case.isos().len(), 1, "fetched by the node");
}

#[test]
fn another_iso_than_the_listed_one_is_not_installed() {
    let case = Case::new(|_| Some(list(&format!("SHA256 ({ISO}) = {}", "0".repeat(64)))));
    case.build(&[]).expect(1, &[" ERR media", "checksum"]);
    assert!(case.isos().is_empty(), "nothing of it is left");
}

#[test]
fn a_list_that_says_nothing_ends_the_build_before_anything_is_fetched() {
    let file = |case: &Case| {
        format!(
            "alma_iso_checksum=file:https://127.0.0.1:{}{PATH}CHECKSUM",
            case.mirror.port
        )
    };
    let digits = "0".repeat(64);
    for (lines, part) in [
        (Some(format!("SHA256 (other.iso) = {digits}")), "it has no line for"),
        (Some(format!("MD5 ({ISO}) = {}", "0".repeat(32))), "it has only md5"),
        (
            Some(format!(
                "SHA256 ({ISO}) = {digits}\nSHA256 ({ISO}) = {}",
                "1".repeat(64)
            )),
            "two lines",
        ),
        (None, "404 Not Found"),
    ] {
        let case = Case::new(|_| lines.as_deref().map(list));
        case.build(&[&file(&case)])
            .expect(2, &[part, "does not say what", "set alma_iso_checksum"]);
        assert_eq!(case.mirror.asked(), [format!("{PATH}CHECKSUM")], "{part}");
        assert!(case.isos().is_empty());
    }
}

#[test]
fn a_mirror_that_no_authority_vouches_for_is_not_believed() {
    let case = Case::new(|sum| Some(list(&format!("SHA256 ({ISO}) = {sum}"))));
    let other = tempfile::tempdir().unwrap();
    let stranger = Mirror::start(other.path(), BTreeMap::new());
    std::fs::copy(stranger.authority, &case.mirror.authority).unwrap();
    case.build(&[])
        .expect(2, &["does not say what", "invalid peer certificate"]);
    assert!(case.mirror.asked().is_empty() && case.isos().is_empty());
}

#[test]
fn over_http_a_checksum_must_be_given() {
    let case = Case::new(|_| None);
    let plain = format!("alma_iso_url=http://127.0.0.1:1{PATH}{ISO}");
    case.build(&[&plain])
        .expect(2, &["alma_iso_checksum: the ISO comes over http://", "proves nothing"]);
    assert!(case.mirror.asked().is_empty());
}
