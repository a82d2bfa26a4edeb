//! A small shell over the guest's file tree. It runs nothing on the host and knows only the commands that are written
//! here; anything else is `command not found`, never an invented success.
//!
//! Script files are not interpreted: they are recorded with their environment, take their time, and have the few
//! effects that [`script`] reads out of their text, beside the files that [`laid`] finds in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use self::io::Io;
use self::syntax::Compound;
use super::accounts::User;
use super::host::{Host, login_environment};

mod arithmetic;
mod commands;
mod exec;
mod expand;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing;
pub(super) mod io;
mod laid;
mod parse;
mod script;
mod sed;
mod syntax;

#[cfg(any(test, feature = "fuzzing"))]
pub use fuzzing::fuzz;

/// Commands that one run may execute before it is stopped: a loop in a kickstart must end some day.
const MAX_STEPS: u32 = 200_000;

/// A variable.
#[derive(Clone, Debug, Default)]
struct Variable {
    value: String,
    exported: bool,
}

/// Options of `set`.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    errexit: bool,
    nounset: bool,
    allexport: bool,
    pipefail: bool,
    noglob: bool,
}

/// What a name means when the shell does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// `command not found`, 127.
    NotFound,
    /// Taken as done. For `%post` sections, of which only the effects on files, users and units are carried out.
    Skipped,
}

/// The state of a shell; a subshell is a clone of it.
#[derive(Clone, Debug)]
pub(super) struct Shell {
    host: Arc<Host>,
    user: User,
    cwd: String,
    umask: u32,
    vars: BTreeMap<String, Variable>,
    positional: Vec<String>,
    /// `$0`, and the name in error messages.
    name: String,
    functions: BTreeMap<String, Arc<Compound>>,
    readonly: BTreeSet<String>,
    options: Options,
    status: i32,
    /// Depth of conditions, in which `set -e` does not strike.
    in_condition: u32,
    /// Depth of function calls and sourced files.
    depth: u32,
    steps: u32,
    unknown: Unknown,
}

/// Why a list stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwind {
    Exit(i32),
    Return(i32),
    Break(u32),
    Continue(u32),
}

type Flow = Result<i32, Unwind>;

impl Shell {
    /// A shell of a user's session; `None` if there is no such user.
    pub(super) fn login(host: &Arc<Host>, user: &str) -> Option<Self> {
        let user = host.system().user(user)?;
        let environment = login_environment(&user.name, &user.home, &user.shell);
        let cwd = if host.system().files.is_dir(&user.home) {
            user.home.clone()
        } else {
            "/".to_owned()
        };
        Some(Self::with_environment(host, user, cwd, environment))
    }

    /// A shell with exactly this environment.
    pub(super) fn with_environment(
        host: &Arc<Host>,
        user: User,
        cwd: String,
        environment: BTreeMap<String, String>,
    ) -> Self {
        let vars = environment
            .into_iter()
            .map(|(name, value)| (name, Variable { value, exported: true }))
            .collect();
        Self {
            host: Arc::clone(host),
            user,
            cwd,
            umask: 0o022,
            vars,
            positional: Vec::new(),
            name: "bash".to_owned(),
            functions: BTreeMap::new(),
            readonly: BTreeSet::new(),
            options: Options::default(),
            status: 0,
            in_condition: 0,
            depth: 0,
            steps: 0,
            unknown: Unknown::NotFound,
        }
    }

    /// The same shell for a kickstart's `%post`.
    pub(super) fn skipping_unknown(mut self) -> Self {
        self.unknown = Unknown::Skipped;
        self
    }

    /// Adds variables to the environment.
    pub(super) fn export(&mut self, variables: BTreeMap<String, String>) {
        self.vars.extend(
            variables
                .into_iter()
                .map(|(name, value)| (name, Variable { value, exported: true })),
        );
    }

    /// Interprets a command text; the exit code.
    pub(super) async fn run(&mut self, text: &str, io: &Io) -> i32 {
        match parse::parse(text) {
            Ok(list) => self.finish(&list, io).await,
            Err(complaint) => {
                io.stderr.line(format!("{}: line 1: {complaint}", self.name));
                2
            }
        }
    }

    /// Runs a program by its argument vector, as `execvp` does; the exit code.
    pub(super) async fn run_argv(&mut self, argv: &[String], io: &Io) -> i32 {
        let flow = self.call(argv, &[], io).await;
        Self::exit_code(flow)
    }

    /// Whether a program of this name could be started at all.
    pub(super) fn knows_program(&self, name: &str) -> bool {
        self.find_program(name).is_some()
    }

    async fn finish(&mut self, list: &syntax::List, io: &Io) -> i32 {
        Self::exit_code(self.exec_list(list, io).await)
    }

    fn exit_code(flow: Flow) -> i32 {
        match flow {
            Ok(code) | Err(Unwind::Exit(code) | Unwind::Return(code)) => code,
            Err(Unwind::Break(_) | Unwind::Continue(_)) => 0,
        }
    }

    /// The absolute form of a path the user gave.
    fn path(&self, path: &str) -> String {
        super::files::normalise(&self.cwd, path)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(|variable| variable.value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        let exported = self.options.allexport;
        let variable = self.vars.entry(name.to_owned()).or_default();
        variable.value = value;
        variable.exported |= exported;
    }

    /// Everything a child process gets.
    fn environment(&self) -> BTreeMap<String, String> {
        let exported = self.vars.iter().filter(|(_, variable)| variable.exported);
        let mut environment: BTreeMap<String, String> = exported
            .map(|(name, variable)| (name.clone(), variable.value.clone()))
            .collect();
        environment.insert("PWD".to_owned(), self.cwd.clone());
        environment
    }

    /// A child process of this shell: its exported variables, nothing else.
    fn child(&self, name: &str) -> Self {
        let mut child = Self::with_environment(&self.host, self.user.clone(), self.cwd.clone(), self.environment());
        name.clone_into(&mut child.name);
        child.umask = self.umask;
        child.steps = self.steps;
        child.unknown = self.unknown;
        child.depth = self.depth + 1;
        child
    }
}

#[cfg(test)]
mod tests;

/// Boxed because commands call commands.
type Running<'a> = BoxFuture<'a, Flow>;
