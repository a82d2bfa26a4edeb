//! Unit files with a program that this simulation runs: a script that lies in the tree, or k3s.
//!
//! # Source
//! `systemd.unit(5)`, `systemd.service(5)`: conditions skip a unit, assertions fail its start; `EnvironmentFile`, `RemainAfterExit`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::host::{Host, lock};
use super::k3s;
use super::shell::Shell;
use super::shell::io::{Input, Io, Output};
use super::system::{Start, System};

/// The path of the real program, whose place the model of k3s takes.
const K3S: &str = "/usr/local/bin/k3s";

/// The settings of a unit file, each with all its values.
#[derive(Debug)]
pub(super) struct UnitFile {
    settings: Vec<(String, String)>,
}

/// What a unit runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A script by its path.
    Script(String),
    /// k3s, in this role.
    K3s(k3s::Role),
}

impl UnitFile {
    /// The file of a unit; the administrator's stands above the package's.
    pub(super) fn of(system: &System, unit: &str) -> Option<Self> {
        let path = ["/etc/systemd/system", "/usr/lib/systemd/system"]
            .iter()
            .map(|dir| format!("{dir}/{unit}"))
            .find(|path| system.files.exists(path))?;
        let settings = system
            .files
            .text(&path)
            .lines()
            .filter(|line| !line.trim_start().starts_with(['#', ';', '[']))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        Some(Self { settings })
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.settings.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }

    fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).last()
    }

    /// The program, if it is one that is run here.
    pub(super) fn program(&self, system: &System) -> Option<Program> {
        let mut words = self
            .get("ExecStart")?
            .trim_start_matches(['-', '@', ':', '+', '!'])
            .split_whitespace();
        let path = words.next()?;
        if path == K3S {
            return match words.next()? {
                "server" => Some(Program::K3s(k3s::Role::Server)),
                "agent" => Some(Program::K3s(k3s::Role::Agent)),
                _ => None,
            };
        }
        let one_shot = self.get("Type") == Some("oneshot");
        (one_shot && system.files.text(path).starts_with("#!")).then(|| Program::Script(path.to_owned()))
    }

    /// Whether every path condition of this kind holds.
    fn holds(&self, kind: &str, system: &System) -> bool {
        self.all(kind).all(|path| match path.strip_prefix('!') {
            Some(path) => !system.files.exists(path),
            None => system.files.exists(path),
        })
    }

    /// The variables of its environment files; `None` when one is missing that must be there.
    fn environment(&self, system: &System) -> Option<BTreeMap<String, String>> {
        let mut environment = BTreeMap::from([
            (
                "PATH".to_owned(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin".to_owned(),
            ),
            ("LANG".to_owned(), "en_US.UTF-8".to_owned()),
        ]);
        for file in self.all("EnvironmentFile") {
            let path = file.trim_start_matches('-');
            if !system.files.exists(path) {
                if file.starts_with('-') {
                    continue;
                }
                return None;
            }
            for line in system.files.text(path).lines() {
                if let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.starts_with('#')) {
                    environment.insert(name.trim().to_owned(), value.trim().trim_matches('"').to_owned());
                }
            }
        }
        Some(environment)
    }
}

/// Takes the units whose start was asked for; each is to be given to [`run`].
pub(super) fn wanted(host: &Host) -> Vec<String> {
    let mut system = host.system();
    let mut units = Vec::new();
    for (unit, start) in &mut system.starting {
        if *start == Start::Wanted {
            *start = Start::Running;
            units.push(unit.clone());
        }
    }
    units
}

/// Runs the program of a unit, from its conditions to its state afterwards.
pub(super) async fn run(host: Arc<Host>, unit: String) {
    let ended = start(&host, &unit).await;
    let mut system = host.system();
    // One that was stopped meanwhile stays as it was left.
    if system.starting.remove(&unit).is_some() {
        match ended {
            Ended::Active => drop(system.active.insert(unit)),
            Ended::Failed => drop(system.failed.insert(unit)),
            Ended::Inactive => {}
        }
    }
    drop(system);
    host.services.notify_one();
}

/// What a start comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Active,
    Inactive,
    Failed,
}

async fn start(host: &Arc<Host>, unit: &str) -> Ended {
    let (program, environment, remains) = {
        let system = host.system();
        let Some(file) = UnitFile::of(&system, unit) else {
            return Ended::Inactive;
        };
        if !file.holds("ConditionPathExists", &system) {
            return Ended::Inactive;
        }
        if !file.holds("AssertPathExists", &system) {
            host.note(unit, ["Assertion failed: AssertPathExists".to_owned()]);
            return Ended::Inactive;
        }
        let Some(environment) = file.environment(&system) else {
            host.note(
                unit,
                ["Failed to load environment files: No such file or directory".to_owned()],
            );
            return Ended::Failed;
        };
        let remains = file.get("RemainAfterExit") == Some("yes");
        (file.program(&system), environment, remains)
    };
    match program {
        None => Ended::Active,
        Some(Program::Script(path)) => match script(host, unit, &path, environment).await {
            0 if remains => Ended::Active,
            0 => Ended::Inactive,
            _ => Ended::Failed,
        },
        Some(Program::K3s(role)) => {
            host.clock.sleep(host.k3s_time).await;
            match k3s::start(host, role, &environment) {
                Ok(line) => {
                    host.note(unit, [line]);
                    Ended::Active
                }
                Err(line) => {
                    host.note(unit, [line]);
                    Ended::Failed
                }
            }
        }
    }
}

/// Runs a script that lies in the tree, as root and with a service's environment; its exit code. What it prints is its journal.
async fn script(host: &Arc<Host>, unit: &str, path: &str, environment: BTreeMap<String, String>) -> i32 {
    let (text, root) = {
        let system = host.system();
        (system.files.text(path), system.user("root"))
    };
    let Some(root) = root else { return 217 };
    let (stdout, printed) = Output::buffer();
    let io = Io {
        stdin: Input::empty(),
        stderr: stdout.clone(),
        stdout,
    };
    let mut shell = Shell::with_environment(host, root, "/".to_owned(), environment);
    let code = shell.run(&text, &io).await & 0xff;
    let printed = String::from_utf8_lossy(&std::mem::take(&mut *lock(&printed))).into_owned();
    host.note(unit, printed.lines().map(str::to_owned));
    code
}
