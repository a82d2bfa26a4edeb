//! The guest's console during a build: its lines become events, its last words an error, its screen a file.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proxmox_client::{ErrorKind, Qemu, SerialConsole};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::context::Context;
use super::event::Emitter;
use super::vm::{boots, may_pass};
use crate::communicator::OutputStream;
use crate::console::clean::ConsoleLines;
use crate::console::mask::Masker;
use crate::console::picture::save_screen;
use crate::console::signs::{self, Means, Sign};
use crate::plan::PlanReport;
use crate::spec::{EnvValue, KickstartSource, ProvisionerSpec};
use crate::{Error, ImageSpec};

/// Serial port that the build's VM has.
const PORT: u8 = 0;
/// Where the lines come from, in events.
const SOURCE: &str = "console";
/// How many last lines an error carries.
const TAIL: usize = 12;
/// A question that stands so long with nothing after it waits for a person; Anaconda answers its own within seconds.
const QUESTION_GRACE: Duration = Duration::from_secs(20);
/// How many jobs that systemd waits for are remembered as told; a boot has some dozens of units.
const MAX_JOBS: usize = 256;
/// How long the guest may go on telling after the line that means its end: the error is to carry those lines too.
const SETTLE: Duration = Duration::from_secs(2);
/// How often it is looked at whether the guest is lost.
const LOOK: Duration = Duration::from_millis(500);
/// Pauses before attaching again to a port that was lost. Each attempt is a task on the node.
const REATTACH: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// How long the screen may take at a failure.
const SCREEN_LIMIT: Duration = Duration::from_secs(20);

/// What the guest has said since it was started last.
#[derive(Debug, Default)]
struct Said {
    tail: VecDeque<String>,
    /// The line that has no end yet: a prompt.
    rest: String,
    lines: u64,
    end: Option<(&'static Sign, String, Instant)>,
    question: Option<(&'static Sign, String, Instant)>,
    cause: Option<(&'static Sign, String)>,
    /// Whether the guest has been sealed, or is just being.
    sealed: bool,
    /// The line by which a guest that was sealed has begun another boot.
    restarted: Option<String>,
}

impl Said {
    fn hear(&mut self, line: &str) {
        self.lines += 1;
        self.rest.clear();
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
        if self.sealed && self.restarted.is_none() && signs::is_boot(line) {
            self.restarted = Some(line.to_owned());
        }
        // Whatever was asked, it went on; but logs speak at any time.
        if !self.judge(line) && !signs::is_aside(line) {
            self.question = None;
        }
    }

    /// A line without an end. It is part of a question or may become one, so it answers none.
    fn hear_rest(&mut self, rest: &str) {
        rest.clone_into(&mut self.rest);
        self.judge(rest);
    }

    /// Whether the line means something.
    fn judge(&mut self, line: &str) -> bool {
        let Some(sign) = signs::read(line) else { return false };
        match sign.means {
            Means::End => {
                self.end.get_or_insert_with(|| (sign, line.to_owned(), Instant::now()));
            }
            Means::Waits if self.question.as_ref().is_some_and(|(known, ..)| *known == sign) => {}
            Means::Waits => self.question = Some((sign, line.to_owned(), Instant::now())),
            Means::Cause => self.cause = Some((sign, line.to_owned())),
        }
        true
    }

    /// Why the guest will not get any further, once the sign has stood for `settled` after an end.
    fn verdict(&self, settled: Duration) -> Option<String> {
        let (sign, line) = match (&self.end, &self.question) {
            (Some((sign, line, since)), _) if since.elapsed() >= settled => (sign, line),
            (None, Some((sign, line, since))) if since.elapsed() >= QUESTION_GRACE => (sign, line),
            _ => return None,
        };
        let cause = self
            .cause
            .as_ref()
            .map(|(cause, line)| format!("; before that, {}: {line}", cause.story));
        Some(format!(
            "{} (on its console: {line}){}",
            sign.story,
            cause.unwrap_or_default()
        ))
    }

    fn last(&self) -> Vec<String> {
        let rest = Some(&self.rest).filter(|rest| !rest.is_empty());
        self.tail.iter().chain(rest).cloned().collect()
    }
}

/// A build's ear at the guest's serial port, and its eye for the screen.
#[derive(Debug, Default)]
pub(crate) struct GuestConsole {
    said: Arc<Mutex<Said>>,
    following: Option<JoinHandle<()>>,
    /// That there is no console is said once.
    told: Arc<AtomicBool>,
    /// The guest was started by this build, and it may look.
    started: bool,
    /// Where a screen goes.
    pub(super) picture: Option<PathBuf>,
}

/// What was seen of a guest when a step failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sight {
    /// A picture of its screen (PNG), where one could be had.
    pub screen: Option<PathBuf>,
    /// The last lines of its serial console, where it has one and writes to it.
    pub console: Vec<String>,
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GuestConsole {
    /// Why waiting for this guest makes no sense any more, in its own words.
    pub(crate) fn verdict(&self) -> Option<String> {
        lock(&self.said).verdict(SETTLE)
    }

    /// The same of a guest that has stopped: nothing more will be heard of it.
    pub(crate) fn last_verdict(&self) -> Option<String> {
        lock(&self.said).verdict(Duration::ZERO)
    }

    /// Ends when the guest has said that it is lost. A question does not count: it may be a script's, which has its own limit.
    pub(crate) async fn lost(&self) -> String {
        loop {
            if lock(&self.said).end.is_some()
                && let Some(verdict) = self.verdict()
            {
                return verdict;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// From now on the guest must not boot again.
    pub(crate) fn seal(&self) {
        lock(&self.said).sealed = true;
    }

    /// How many lines it has said since it was started last.
    pub(crate) fn lines(&self) -> u64 {
        lock(&self.said).lines
    }

    /// Listens from now on, to a guest that was just started: PVE's stream outlives the guest's process and must be opened
    /// again after each start, and it has one reader at a time (`FACTS` 70, 71).
    fn follow(&mut self, vm: Qemu, emitter: Arc<Emitter>, secrets: Vec<SecretString>) {
        self.end();
        self.said = Arc::default();
        let listener = Listener {
            vm,
            said: Arc::clone(&self.said),
            told: Arc::clone(&self.told),
            emitter,
            secrets,
        };
        self.following = Some(tokio::spawn(listener.run()));
    }

    fn end(&mut self) {
        if let Some(following) = self.following.take() {
            following.abort();
        }
    }
}

impl Drop for GuestConsole {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads one run of the guest, from its start to the next.
struct Listener {
    vm: Qemu,
    said: Arc<Mutex<Said>>,
    told: Arc<AtomicBool>,
    emitter: Arc<Emitter>,
    secrets: Vec<SecretString>,
}

impl Listener {
    async fn run(self) {
        let mut pauses = REATTACH.iter();
        let problem = loop {
            let problem = match self.vm.serial_console(PORT).await {
                Ok(console) => {
                    let (heard, problem) = self.listen(console).await;
                    if heard {
                        pauses = REATTACH.iter();
                    }
                    problem
                }
                // A guest that has stopped has nothing to say.
                Err(error) if error.kind() == ErrorKind::State && self.has_stopped().await => return,
                Err(error) => Some(error),
            };
            // A node that restarts its services ends the stream, and the guest goes on. Each attempt has a ticket of its own.
            let pause = pauses.next().filter(|_| problem.as_ref().is_none_or(may_pass));
            match pause {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => break problem,
            }
        };
        let Some(error) = problem else { return };
        if !self.told.swap(true, Ordering::Relaxed) {
            let advice = if error.kind() == ErrorKind::Permission {
                "; the privilege VM.Console gives it"
            } else {
                ""
            };
            self.emitter.warning(format!(
                "the guest's serial console cannot be read, the build goes on without: {error}{advice}"
            ));
        }
    }

    async fn has_stopped(&self) -> bool {
        self.vm.status().await.is_ok_and(|status| status.is_stopped())
    }

    /// Whether anything was heard, and what ended it if not the server.
    async fn listen(&self, mut console: SerialConsole) -> (bool, Option<proxmox_client::Error>) {
        let mut cleaner = ConsoleLines::default();
        let mut heard = false;
        let mut jobs = BTreeSet::new();
        let mut masker = Masker::new(&self.secrets);
        loop {
            match console.read().await {
                Ok(Some(bytes)) => {
                    heard = true;
                    let lines = cleaner.feed(&bytes);
                    for line in &lines {
                        // Told several times a second, for as long as it lasts.
                        if signs::job_of(line).is_some_and(|job| !jobs.insert(job.to_owned())) {
                            continue;
                        }
                        if jobs.len() > MAX_JOBS {
                            jobs.clear();
                        }
                        let line = if signs::is_aside(line) {
                            masker.aside(line)
                        } else {
                            masker.line(line)
                        };
                        self.emitter.log(SOURCE, OutputStream::Stdout, &line);
                        lock(&self.said).hear(&line);
                    }
                    lock(&self.said).hear_rest(&masker.rest(cleaner.rest()));
                }
                Ok(None) => return (heard, None),
                Err(error) => return (heard, Some(error)),
            }
        }
    }
}

/// What a console must not show: every secret that the build hands to the guest.
fn secrets(spec: &ImageSpec) -> Vec<SecretString> {
    let scripts = spec.provisioners.iter().filter_map(|provisioner| match provisioner {
        ProvisionerSpec::Shell(shell) => Some(shell),
        ProvisionerSpec::File(_) => None,
    });
    let kickstart = match &spec.installer.kickstart {
        KickstartSource::Text { text, .. } => text.secrets(),
        KickstartSource::Model(_) => &[],
    };
    scripts
        .chain(&spec.seal)
        .flat_map(|shell| &shell.env)
        .filter_map(|(_, value)| match value {
            EnvValue::Secret(secret) => Some(secret.clone()),
            EnvValue::Plain(_) => None,
        })
        .chain(spec.communicator.ssh.password.clone())
        .chain(kickstart.iter().cloned())
        .collect()
}

impl Context {
    /// Listens to the guest that was just started, where the VM has a serial port.
    pub(super) fn hear_guest(&mut self) -> Result<(), Error> {
        // The preflight has said so.
        if self.report.as_ref().is_some_and(PlanReport::lacks_console) {
            return Ok(());
        }
        self.console.started = true;
        if self.spec.hardware.serial {
            let vm = self.vm()?;
            let mut secrets = secrets(&self.spec);
            // The installer and its kernel print the address that they fetch the kickstart from.
            secrets.extend(self.server.as_ref().map(|server| SecretString::from(server.secret())));
            // The kickstart writes the guest's host key; the lines around it are those of any key.
            let key = self.keys.as_ref().and_then(|keys| keys.host_private_file().ok());
            let key = key.iter().flat_map(|key| key.expose_secret().lines());
            secrets.extend(key.filter(|line| !line.starts_with("-----")).map(SecretString::from));
            self.console.follow(vm, Arc::clone(&self.emitter), secrets);
        }
        Ok(())
    }

    /// Refuses an image whose guest was reset between its seal and its shutdown: its boot has made what clones must not share. A
    /// guest without a serial console, or one whose stream is lost at that moment, does not tell; a reset from outside is a task, for
    /// which [`never_booted`](Self::never_booted) looks.
    pub(super) fn still_sealed(&self) -> Result<(), Error> {
        match &lock(&self.console.said).restarted {
            None => Ok(()),
            Some(line) => Err(Error::Impossible {
                what: "an image whose clones differ".to_owned(),
                reason: format!(
                    "the guest restarted after it was sealed (on its console: {line}) and has made itself an identity again; build anew"
                ),
            }),
        }
    }

    /// Refuses an image whose guest was started or reset by a task since its seal was begun: by one of this login, with `Sys.Audit` of any.
    pub(super) async fn never_booted(&self) -> Result<(), Error> {
        let Some(before) = self.boots else { return Ok(()) };
        let now = boots(&self.client, &self.vm()?, &self.cancel).await?;
        if now <= before {
            return Ok(());
        }
        Err(Error::Impossible {
            what: "an image whose clones differ".to_owned(),
            reason: format!(
                "vm {} was started or reset by somebody after it was sealed, and has made itself an identity again; build anew",
                self.vmid()?
            ),
        })
    }

    /// What can be seen of the guest now that a step has failed. Never fails itself.
    pub(super) async fn see_guest(&mut self, error: &Error) -> Sight {
        if !self.console.started || error.is_cancelled() {
            return Sight::default();
        }
        let console = lock(&self.console.said).last();
        let (Some(path), Ok(vm)) = (self.console.picture.clone(), self.vm()) else {
            return Sight { screen: None, console };
        };
        let seen = async { vm.screen().await?.capture().await };
        let Ok(seen) = self.or_cancel(tokio::time::timeout(SCREEN_LIMIT, seen)).await else {
            return Sight { screen: None, console };
        };
        let problem = match seen {
            Ok(Ok(image)) => match save_screen(&image, &path) {
                Ok(()) => {
                    return Sight {
                        screen: Some(path),
                        console,
                    };
                }
                Err(error) => format!("writing {}: {error}", path.display()),
            },
            // A guest that has stopped has no screen: PVE just ends the stream (FACTS 67).
            Ok(Err(error)) if error.kind() == ErrorKind::Transport => String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing came within {} s", SCREEN_LIMIT.as_secs()),
        };
        if !problem.is_empty() {
            self.emitter
                .warning(format!("no picture of the guest's screen: {problem}"));
        }
        Sight { screen: None, console }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_counts_once_nothing_follows_it() {
        let verdict = |said: &Said| said.verdict(SETTLE);
        let mut said = Said::default();
        // As the installer breaks it after 80 columns.
        said.hear("Please make a selection from the above ['b' to begin installation, 'q' to");
        said.hear_rest("quit, 'r' to refresh]:");
        assert_eq!(verdict(&said), None, "it may go on by itself");
        said.hear("quit, 'r' to refresh]: [  301.118272] audit: backlog limit exceeded");
        tokio::time::advance(QUESTION_GRACE).await;
        assert!(verdict(&said).is_some_and(|verdict| verdict.contains("asks a question")));
        said.hear("Starting package installation process");
        assert_eq!(verdict(&said), None);
        said.hear("Kernel panic - not syncing: Fatal exception in interrupt");
        said.hear("---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---");
        assert_eq!(verdict(&said), None, "it still tells");
        assert!(said.verdict(Duration::ZERO).is_some());
        tokio::time::advance(SETTLE).await;
        let verdict = verdict(&said).expect("the end");
        assert_eq!(
            verdict,
            "the guest's kernel panicked (on its console: Kernel panic - not syncing: Fatal exception in interrupt)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_cause_of_an_end_is_told_with_it() {
        let mut said = Said::default();
        said.hear("Warning: anaconda: failed to fetch kickstart from http://192.0.2.1/ks.cfg");
        tokio::time::advance(QUESTION_GRACE * 10).await;
        assert_eq!(said.verdict(SETTLE), None, "another device may fetch it");
        said.hear("Entering emergency mode. Exit the shell to continue.");
        let verdict = said.verdict(Duration::ZERO).expect("the end");
        assert!(
            verdict.starts_with("the initial ramdisk gave up")
                && verdict.ends_with(
                    "; before that, the kickstart could not be fetched: Warning: anaconda: failed to fetch kickstart from \
                     http://192.0.2.1/ks.cfg"
                ),
            "{verdict}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_guest_ends_what_runs_in_it_and_a_question_does_not() {
        let console = GuestConsole::default();
        lock(&console.said).hear("Installation complete. Press ENTER to quit:");
        let waiting = tokio::time::timeout(QUESTION_GRACE * 10, console.lost()).await;
        assert!(waiting.is_err(), "{waiting:?}");
        let said = Arc::clone(&console.said);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            lock(&said).hear("Kernel panic - not syncing: Out of memory");
        });
        let begun = Instant::now();
        let reason = console.lost().await;
        assert!(reason.starts_with("the guest's kernel panicked"), "{reason}");
        assert!(begun.elapsed() < Duration::from_secs(60) + SETTLE + LOOK * 2);
    }

    #[test]
    fn a_boot_after_the_seal_is_remembered() {
        for line in [
            "[    0.000000] Linux version 5.14.0-611.el9.x86_64 (mockbuild@x86) #1 SMP",
            "Welcome to AlmaLinux 9.7 (Moss Jungle Cat)!",
            "systemd[1]: Detected first boot.",
        ] {
            let console = GuestConsole::default();
            lock(&console.said).hear(line);
            console.seal();
            lock(&console.said).hear("systemd[1]: Stopping Session 1 of User root...");
            lock(&console.said).hear("Welcome to the seal");
            assert_eq!(lock(&console.said).restarted, None);
            lock(&console.said).hear(line);
            lock(&console.said).hear("alma login:");
            assert_eq!(lock(&console.said).restarted.as_deref(), Some(line));
        }
    }

    #[test]
    fn the_last_lines_are_kept_with_the_prompt() {
        let mut said = Said::default();
        for number in 0..100 {
            said.hear(&format!("line {number}"));
        }
        said.hear_rest("login:");
        assert_eq!((said.tail.len(), said.lines), (TAIL, 100));
        assert_eq!(said.last()[TAIL - 1..], ["line 99", "login:"]);
    }
}
