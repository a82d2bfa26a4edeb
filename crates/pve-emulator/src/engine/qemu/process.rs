//! A QEMU process: starting it, what `/proc` says of it, ending it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use super::run_dir::{Names, RunDir};

/// Clock ticks of a second in `/proc`.
///
/// # Source
/// `USER_HZ`, which Linux fixes at 100 on x86 for its interface, whatever its own clock does.
const TICKS: f64 = 100.0;
/// Bytes of a page on x86.
const PAGE: u64 = 4096;
/// Lines of QEMU's last words that go into an error.
const LAST_LINES: usize = 10;

/// A process that is told from all others by when it began: its number alone may belong to somebody else later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Clock ticks after the machine's boot.
    pub(super) began: u64,
}

/// What `/proc/PID/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stat {
    pub(super) began: u64,
    /// Processor time used so far, in seconds.
    pub(super) cpu_s: f64,
    pub(super) resident_bytes: u64,
    /// Ended, and not yet waited for.
    zombie: bool,
}

/// Reads `/proc/PID/stat`.
fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// # Source
/// proc(5): the name stands in parentheses and may hold anything; after it come the state and numbers.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    // Fields 14 and 15 are the times, 22 the start, 24 the resident pages; the state is field 3.
    let ticks = number(11)? + number(12)?;
    #[expect(clippy::cast_precision_loss, reason = "processor time in ticks fits")]
    let cpu_s = ticks as f64 / TICKS;
    Some(Stat {
        began: number(19)?,
        cpu_s,
        resident_bytes: number(21)? * PAGE,
        zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

impl Process {
    /// The process of this number, as it is now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        Some(Self { pid, began: stat.began })
    }

    /// What it uses; `None` when it has ended.
    pub(super) fn stat(self) -> Option<Stat> {
        stat(self.pid).filter(|s| s.began == self.began && !s.zombie)
    }

    pub(super) fn is_alive(self) -> bool {
        self.stat().is_some()
    }

    /// Seconds since it began.
    pub(super) fn uptime_s(self) -> u64 {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up: f64 = uptime.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "ticks since boot fit")]
        let began = self.began as f64 / TICKS;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; a fraction of a second is dropped"
        )]
        let seconds = (up - began).max(0.0) as u64;
        seconds
    }

    /// Ends it at once, if it is still the same.
    pub(super) fn kill(self) {
        if !self.is_alive() {
            return;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, Signal::KILL)
        {
            tracing::warn!(%error, pid = self.pid, "a QEMU process cannot be ended");
        }
    }

    /// Waits until it has ended; `false` when it has not within `limit`.
    pub(super) async fn ended(self, limit: Duration) -> bool {
        let end = tokio::time::Instant::now() + limit;
        while self.is_alive() {
            if tokio::time::Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Whether this is the QEMU that was started in `run` for `vmid`: by where it runs and by its command line.
    pub(super) fn is_guest(self, run: &RunDir, vmid: u32) -> bool {
        let dir = std::fs::read_link(format!("/proc/{}/cwd", self.pid));
        if !dir.is_ok_and(|dir| dir == run.path) {
            return false;
        }
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let pid_file = Names(vmid).pid();
        words
            .windows(2)
            .any(|pair| pair[0] == b"-pidfile" && pair[1] == pid_file.as_bytes())
    }
}

/// What a child may have of this process's environment. The rest stays here: it can hold the secrets of whoever runs the emulator, such
/// as `PKR_VAR_proxmox_token`, and a guest's process may outlive the emulator with all that it was given, for `/proc/PID/environ` to show.
const INHERITED: [&str; 7] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    // Where a QEMU that was not installed by the distribution finds its libraries and modules.
    "LD_LIBRARY_PATH",
    "QEMU_MODULE_DIR",
];

/// A program of QEMU to be run, without the environment of this process.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.envs(
        INHERITED
            .into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?))),
    );
    command
}

/// Starts QEMU in the run folder. What it prints goes to a file there, so that its last words outlive this process. It gets a
/// process group of its own: a Ctrl-C in the terminal is for the emulator, which ends its guests in order.
///
/// # Errors
/// The program cannot be started.
pub(super) fn spawn(program: &Path, run: &RunDir, vmid: u32, argv: &[String]) -> std::io::Result<Child> {
    let output = std::fs::File::create(run.file(&Names(vmid).output()))?;
    command(program)
        // PVE's program is called so, and clients look for `kvm: ` in task logs.
        .arg0("kvm")
        .args(argv)
        .current_dir(&run.path)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
}

/// The last lines that QEMU printed.
pub(super) fn last_words(run: &RunDir, vmid: u32) -> Vec<String> {
    let path: PathBuf = run.file(&Names(vmid).output());
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text
        .lines()
        // What TCG cannot do of a CPU model fills a screen, and is no error.
        .filter(|line| !line.trim().is_empty() && !line.contains("TCG doesn't support requested feature"))
        .map(str::to_owned)
        .collect();
    let skip = lines.len().saturating_sub(LAST_LINES);
    lines.into_iter().skip(skip).collect()
}

/// How a process ended, in PVE's words.
pub(super) fn exit_text(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("start failed: QEMU exited with code {code}"),
        (None, Some(signal)) => format!("start failed: QEMU was ended by signal {signal}"),
        (None, None) => "start failed: QEMU exited".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::images::QemuImages;
    use super::*;

    #[test]
    fn stat_lines_are_read_behind_the_name() {
        let line = "4242 (kvm) 1 (x) S 1 4242 4242 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 987654 1000000 2500 18446744073709551615";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat.began, 987_654);
        assert!((stat.cpu_s - 2.0).abs() < 1e-9);
        assert_eq!(stat.resident_bytes, 2500 * 4096);
        assert!(!stat.zombie);
        assert_eq!(parse_stat("1 (x"), None);
    }

    /// Runs itself once more with a secret in its environment, as whoever builds on real guests has it.
    #[tokio::test]
    async fn no_child_gets_a_secret_of_the_environment() {
        const SECRET: &str = "PKR_VAR_proxmox_token";
        if std::env::var_os(SECRET).is_none() {
            let name = std::thread::current().name().unwrap().to_owned();
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &name, "--nocapture"])
                .env(SECRET, "planted-secret")
                .env("LANG", "C")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path()).unwrap();
        let shell = Path::new("/bin/sh");
        let mut guest = spawn(shell, &run, 100, &["-c".to_owned(), "env".to_owned()]).unwrap();
        assert!(guest.wait().await.unwrap().success());
        let images = QemuImages {
            program: shell.to_owned(),
            firmware_dir: PathBuf::new(),
        };
        for (who, seen) in [
            (
                "guest",
                std::fs::read_to_string(run.file(&Names(100).output())).unwrap(),
            ),
            ("images", images.run(["-c", "env"]).await.unwrap()),
        ] {
            assert!(seen.lines().any(|line| line == "LANG=C"), "{who}: {seen}");
            assert!(!seen.contains("planted-secret"), "{who}: {seen}");
            // What the shell sets for itself.
            let own = ["PWD", "OLDPWD", "SHLVL", "_"];
            for name in seen.lines().filter_map(|line| Some(line.split_once('=')?.0)) {
                assert!(INHERITED.contains(&name) || own.contains(&name), "{who}: {name}");
            }
        }
    }

    #[tokio::test]
    async fn a_process_is_known_by_when_it_began() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id().unwrap()).unwrap();
        assert!(process.is_alive());
        let other = Process {
            began: process.began + 1,
            ..process
        };
        assert!(!other.is_alive());
        other.kill();
        assert!(process.is_alive(), "somebody else's number is left alone");
        process.kill();
        assert!(process.ended(Duration::from_secs(60)).await);
        child.wait().await.unwrap();
    }
}
