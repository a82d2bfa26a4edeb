//! Commands through the guest agent, followed to their end: through lost answers, a silent agent, and one that was restarted.
//!
//! The agent gives a program's output only at its end, and its end only once (`FACTS` 49). So a command runs under a small
//! wrapper that leaves output and status in files, which are read while it runs, and again where an answer is missing.

use std::time::Duration;

use proxmox_client::{ErrorKind, ExecStatus};
use tokio::time::Instant;

use super::AgentCommunicator;
use crate::communicator::lines::LineSplitter;
use crate::communicator::{Command, CommunicatorError, ExitStatus};

/// Pauses between looks at a running command: short first, since most commands are.
const FIRST_LOOK: Duration = Duration::from_millis(20);
pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// How often the files of a running command are read; each time is at least four requests: two programs are started and looked at.
const SPOOL_EVERY: Duration = Duration::from_secs(3);
/// Most bytes that are read from a file at a time. The agent keeps 16 MiB of a program's output and drops the rest.
const READ_BYTES: usize = 4 << 20;
/// How long a silent agent may stay silent in the middle of a command: a guest that is frozen for a backup.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// How often a short command is run again when the answer with its end was lost.
const SHORT_TRIES: u32 = 3;

/// Runs `$2...` with output, process and status in files of the folder `$1`, and gives the output once more at the end: what
/// seals an image closes the agent to new commands, but one that runs can be followed to its end.
/// Making the folder is what begins it: one that is started twice, since the answer to the first start was lost, runs once.
const SPOOL: &str = r#"d=$1; shift; mkdir -m 700 "$d" || exit 250
echo $$ >"$d/pid"; "$@" >"$d/out" 2>"$d/err"; s=$?
echo $s >"$d/end.part"; mv -f "$d/end.part" "$d/end"; cat "$d/out"; cat "$d/err" >&2; exit $s"#;
/// What `SPOOL` ends with when it has begun before.
const BEGUN_BEFORE: u32 = 250;
/// What became of the command of the folder `$1`: its status, `running`, `cut` off before it had one, or `gone` with the boot.
const STATE: &str = r#"if [ -e "$1/end" ]; then cat "$1/end"; elif [ ! -d "$1" ]; then echo gone
elif kill -0 "$(cat "$1/pid")" 2>/dev/null; then echo running; else echo cut; fi"#;
/// Reads at most `$3` bytes of the file `$1` from byte `$2` on, counted from 1.
const READ_ON: &str = r#"[ ! -e "$1" ] || tail -c "+$2" "$1" | head -c "$3""#;

/// What one look at a program tells.
enum Look {
    Runs,
    Ended(ExecStatus),
    /// The agent does not answer; a frozen guest thaws.
    Silent,
    /// The agent answers and knows no such program: its end was told in an answer that was lost, or the agent is another one.
    Unknown(proxmox_client::Error),
}

/// What the files of a command tell of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    Ended(u32),
    /// It runs no more and left no status.
    Cut,
    /// There are no files: it never began, or the guest has rebooted.
    Gone,
}

impl AgentCommunicator {
    /// Starts a program.
    async fn start(&self, argv: &[String], input: Option<&[u8]>) -> Result<u64, CommunicatorError> {
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let doing = format!("starting `{}`", words.first().copied().unwrap_or_default());
        let agent = self.vm.agent();
        match input {
            None => agent.exec(&words).await,
            Some(input) => agent.exec_with_input(&words, input).await,
        }
        .map_err(self.failed(doing))
    }

    async fn look(&self, pid: u64, silent_since: &mut Option<Instant>) -> Result<Look, CommunicatorError> {
        let error = match self.vm.agent().exec_status(pid).await {
            Ok(status) => {
                *silent_since = None;
                return Ok(if status.exited { Look::Ended(status) } else { Look::Runs });
            }
            Err(error) => error,
        };
        if error.kind() == ErrorKind::AgentError {
            *silent_since = None;
            return Ok(Look::Unknown(error));
        }
        if is_silence(&error) && silent_since.get_or_insert_with(Instant::now).elapsed() < SILENCE_LIMIT {
            return Ok(Look::Silent);
        }
        Err(self.failed("following a command")(error))
    }

    /// Runs a short command that may be run twice, for its status and output.
    pub(super) async fn short(&self, command: &Command) -> Result<(ExitStatus, String), CommunicatorError> {
        let status = self.short_status(command).await?;
        let mut said = status.stdout.clone();
        said.extend_from_slice(&status.stderr);
        Ok((exit_status(&status), String::from_utf8_lossy(&said).trim().to_owned()))
    }

    pub(super) async fn short_status(&self, command: &Command) -> Result<ExecStatus, CommunicatorError> {
        let mut tries = 1;
        loop {
            let pid = match self.start(&command.argv, None).await {
                Ok(pid) => pid,
                Err(CommunicatorError::Agent { source, .. }) if answer_was_lost(&source) && tries < SHORT_TRIES => {
                    tries += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (mut pause, mut silent) = (FIRST_LOOK, None);
            let lost = loop {
                match self.look(pid, &mut silent).await? {
                    Look::Ended(status) => return Ok(status),
                    Look::Unknown(error) => break error,
                    Look::Runs | Look::Silent => {}
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_LOOK);
            };
            if tries == SHORT_TRIES {
                return Err(self.failed(format!("following `{}`", command.program()))(lost));
            }
            tries += 1;
        }
    }
}

/// A command that leaves its output in files.
pub(super) struct Spooled<'a> {
    agent: &'a AgentCommunicator,
    program: &'a str,
    /// In memory: it outlives the removal of the build's own folder, and not the boot.
    folder: String,
    /// The unit that holds the command and all that it started.
    scope: String,
}

impl<'a> Spooled<'a> {
    pub(super) fn new(agent: &'a AgentCommunicator, program: &'a str) -> Self {
        let build = agent.folder.rsplit('/').next().unwrap_or_default();
        let name = format!("{build}-{}", agent.numbered());
        Self {
            agent,
            program,
            folder: format!("/run/{name}"),
            scope: format!("{name}.scope"),
        }
    }

    /// Runs the command; its output goes to the two splitters while it runs.
    pub(super) async fn to_its_end<'o>(
        &self,
        argv: Vec<String>,
        input: Option<&[u8]>,
        stdout: &mut LineSplitter<'o>,
        stderr: &mut LineSplitter<'o>,
    ) -> Result<ExitStatus, CommunicatorError> {
        let mut run = Running {
            spooled: self,
            offsets: [0, 0],
            outputs: [stdout, stderr],
            read_at: Instant::now(),
            readable: true,
        };
        let mut wrapped: Vec<String> = Vec::new();
        if self.agent.scoped {
            let unit = format!("--unit={}", self.scope);
            wrapped.extend(["systemd-run", "--quiet", "--scope", "--collect", &unit, "--"].map(str::to_owned));
        }
        wrapped.extend(["sh", "-c", SPOOL, "sh", &self.folder].map(str::to_owned));
        wrapped.extend(argv);
        let status = match self.agent.start(&wrapped, input).await {
            Ok(pid) => run.follow(pid).await?,
            // It may run: its folder tells, and nothing else has this one.
            Err(CommunicatorError::Agent { vmid, source: lost, .. }) if answer_was_lost(&lost) => {
                let again = self.begun_or_again(&mut run, &wrapped, input).await;
                again.map_err(|source| CommunicatorError::Unanswered {
                    vmid,
                    program: self.program.to_owned(),
                    lost,
                    source: Box::new(source),
                })?
            }
            Err(error) => return Err(error),
        };
        // It holds what the command printed; a sealed agent refuses this, and then it goes with the memory it is in.
        let remove = ["rm", "-rf", &self.folder].map(str::to_owned);
        let _ = self.agent.start(&remove, None).await;
        Ok(status)
    }

    /// Follows a command that may run, or starts it once more.
    async fn begun_or_again(
        &self,
        run: &mut Running<'_, '_, '_>,
        wrapped: &[String],
        input: Option<&[u8]>,
    ) -> Result<ExitStatus, CommunicatorError> {
        tokio::time::sleep(LONGEST_LOOK).await;
        if run.state().await? != State::Gone {
            return run.recover().await;
        }
        let pid = self.agent.start(wrapped, input).await?;
        match run.follow(pid).await? {
            ExitStatus::Code(BEGUN_BEFORE) => run.recover().await,
            status => Ok(status),
        }
    }

    /// Ends what a command that was ended has left running outside its process group.
    pub(super) async fn end_the_rest(&self) {
        if self.agent.scoped {
            // Nothing may be left of it, and then there is no such unit.
            let _ = self
                .agent
                .short(&Command::new(["systemctl", "stop", &self.scope]))
                .await;
        }
    }
}

/// A command that runs, and how much of its output was read.
struct Running<'a, 'b, 'c> {
    spooled: &'a Spooled<'a>,
    offsets: [u64; 2],
    outputs: [&'b mut LineSplitter<'c>; 2],
    read_at: Instant,
    /// Whether the agent lets the files be read. Nothing is lost when not: all output comes once more with the end.
    readable: bool,
}

impl Running<'_, '_, '_> {
    async fn follow(&mut self, pid: u64) -> Result<ExitStatus, CommunicatorError> {
        let agent = self.spooled.agent;
        let (mut pause, mut silent) = (FIRST_LOOK, None);
        loop {
            match agent.look(pid, &mut silent).await? {
                Look::Ended(status) => return self.finish(&status).await,
                Look::Unknown(unknown) => {
                    let ended = self.recover().await;
                    return ended.map_err(|error| self.forgotten(unknown, error));
                }
                Look::Runs if self.readable && self.read_at.elapsed() >= SPOOL_EVERY => {
                    self.readable = self.read_on().await.is_ok();
                    self.read_at = Instant::now();
                }
                Look::Runs | Look::Silent => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    }

    /// Passes on what the end brought and was not read before.
    async fn finish(&mut self, status: &ExecStatus) -> Result<ExitStatus, CommunicatorError> {
        if status.truncated {
            // The agent dropped a part, the files did not.
            self.read_on().await?;
            return Ok(exit_status(status));
        }
        for (index, said) in [&status.stdout, &status.stderr].into_iter().enumerate() {
            let from = usize::try_from(self.offsets[index]).unwrap_or(usize::MAX);
            self.outputs[index].push(said.get(from..).unwrap_or_default());
        }
        Ok(exit_status(status))
    }

    /// Goes on by the files alone.
    async fn recover(&mut self) -> Result<ExitStatus, CommunicatorError> {
        loop {
            let state = self.state().await?;
            match state {
                State::Gone => return Err(self.lost("the guest has rebooted meanwhile")),
                State::Cut => return Err(self.lost("it was ended together with the agent that ran it")),
                State::Runs | State::Ended(_) => self.read_on().await?,
            }
            if let State::Ended(code) = state {
                return Ok(ExitStatus::Code(code));
            }
            tokio::time::sleep(LONGEST_LOOK).await;
        }
    }

    /// What the files tell of the command.
    async fn state(&self) -> Result<State, CommunicatorError> {
        let look = Command::sh(STATE, [self.spooled.folder.as_str()]);
        let (status, said) = self.spooled.agent.short(&look).await?;
        match said.as_str() {
            "running" => Ok(State::Runs),
            "gone" => Ok(State::Gone),
            "cut" => Ok(State::Cut),
            code => code.parse().map(State::Ended).map_err(|_| CommunicatorError::Download {
                path: self.spooled.folder.clone(),
                reason: format!("{status}, {said}"),
            }),
        }
    }

    /// What is said when the files cannot be asked: what seals an image closes the agent.
    fn forgotten(&self, unknown: proxmox_client::Error, error: CommunicatorError) -> CommunicatorError {
        match error {
            CommunicatorError::Agent { vmid, .. } => CommunicatorError::Forgotten {
                vmid,
                program: self.spooled.program.to_owned(),
                unknown: Box::new(unknown),
                source: Box::new(error),
            },
            told => told,
        }
    }

    fn lost(&self, why: &str) -> CommunicatorError {
        CommunicatorError::Lost {
            address: format!("the guest agent of vm {}", self.spooled.agent.vm.vmid()),
            doing: format!("running `{}`: {why}", self.spooled.program),
            source: None,
        }
    }

    /// Passes on all that was written to the files since.
    async fn read_on(&mut self) -> Result<(), CommunicatorError> {
        for (index, name) in ["out", "err"].into_iter().enumerate() {
            let file = format!("{}/{name}", self.spooled.folder);
            loop {
                let from = (self.offsets[index] + 1).to_string();
                let read = Command::sh(READ_ON, [file.as_str(), &from, &READ_BYTES.to_string()]);
                let bytes = self.spooled.agent.short_status(&read).await?.stdout;
                self.offsets[index] += bytes.len() as u64;
                self.outputs[index].push(&bytes);
                if bytes.len() < READ_BYTES {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Whether a call may have been carried out all the same.
fn answer_was_lost(error: &proxmox_client::Error) -> bool {
    error.was_sent()
        && matches!(
            error.kind(),
            ErrorKind::Proxy | ErrorKind::Timeout | ErrorKind::Transport
        )
}

/// Whether the error says only that the agent, or the way to it, is silent for now.
pub(super) fn is_silence(error: &proxmox_client::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Agent | ErrorKind::Proxy | ErrorKind::Timeout | ErrorKind::Transport | ErrorKind::Connect
    )
}

fn exit_status(status: &ExecStatus) -> ExitStatus {
    match (status.exit_code, status.signal) {
        (Some(code), _) => ExitStatus::Code(u32::try_from(code).unwrap_or(u32::MAX)),
        (None, Some(signal)) => ExitStatus::Signal(signal.to_string()),
        (None, None) => ExitStatus::Code(0),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs one of the scripts above with a real shell.
    fn sh(script: &str, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(args)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    fn state(folder: &Path) -> String {
        sh(STATE, &[folder.to_str().unwrap()]).1.trim().to_owned()
    }

    #[test]
    fn a_command_leaves_its_output_and_status_in_files() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("agent-0");
        let path = folder.to_str().unwrap();
        assert_eq!(state(&folder), "gone");
        let (code, said) = sh(SPOOL, &[path, "sh", "-c", "echo 'a b'; echo warn >&2; exit 7"]);
        assert_eq!(
            (code, said.as_str()),
            (Some(7), "a b\n"),
            "all of it once more at the end"
        );
        assert_eq!(state(&folder), "7");
        let (again, _) = sh(SPOOL, &[path, "sh", "-c", "echo again"]);
        assert_eq!(again, i32::try_from(BEGUN_BEFORE).ok(), "it runs once");
        assert_eq!(state(&folder), "7");
        let out = format!("{path}/out");
        assert_eq!(sh(READ_ON, &[&out, "1", "3"]).1, "a b");
        assert_eq!(sh(READ_ON, &[&out, "4", "3"]).1, "\n");
        assert_eq!(sh(READ_ON, &[&out, "5", "3"]).1, "");
        assert_eq!(
            sh(READ_ON, &[&format!("{path}/none"), "1", "3"]),
            (Some(0), String::new())
        );
    }

    #[test]
    fn a_command_that_runs_is_told_from_one_that_was_cut_off() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("agent-0");
        let path = folder.to_str().unwrap();
        let mut running = Command::new("sh")
            .args(["-c", SPOOL, "sh", path, "sh", "-c", "echo begun; read line; exit 3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = std::time::Instant::now();
        while state(&folder) != "running" || sh(READ_ON, &[&format!("{path}/out"), "1", "9"]).1 != "begun\n" {
            assert!(begun.elapsed().as_secs() < 60, "{}", state(&folder));
            std::thread::yield_now();
        }
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(state(&folder), "cut");
    }
}
