//! Execution of the syntax tree.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::io::{FileWriter, Input, Io, Output};
use super::syntax::{AndOr, Assign, Command, Compound, Item, List, Pipeline, Redirect, RedirectKind, Simple};
use super::{Flow, MAX_STEPS, Running, Shell, Unknown, Unwind};
use crate::engine::simulated::files::Kind;
use crate::engine::simulated::host::lock;
use crate::engine::simulated::pattern::matches_pattern;

/// Deepest calls of functions, subshells and sourced files.
const MAX_DEPTH: u32 = 40;

impl Shell {
    pub(super) fn exec_list<'a>(&'a mut self, list: &'a List, io: &'a Io) -> Running<'a> {
        async move {
            let mut status = 0;
            for item in list {
                status = self.exec_item(item, io).await?;
            }
            Ok(status)
        }
        .boxed()
    }

    async fn exec_item(&mut self, item: &Item, io: &Io) -> Flow {
        if item.background {
            // A job of its own: it goes on beside the rest, and its end is nobody's business.
            let mut job = self.clone();
            let and_or = item.and_or.clone();
            let io = Io {
                stdin: Input::empty(),
                ..io.clone()
            };
            tokio::spawn(async move { job.exec_and_or(&and_or, &io).await });
            self.status = 0;
            return Ok(0);
        }
        self.exec_and_or(&item.and_or, io).await
    }

    async fn exec_and_or(&mut self, and_or: &AndOr, io: &Io) -> Flow {
        // `set -e` looks only at the last pipeline of a chain.
        let mut status = self.exec_pipeline(&and_or.first, io, !and_or.rest.is_empty()).await?;
        for (number, (and, pipeline)) in and_or.rest.iter().enumerate() {
            if (status == 0) == *and {
                status = self.exec_pipeline(pipeline, io, number + 1 < and_or.rest.len()).await?;
            }
        }
        Ok(status)
    }

    async fn exec_pipeline(&mut self, pipeline: &Pipeline, io: &Io, checked: bool) -> Flow {
        let guard = checked || pipeline.negated;
        self.in_condition += u32::from(guard);
        let result = self.exec_stages(&pipeline.commands, io).await;
        self.in_condition -= u32::from(guard);
        let mut status = result?;
        if pipeline.negated {
            status = i32::from(status == 0);
        }
        self.status = status;
        if status != 0 && self.options.errexit && !guard && self.in_condition == 0 {
            return Err(Unwind::Exit(status));
        }
        Ok(status)
    }

    /// The stages run one after the other, each on what the one before it has written: the result is that of a real
    /// pipeline as long as no stage waits for a later one.
    async fn exec_stages(&mut self, commands: &[Command], io: &Io) -> Flow {
        if let [only] = commands {
            return self.exec_command(only, io).await;
        }
        let mut stdin = io.stdin.clone();
        let mut failed = 0;
        for (number, command) in commands.iter().enumerate() {
            let last = number + 1 == commands.len();
            let (buffer, written) = Output::buffer();
            let stage = Io {
                stdin,
                stdout: if last { io.stdout.clone() } else { buffer },
                stderr: io.stderr.clone(),
            };
            let mut shell = self.clone();
            let status = Self::exit_code(shell.exec_command(command, &stage).await);
            if status != 0 {
                failed = status;
            }
            if last {
                return Ok(if self.options.pipefail { failed } else { status });
            }
            stdin = Input::bytes(std::mem::take(&mut *lock(&written)));
        }
        Ok(0)
    }

    async fn exec_command(&mut self, command: &Command, io: &Io) -> Flow {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            io.stderr
                .line(format!("{}: stopped after {MAX_STEPS} commands", self.name));
            return Err(Unwind::Exit(124));
        }
        if self.steps.is_multiple_of(256) {
            tokio::task::yield_now().await;
        }
        match command {
            Command::Simple(simple) => self.exec_simple(simple, io).await,
            Command::Function(name, body) => {
                self.functions.insert(name.clone(), Arc::clone(body));
                Ok(0)
            }
            Command::Compound(compound, redirects) => match self.redirect(redirects, io).await {
                Ok(io) => self.exec_compound(compound, &io).await,
                Err(complaint) => {
                    self.complain(io, &complaint);
                    Ok(1)
                }
            },
        }
    }

    pub(super) fn exec_compound<'a>(&'a mut self, compound: &'a Compound, io: &'a Io) -> Running<'a> {
        self.exec_compound_inner(compound, io).boxed()
    }

    async fn exec_compound_inner(&mut self, compound: &Compound, io: &Io) -> Flow {
        match compound {
            Compound::Brace(list) => self.exec_list(list, io).await,
            Compound::Subshell(list) => {
                let mut shell = self.clone();
                Ok(shell.finish(list, io).await)
            }
            Compound::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.condition(condition, io).await? == 0 {
                        return self.exec_list(body, io).await;
                    }
                }
                match otherwise {
                    Some(body) => self.exec_list(body, io).await,
                    None => Ok(0),
                }
            }
            Compound::For { name, words, body } => {
                let values = match words {
                    Some(words) => match self.expand_words(words, io).await {
                        Ok(values) => values,
                        Err(complaint) => return self.fatal(io, &complaint),
                    },
                    None => self.positional.clone(),
                };
                let mut status = 0;
                for value in values {
                    self.set(name, value);
                    match self.loop_body(body, io).await? {
                        Some(code) => status = code,
                        None => break,
                    }
                }
                Ok(status)
            }
            Compound::While { until, condition, body } => {
                let mut status = 0;
                while (self.condition(condition, io).await? == 0) != *until {
                    match self.loop_body(body, io).await? {
                        Some(code) => status = code,
                        None => break,
                    }
                }
                Ok(status)
            }
            Compound::Case { word, arms } => {
                let value = match self.expand_one(word, io).await {
                    Ok(value) => value,
                    Err(complaint) => return self.fatal(io, &complaint),
                };
                for (patterns, body) in arms {
                    for pattern in patterns {
                        match self.expand_pattern(pattern, io).await {
                            Ok(pattern) if matches_pattern(&pattern, &value) => return self.exec_list(body, io).await,
                            Ok(_) => {}
                            Err(complaint) => return self.fatal(io, &complaint),
                        }
                    }
                }
                Ok(0)
            }
            Compound::Test(words) => self.double_bracket(words, io).await,
            Compound::Arithmetic(text) => match self.arithmetic(text, io).await {
                Ok(value) => Ok(i32::from(value == 0)),
                Err(complaint) => self.fatal(io, &complaint),
            },
        }
    }

    async fn condition(&mut self, list: &List, io: &Io) -> Flow {
        self.in_condition += 1;
        let result = self.exec_list(list, io).await;
        self.in_condition -= 1;
        result
    }

    /// One round of a loop; `None` ends it.
    async fn loop_body(&mut self, body: &List, io: &Io) -> Result<Option<i32>, Unwind> {
        match self.exec_list(body, io).await {
            Ok(status) => Ok(Some(status)),
            Err(Unwind::Break(levels)) if levels > 1 => Err(Unwind::Break(levels - 1)),
            Err(Unwind::Break(_)) => Ok(None),
            Err(Unwind::Continue(levels)) if levels > 1 => Err(Unwind::Continue(levels - 1)),
            Err(Unwind::Continue(_)) => Ok(Some(0)),
            Err(other) => Err(other),
        }
    }

    async fn exec_simple(&mut self, simple: &Simple, io: &Io) -> Flow {
        let words = match self.expand_words(&simple.words, io).await {
            Ok(words) => words,
            Err(complaint) => return self.fatal(io, &complaint),
        };
        let io = match self.redirect(&simple.redirects, io).await {
            Ok(io) => io,
            Err(complaint) => {
                self.complain(io, &complaint);
                return Ok(1);
            }
        };
        let mut assigns = Vec::new();
        for assign in &simple.assigns {
            match self.assigned(assign, &io).await {
                Ok(value) if words.is_empty() => {
                    if self.readonly.contains(&assign.name) {
                        return self.fatal(&io, &format!("{}: readonly variable", assign.name));
                    }
                    self.set(&assign.name, value);
                }
                Ok(value) => assigns.push((assign.name.clone(), value)),
                Err(complaint) => return self.fatal(&io, &complaint),
            }
        }
        if words.is_empty() {
            // `x=$(false)` has the status of the substitution.
            let substituted = simple
                .assigns
                .iter()
                .any(|assign| super::expand::has_substitution(&assign.value));
            return Ok(if substituted { self.status } else { 0 });
        }
        self.call(&words, &assigns, &io).await
    }

    async fn assigned(&mut self, assign: &Assign, io: &Io) -> Result<String, String> {
        let value = self.expand_one(&assign.value, io).await?;
        Ok(if assign.append {
            format!("{}{value}", self.get(&assign.name).unwrap_or_default())
        } else {
            value
        })
    }

    /// Calls a function, a builtin, a command or a script file.
    pub(super) fn call<'a>(
        &'a mut self,
        words: &'a [String],
        assigns: &'a [(String, String)],
        io: &'a Io,
    ) -> Running<'a> {
        async move {
            let Some((name, args)) = words.split_first() else {
                return Ok(0);
            };
            let saved: Vec<_> = assigns
                .iter()
                .map(|(name, _)| (name.clone(), self.vars.get(name).cloned()))
                .collect();
            for (name, value) in assigns {
                self.set(name, value.clone());
                if let Some(variable) = self.vars.get_mut(name) {
                    variable.exported = true;
                }
            }
            let result = self.call_by_name(name, args, io).await;
            for (name, old) in saved {
                match old {
                    Some(old) => self.vars.insert(name, old),
                    None => self.vars.remove(&name),
                };
            }
            result
        }
        .boxed()
    }

    async fn call_by_name(&mut self, name: &str, args: &[String], io: &Io) -> Flow {
        if self.depth > MAX_DEPTH {
            io.stderr
                .line(format!("{}: {name}: maximum nesting level exceeded", self.name));
            return Err(Unwind::Exit(1));
        }
        if let Some(body) = self.functions.get(name).cloned() {
            let saved = std::mem::replace(&mut self.positional, args.to_vec());
            self.depth += 1;
            let result = self.exec_compound(&body, io).await;
            self.depth -= 1;
            self.positional = saved;
            return match result {
                Err(Unwind::Return(status)) => Ok(status),
                other => other,
            };
        }
        if let Some(flow) = self.builtin(name, args, io).await {
            return flow;
        }
        match self.find_program(name) {
            Some(Program::Command(base)) => Ok(self.command(&base, args, io).await),
            Some(Program::Script(path)) => Ok(self.run_script(name, &path, args, io).await),
            None => Ok(self.not_found(name, io)),
        }
    }

    fn not_found(&self, name: &str, io: &Io) -> i32 {
        if self.unknown == Unknown::Skipped {
            return 0;
        }
        if name.contains('/') {
            let path = self.path(name);
            let system = self.host.system();
            let (complaint, code) = match system.files.get(&path).map(|node| &node.kind) {
                Err(error) => (error.to_string(), 127),
                Ok(Kind::Dir) => ("Is a directory".to_owned(), 126),
                Ok(_) => ("Permission denied".to_owned(), 126),
            };
            io.stderr.line(format!("{}: line 1: {name}: {complaint}", self.name));
            return code;
        }
        io.stderr
            .line(format!("{}: line 1: {name}: command not found", self.name));
        127
    }

    /// What a name stands for: a command of this shell by name or in one of the system's folders, or a script file.
    pub(super) fn find_program(&self, name: &str) -> Option<Program> {
        if !name.contains('/') {
            if super::commands::is_command(name, &self.host.system()) {
                return Some(Program::Command(name.to_owned()));
            }
            let path = self.get("PATH").unwrap_or("/usr/local/bin:/usr/bin").to_owned();
            let system = self.host.system();
            return path
                .split(':')
                .map(|dir| format!("{dir}/{name}"))
                .find(|file| is_executable_file(&system, file))
                .map(Program::Script);
        }
        let path = self.path(name);
        let system = self.host.system();
        let base = crate::engine::simulated::files::base_name(&path);
        let in_system_folder = matches!(
            crate::engine::simulated::files::parent(&path),
            "/bin" | "/usr/bin" | "/sbin" | "/usr/sbin"
        );
        if in_system_folder && super::commands::is_command(base, &system) {
            return Some(Program::Command(base.to_owned()));
        }
        is_executable_file(&system, &path).then_some(Program::Script(path))
    }

    /// Opens what redirections name.
    async fn redirect(&mut self, redirects: &[Redirect], io: &Io) -> Result<Io, String> {
        let mut io = io.clone();
        for redirect in redirects {
            match &redirect.kind {
                RedirectKind::Read(word) => {
                    let name = self.expand_one(word, &io).await?;
                    let bytes = self
                        .host
                        .system()
                        .files
                        .bytes(&self.path(&name))
                        .map_err(|error| format!("{name}: {error}"))?;
                    io.stdin = Input::bytes(bytes);
                }
                RedirectKind::Here(word) => io.stdin = Input::bytes(self.expand_one(word, &io).await?),
                RedirectKind::HereString(word) => io.stdin = Input::bytes(self.expand_one(word, &io).await? + "\n"),
                RedirectKind::Write { word, both } => {
                    let file = self.open_output(word, false, &io).await?;
                    set_output(&mut io, redirect.fd, *both, &file)?;
                }
                RedirectKind::Append { word, both } => {
                    let file = self.open_output(word, true, &io).await?;
                    set_output(&mut io, redirect.fd, *both, &file)?;
                }
                RedirectKind::Duplicate(word) => {
                    let target = self.expand_one(word, &io).await?;
                    let output = match target.as_str() {
                        "1" => io.stdout.clone(),
                        "2" => io.stderr.clone(),
                        "0" | "-" => Output::Null,
                        other => return Err(format!("{other}: Bad file descriptor")),
                    };
                    if redirect.fd != 0 {
                        set_output(&mut io, redirect.fd, false, &output)?;
                    }
                }
            }
        }
        Ok(io)
    }

    async fn open_output(&mut self, word: &super::syntax::Word, append: bool, io: &Io) -> Result<Output, String> {
        let name = self.expand_one(word, io).await?;
        let path = self.path(&name);
        match path.as_str() {
            "/dev/stdout" => return Ok(io.stdout.clone()),
            "/dev/stderr" => return Ok(io.stderr.clone()),
            "/dev/null" => return Ok(Output::Null),
            _ => {}
        }
        self.may_write(&path).map_err(|error| format!("{name}: {error}"))?;
        let fresh = !self.host.system().files.exists(&path);
        let writer =
            FileWriter::open(&self.host, &path, append, &self.user.name).map_err(|error| format!("{name}: {error}"))?;
        if fresh && let Ok(node) = self.host.system().files.get_mut(&path) {
            node.mode = 0o666 & !self.umask;
        }
        Ok(Output::File(Arc::new(std::sync::Mutex::new(writer))))
    }

    pub(super) fn complain(&self, io: &Io, complaint: &str) {
        io.stderr.line(format!("{}: line 1: {complaint}", self.name));
    }

    /// An error that ends the shell, as a failed expansion does.
    fn fatal(&self, io: &Io, complaint: &str) -> Flow {
        self.complain(io, complaint);
        Err(Unwind::Exit(1))
    }
}

/// What [`Shell::find_program`] found.
#[derive(Debug)]
pub(super) enum Program {
    Command(String),
    Script(String),
}

fn is_executable_file(system: &crate::engine::simulated::system::System, path: &str) -> bool {
    system
        .files
        .get(path)
        .is_ok_and(|node| matches!(node.kind, Kind::File(_)) && node.mode & 0o111 != 0)
}

fn set_output(io: &mut Io, fd: u32, both: bool, output: &Output) -> Result<(), String> {
    match fd {
        _ if both => {
            io.stdout = output.clone();
            io.stderr = output.clone();
        }
        1 => io.stdout = output.clone(),
        2 => io.stderr = output.clone(),
        other => return Err(format!("{other}: Bad file descriptor")),
    }
    Ok(())
}
