//! What the tests of the command share: the built binary in a clean environment, a template folder, an emulated cluster.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]
#![allow(clippy::zombie_processes, reason = "the test that is given the child waits for it")]

pub(crate) mod kill;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use proxmox_client::{Auth, Client, Tls};
use pve_emulator::{Emulator, EmulatorBuilder};
use serde_json::Value;
use tempfile::TempDir;

/// The ISO that the folder of `init` names.
pub(crate) const ISO: &str = "AlmaLinux-9.3-x86_64-minimal.iso";
/// The image that it describes.
pub(crate) const IMAGE: &str = "alma9-k3-node-amd64-v1.29.0-v1";

/// The command, with nothing in its environment that could change what it does.
pub(crate) fn k3simage(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_k3simage"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PKR_VAR_") || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
    // A failed build leaves the picture of its screen in the current folder.
    command
        .args(args)
        .stdin(Stdio::null())
        .env("COLUMNS", "100")
        .current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Ended::of(&k3simage(args).output().unwrap())
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Both streams, for what may stand on either.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32, parts: &[&str]) -> Self {
        let all = self.all();
        assert_eq!(self.code, Some(code), "{all}");
        for part in parts {
            assert!(all.contains(part), "`{part}` is not in:\n{all}");
        }
        self
    }

    /// Standard output as one object a line.
    #[track_caller]
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }
}

/// A fresh template folder, as `init` writes it.
pub(crate) struct Folder {
    pub(crate) temp: TempDir,
    pub(crate) dir: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("my-image");
        run(&["init", dir.to_str().unwrap()]).expect(0, &["wrote"]);
        Self { temp, dir }
    }

    pub(crate) fn path(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    /// Replaces a part of a file that must be there.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.dir.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no `{from}`");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }
}

/// An emulated cluster that outlives the runs of the command, so that one can look at what they left.
pub(crate) struct Cluster {
    pub(crate) emulator: Emulator,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    /// With the ISO that the folder names.
    pub(crate) fn start(builder: EmulatorBuilder) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let emulator = runtime.block_on(builder.delays(false).start()).unwrap();
        emulator.add_installer_iso("local", ISO).unwrap();
        Self { emulator, runtime }
    }

    /// The variables that lead to it, by the environment.
    pub(crate) fn lead(&self, command: &mut Command) {
        command
            .env("PKR_VAR_ssh_port", self.emulator.guest_ssh_port().to_string())
            .args(["-var", &format!("proxmox_url={}/api2/json", self.emulator.url())])
            .args(["-var", &format!("proxmox_username={}", self.emulator.token_id())])
            .args(["-var", &format!("proxmox_fingerprint={}", self.emulator.fingerprint())])
            .env("PKR_VAR_proxmox_token", self.emulator.token_secret());
    }

    /// Runs the command against it; later arguments win.
    pub(crate) fn run(&self, before: &[&str], after: &[&str]) -> Ended {
        let mut command = k3simage(before);
        self.lead(&mut command);
        Ended::of(&command.args(after).output().unwrap())
    }

    /// Everything that is on it: VMs and volumes.
    pub(crate) fn inventory(&self) -> (Vec<u32>, Vec<String>) {
        let mut volids = self.emulator.volids("pve");
        volids.sort();
        (self.emulator.vmids(), volids)
    }

    /// A client with its own token.
    pub(crate) fn client(&self) -> Client {
        let emulator = &self.emulator;
        Client::builder(emulator.url())
            .auth(Auth::token(emulator.token_id(), emulator.token_secret()))
            .tls(Tls::Pinned(emulator.fingerprint().parse().unwrap()))
            .build()
            .unwrap()
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// Starts the command with `--json` and reads its lines until one fits.
pub(crate) fn until(
    command: &mut Command,
    fits: impl Fn(&Value) -> bool,
) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "ended before that: {seen}");
        seen.push_str(&line);
        if fits(&serde_json::from_str(&line).unwrap()) {
            return (child, lines);
        }
    }
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, name: &str) {
    shell(&format!("kill -{name} {}", child.id()));
}

/// The same signal again at once.
pub(crate) fn twice(child: &Child, name: &str) {
    shell(&format!("kill -{name} {0}; kill -{name} {0}", child.id()));
}

fn shell(line: &str) {
    assert!(
        Command::new("sh").args(["-c", line]).status().unwrap().success(),
        "{line}"
    );
}

/// The names in a folder, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
