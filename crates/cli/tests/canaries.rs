//! Secrets that a person hands over, by every way in: none is found in what the command says and leaves.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use common::{Cluster, Ended, Folder, k3simage};
use pve_emulator::Emulator;

/// Long enough that no chance finds them; the blank and the signs change in every encoding.
const TOKEN: &str = "c4a9a7e0-7e57-4c4a-9a71-c0ffeec0ffee";
const PASSWORD: &str = "canary-Pass+w/ord=&<7>";
const SSH_PASSWORD: &str = "canary-ssh+W/ord=?8";
const ROOT_PASSWORD: &str = "canary-root+W/ord=9";
const JOIN_TOKEN: &str = "K10cafe::server:canary+join/token=";

const ALL: [&str; 5] = [TOKEN, PASSWORD, SSH_PASSWORD, ROOT_PASSWORD, JOIN_TOKEN];

/// A text in the forms in which it could slip out.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let hex = hex::encode(secret);
    let percent = |plain: &dyn Fn(u8) -> bool| -> String {
        secret
            .bytes()
            .map(|b| {
                if plain(b) {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect()
    };
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let mut forms = vec![
        secret.to_owned(),
        secret.escape_debug().to_string(),
        serde_json::to_string(secret).unwrap().trim_matches('"').to_owned(),
        hex.to_uppercase(),
        hex,
        percent(&unreserved),
        percent(&|b| b.is_ascii_alphanumeric()),
        percent(&unreserved).to_lowercase(),
    ];
    // What stands before it moves it within the groups of three; the ends mix with what stands around.
    for shift in 0..3 {
        let text = base64(&[vec![0; shift], secret.as_bytes().to_vec()].concat());
        let (from, to) = (if shift == 0 { 0 } else { 4 }, text.trim_end_matches('=').len() - 2);
        forms.push(text[from..to].to_owned());
        forms.push(text[from..to].replace('+', "-").replace('/', "_"));
    }
    forms.into_iter().map(String::into_bytes).collect()
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The secrets that stand in these bytes, in any form.
fn found(bytes: &[u8]) -> Vec<&'static str> {
    ALL.into_iter()
        .filter(|secret| {
            forms(secret)
                .iter()
                .any(|form| bytes.windows(form.len()).any(|window| window == form))
        })
        .collect()
}

#[track_caller]
fn clean(what: &str, bytes: &[u8]) {
    let found = found(bytes);
    assert!(
        found.is_empty(),
        "{what} holds {found:?}:\n{}",
        String::from_utf8_lossy(bytes)
    );
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(files(&path));
        } else {
            all.push(path);
        }
    }
    all
}

#[test]
fn the_search_finds_every_form() {
    for secret in ALL {
        let padded = |before: &str| base64(format!("{before}{secret} and more").as_bytes());
        for text in [
            format!("Authorization: PVEAPIToken=a={secret}"),
            format!("{secret:?}"),
            hex::encode_upper(secret),
            padded(""),
            padded("u:"),
            padded("x"),
        ] {
            assert_eq!(found(text.as_bytes()), [secret], "{text}");
        }
    }
    assert_eq!(found(b"nothing of the kind"), [""; 0]);
}

/// A folder whose kickstart carries two secrets of its own: a password of root, and a token of k3s in a file.
fn folder() -> Folder {
    let folder = Folder::new();
    std::fs::write(
        folder.dir.join("secrets.pkr.hcl"),
        format!(
            "variable \"root_password\" {{\n  type      = string\n  sensitive = true\n}}\n\
             variable \"join_token\" {{\n  type      = string\n  sensitive = true\n  default   = \"{JOIN_TOKEN}\"\n}}\n"
        ),
    )
    .unwrap();
    folder.edit(
        "http/ks.cfg.j2",
        "rootpw --lock\n",
        "rootpw --allow-ssh {{ root_password | word }}\n",
    );
    folder.edit(
        "http/ks.cfg.j2",
        "%post --erroronfail",
        "%post\ninstall -d -m 0700 /etc/rancher/k3s\nprintf '%s' '{{ join_token }}' >/etc/rancher/k3s/joined\n%end\n\n%post --erroronfail",
    );
    folder
}

struct Lab {
    cluster: Cluster,
    data: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let builder = Emulator::builder()
            .data_dir(data.path())
            .user("packer@pve", PASSWORD)
            .token("packer@pve", "build", TOKEN, false)
            .acl("/", "packer@pve", "Administrator");
        Self {
            cluster: Cluster::start(builder),
            data,
        }
    }

    fn command(&self, before: &[&str]) -> Command {
        let mut command = k3simage(before);
        command
            // The folder's own file names another, and comes after the environment.
            .args(["-var", "proxmox_username=packer@pve!build"])
            .env("PKR_VAR_ssh_port", self.cluster.emulator.guest_ssh_port().to_string())
            .args([
                "-var",
                &format!("proxmox_url={}/api2/json", self.cluster.emulator.url()),
            ])
            .args([
                "-var",
                &format!("proxmox_fingerprint={}", self.cluster.emulator.fingerprint()),
            ]);
        command
    }

    /// What the emulator has written: its accounts are its own, and for nobody else; the rest holds nothing.
    fn check_data(&self, what: &str) {
        for path in files(self.data.path()) {
            let bytes = std::fs::read(&path).unwrap();
            let found = found(&bytes);
            if found.is_empty() {
                continue;
            }
            let name = path.strip_prefix(self.data.path()).unwrap().display().to_string();
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{what}: {name} holds {found:?} and is for others too");
            // The accounts, and the disk of a guest that was installed with a password: as on a real cluster.
            assert!(
                name.starts_with("access") || name.contains("shadow") || name.contains("images/"),
                "{what}: {name} holds {found:?}"
            );
        }
        for request in self.cluster.emulator.requests() {
            clean(
                &format!("{what}: a request's record"),
                format!("{request:?}").as_bytes(),
            );
        }
    }
}

/// What a run said and wrote: standard output and error, log file, manifest, screen picture.
fn check(what: &str, output: &Output, left: &Path) -> Ended {
    clean(&format!("{what}: standard output"), &output.stdout);
    clean(&format!("{what}: standard error"), &output.stderr);
    for path in files(left) {
        clean(&format!("{what}: {}", path.display()), &std::fs::read(&path).unwrap());
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let open = path.file_name().is_some_and(|name| name == "manifest.json");
        assert_eq!(mode, if open { 0o644 } else { 0o600 }, "{what}: {}", path.display());
    }
    Ended::of(output)
}

/// A way in which a person can hand over the secrets.
type Way = (&'static str, Box<dyn Fn(&mut Command)>);

fn ways(dir: &Path) -> Vec<Way> {
    let pairs = [("proxmox_token", TOKEN), ("root_password", ROOT_PASSWORD)];
    let hcl = dir.join("handed.pkrvars.hcl");
    let lines = pairs.map(|(name, value)| {
        format!(
            "{name} = \"{value}\"
"
        )
    });
    std::fs::write(&hcl, lines.concat()).unwrap();
    let json = dir.join("handed.pkrvars.json");
    let map: std::collections::BTreeMap<&str, &str> = pairs.into_iter().collect();
    std::fs::write(&json, serde_json::to_string(&map).unwrap()).unwrap();
    vec![
        (
            "environment",
            Box::new(move |command: &mut Command| {
                for (name, value) in pairs {
                    command.env(format!("PKR_VAR_{name}"), value);
                }
            }),
        ),
        (
            "-var",
            Box::new(move |command: &mut Command| {
                for (name, value) in pairs {
                    command.args(["-var", &format!("{name}={value}")]);
                }
            }),
        ),
        (
            "-var-file, HCL",
            Box::new(move |command: &mut Command| {
                command.arg("-var-file").arg(&hcl);
            }),
        ),
        (
            "-var-file, JSON",
            Box::new(move |command: &mut Command| {
                command.arg("-var-file").arg(&json);
            }),
        ),
        (
            "password",
            Box::new(move |command: &mut Command| {
                command
                    .args(["-var", "proxmox_username=packer@pve"])
                    .env("PKR_VAR_proxmox_password", PASSWORD)
                    .env("PKR_VAR_root_password", ROOT_PASSWORD);
            }),
        ),
    ]
}

#[test]
fn no_secret_is_in_what_a_build_says_and_leaves() {
    let handed = tempfile::tempdir().unwrap();
    for (number, (way, hand)) in ways(handed.path()).into_iter().enumerate() {
        // Each build on a cluster of its own; every second one fails in a script, and one by its login.
        let (lab, folder, left) = (Lab::start(), folder(), tempfile::tempdir().unwrap());
        let fails = number % 2 == 1;
        if fails {
            folder.edit(
                "scripts/os-update.sh",
                "set -euo pipefail",
                "set -euo pipefail\nset -x\nexit 7",
            );
        }
        let mut command = lab.command(&["build", folder.path(), "-vvv"]);
        command
            .arg("--manifest")
            .arg(left.path().join("manifest.json"))
            .arg("--log-file")
            .arg(left.path().join("build.log"))
            .current_dir(left.path());
        if number == 0 {
            command.arg("--json");
        }
        hand(&mut command);
        let output = command.output().unwrap();
        let ended = check(way, &output, left.path());
        ended.expect(i32::from(fails), &[if fails { "os-update.sh" } else { "9000" }]);
        lab.check_data(way);
    }
}

/// What is wrong is told without the secrets that stand beside it.
#[test]
fn no_secret_is_in_what_is_said_of_bad_input() {
    let lab = Lab::start();
    let left = tempfile::tempdir().unwrap();
    // What is done wrong, and what is said of it by `plan` and `build`.
    let cases: [(&str, &[&str], &str); 8] = [
        (
            "a wrong token",
            &["-var", "proxmox_token=c4a9a7e0-7e57-4c4a-9a71-c0ffeec0ffeecanary"],
            "401 Authentication failed!",
        ),
        (
            "a wrong user",
            &["-var", "proxmox_username=nobody@pve!build"],
            "401 Authentication failed!",
        ),
        (
            "a secret where the address belongs",
            &[
                "-var",
                "proxmox_url=https://packer:canary-Pass+w%2Ford=&<7>@127.0.0.1:1",
            ],
            "proxmox_url",
        ),
        (
            "an address with a password",
            &["-var", "alma_iso_url=https://me:canary-ssh+W%2Ford=%3F8@mirror/x.iso"],
            "it holds a user or password",
        ),
        (
            "a mirror with a password",
            &["-var", "k3s_mirror_url=https://me:canary-ssh+W%2Ford=%3F8@mirror/k3s"],
            "it holds a user or password",
        ),
        (
            "a list with a password",
            &[
                "-var",
                "alma_iso_url=https://m/x.iso",
                "-var",
                "alma_iso_checksum=file:https://me:canary-ssh+W%2Ford=%3F8@m/C",
            ],
            "it holds a user or password",
        ),
        (
            "a secret that is no word",
            &["-var", "root_password=canary-root+W/ord=9\nreboot"],
            "a value on this line is none",
        ),
        (
            "a secret of another type",
            &["-var", "ssh_password=[\"canary-ssh+W/ord=?8\"]", "-var", "vm_id=none"],
            "vm_id",
        ),
    ];
    for (what, args, part) in cases {
        for verb in ["validate", "plan", "build"] {
            for json in [false, true] {
                let folder = folder();
                let mut command = lab.command(&[verb, folder.path(), "-vvv"]);
                command
                    .arg("--log-file")
                    .arg(left.path().join("log"))
                    .current_dir(left.path())
                    .env("PKR_VAR_proxmox_token", TOKEN)
                    .env("PKR_VAR_root_password", ROOT_PASSWORD)
                    .env("PKR_VAR_ssh_password", SSH_PASSWORD)
                    .args(args);
                if json {
                    command.arg("--json");
                }
                let output = command.output().unwrap();
                let ended = check(&format!("{what}: {verb}"), &output, left.path());
                // Without a network, a login cannot be found wrong.
                if verb != "validate" {
                    ended.expect(2, &[part]);
                }
                let decoded = String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
                    .replace("%2F", "/")
                    .replace("%3F", "?");
                clean(&format!("{what}: {verb}, decoded"), decoded.as_bytes());
            }
        }
    }
}
