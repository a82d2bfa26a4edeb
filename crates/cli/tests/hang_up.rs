//! A terminal that is closed while a build goes on: it is undone, and nothing breaks on what cannot be shown any more.
#![allow(clippy::unwrap_used, reason = "a helper ends the test that it helps")]

mod common;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Cluster, Folder, k3simage, signal, twice, until};
use pve_emulator::{Emulator, Timing};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

/// A terminal with a program on it; dropped, it is closed.
struct Terminal {
    master: File,
    child: Child,
}

impl Terminal {
    /// Runs the command as the leader of a session of its own, as a terminal's window runs it.
    fn run(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let side = || Stdio::from(OpenOptions::new().read(true).write(true).open(&name).unwrap());
        let mut leader = Command::new("setsid");
        leader
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .env("TERM", "xterm");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        let child = leader.current_dir(command.get_current_dir().unwrap()).spawn().unwrap();
        Self {
            master: File::from(master),
            child,
        }
    }

    /// Reads what is shown until it holds a text.
    fn shows(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let read = self.master.read(&mut piece).unwrap_or(0);
            assert_ne!(read, 0, "it ended before `{text}`: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&piece[..read]);
            let shown = String::from_utf8_lossy(&seen).into_owned();
            if shown.contains(text) {
                return shown;
            }
        }
    }

    /// Closes the terminal; the program is on its own then.
    fn close(self) -> Child {
        drop(self.master);
        self.child
    }
}

/// An install that takes minutes: it surely runs when something happens.
fn cluster() -> Cluster {
    Cluster::start(Emulator::builder().timing(Timing::Real))
}

fn build(cluster: &Cluster, folder: &Folder, log: &Path) -> Command {
    let mut command = k3simage(&["build", folder.path(), "--log-file", log.to_str().unwrap()]);
    cluster.lead(&mut command);
    command
}

/// The event that the log file ends with, once it is sure that nothing panicked on the way.
fn last_event(log: &Path) -> Value {
    let text = std::fs::read_to_string(log).unwrap();
    assert!(!text.contains("panicked"), "{text}");
    let line = text.lines().rfind(|line| line.contains("k3simage::events: ")).unwrap();
    serde_json::from_str(line.split_once("k3simage::events: ").unwrap().1).unwrap()
}

#[test]
fn a_closed_terminal_undoes_the_build() {
    // With the bars of a terminal, with the lines of `dumb`, and with the guest's output and the requests between the bars.
    for (term, more) in [("xterm", &[][..]), ("dumb", &[]), ("xterm", &["-vvv"])] {
        let (cluster, folder) = (cluster(), Folder::new());
        let log = folder.temp.path().join("log");
        let before = cluster.inventory();
        let mut command = build(&cluster, &folder, &log);
        command.args(more).env("TERM", term);
        let mut terminal = Terminal::run(&command);
        terminal.shows("create");
        while cluster.emulator.vmids() != [9000] {
            terminal.shows("\n");
        }
        let mut child = terminal.close();
        // The shell hands it on to what it had started; the kernel tells it when that shell ends.
        twice(&child, "HUP");
        assert_eq!(child.wait().unwrap().code(), Some(129), "{term} {more:?}");
        assert_eq!(cluster.inventory(), before, "{term} {more:?}");
        let last = last_event(&log);
        assert_eq!(
            (&last["event"], &last["ok"]),
            (&"build_finished".into(), &false.into()),
            "{last}"
        );
        assert!(last["error"].as_str().unwrap().ends_with("cancelled"), "{last}");
    }
}

#[test]
fn a_second_signal_after_it_stops_waiting() {
    let (cluster, folder) = (cluster(), Folder::new());
    let mut command = k3simage(&["build", folder.path(), "--json"]);
    cluster.lead(&mut command);
    let (mut child, mut rest) = until(&mut command, |event| {
        event["event"] == "step_started" && event["step"] == "install"
    });
    // While it stands still, both arrive; which of them is looked at first, nobody can tell.
    signal(&child, "STOP");
    signal(&child, "HUP");
    signal(&child, "TERM");
    signal(&child, "CONT");
    let mut out = String::new();
    rest.read_to_string(&mut out).unwrap();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(129 | 143)), "{code:?} {out}");
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(
        last["help"][0]
            .as_str()
            .is_some_and(|help| help.contains("`k3simage gc --yes`")),
        "{last}"
    );
}

#[test]
fn nohup_lets_it_outlive_the_terminal() {
    let folder = Folder::new();
    let cluster = Cluster::start(Emulator::builder().timing(Timing::Scaled(100.0)));
    let log = folder.temp.path().join("log");
    let command = build(&cluster, &folder, &log);
    let mut ignoring = Command::new("sh");
    ignoring
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        ignoring.env(name, value);
    }
    let mut terminal = Terminal::run(&ignoring);
    terminal.shows("install");
    let mut child = terminal.close();
    signal(&child, "HUP");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(cluster.emulator.vm_config(9000).unwrap()["template"], "1");
    assert_eq!(last_event(&log)["ok"], true);
}

#[test]
fn readers_that_go_away_in_the_middle_do_not_keep_it_from_undoing() {
    let folder = Folder::new();
    folder.edit("scripts/os-update.sh", "set -euo pipefail", "set -euo pipefail\nexit 7");
    let cluster = Cluster::start(Emulator::builder().timing(Timing::Scaled(100.0)));
    let before = cluster.inventory();
    let log = folder.temp.path().join("log");
    let mut command = build(&cluster, &folder, &log);
    command.arg("--json").arg("-vvv");
    // As `| head -1` does it.
    let (mut child, lines) = until(&mut command, |event| event["event"] == "build_started");
    drop((lines, child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(cluster.inventory(), before);
    let last = last_event(&log);
    assert!(last["error"].as_str().unwrap().contains("os-update.sh"), "{last}");
}

#[test]
fn a_question_on_a_terminal_that_is_gone_is_answered_by_cleaning_up() {
    let folder = Folder::new();
    folder.edit("scripts/os-update.sh", "set -euo pipefail", "set -euo pipefail\nexit 7");
    let cluster = Cluster::start(Emulator::builder().timing(Timing::Scaled(300.0)));
    let before = cluster.inventory();
    let mut command = build(&cluster, &folder, &folder.temp.path().join("log"));
    command.args(["--on-error", "ask"]);
    let mut terminal = Terminal::run(&command);
    terminal.shows("[c/k]");
    terminal.master.write_all(b"what?\n").unwrap();
    terminal.shows("[c/k]");
    let mut child = terminal.close();
    let code = child.wait().unwrap().code();
    // The script's failure stays the first cause, also where the signal comes before the end of the input.
    assert!(matches!(code, Some(1)), "{code:?}");
    assert_eq!(cluster.inventory(), before);
}
