//! `k3simage console`: a guest's serial port on this terminal, or a picture of its screen.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use image_build::{ConsoleLines, save_screen};
use proxmox_client::{Client, NodeName, Qemu, ResourceKind, SerialConsole};
use rustix::termios::{self, OptionalActions, Termios};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};

use crate::args::ConsoleArgs;
use crate::exit::Exit;
use crate::folder;
use crate::output::{Console, Problem};

/// How often the VM is asked whether it still runs: its console does not end with it (`FACTS` 70).
const LOOK: Duration = Duration::from_secs(5);
/// Ctrl-], as telnet and `virsh console` have it.
const LEAVE: u8 = 0x1d;

pub(super) async fn run(args: &ConsoleArgs, console: &Console) -> Result<Exit, Box<Problem>> {
    let client = folder::connected(args.dir.as_deref(), &args.variables, console).await?;
    let vm = find(&client, &args.vm).await?;
    if let Some(path) = &args.screenshot {
        return screenshot(&vm, path, console).await;
    }
    let asked = |error: &proxmox_client::Error| {
        Problem::of_client(
            &format!("attaching to serial port {} of vm {}", args.port, vm.vmid()),
            error,
        )
    };
    let mut serial = vm.serial_console(args.port).await.map_err(|error| asked(&error))?;
    let ended = if console.json() {
        lines(&vm, &mut serial, console).await
    } else if io::stdin().is_terminal() {
        attach(&vm, &mut serial, console).await
    } else {
        follow(&vm, &mut serial).await
    };
    ended.map_err(|error| match error {
        End::Client(error) => asked(&error),
        End::Terminal(error) => Problem::failed("using this terminal").because(&error),
    })
}

/// Why a console came to an end before its time.
enum End {
    Client(proxmox_client::Error),
    Terminal(io::Error),
}

impl From<proxmox_client::Error> for End {
    fn from(error: proxmox_client::Error) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Terminal(error)
    }
}

/// The VM of this id, or the only one of this name.
async fn find(client: &Client, wanted: &str) -> Result<Qemu, Box<Problem>> {
    let resources = client
        .cluster_resources(Some(ResourceKind::Vm))
        .await
        .map_err(|error| Problem::of_client("looking for the vm", &error))?;
    let number: Option<u32> = wanted.parse().ok();
    let found: Vec<_> = resources
        .iter()
        .filter(|resource| resource.is_qemu() && !resource.template)
        .filter(|resource| match number {
            Some(number) => resource.vmid.is_some_and(|vmid| vmid.get() == number),
            None => resource.name.as_deref() == Some(wanted),
        })
        .filter_map(|resource| Some((resource.node.as_deref()?, resource.vmid?)))
        .collect();
    match found.as_slice() {
        [(node, vmid)] => {
            let node = NodeName::new(*node).map_err(|error| {
                Problem::failed(format!("reading the cluster's list: node `{node}`")).because(&error)
            })?;
            Ok(client.node(&node).qemu(*vmid))
        }
        [] => Err(
            Problem::bad_input(format!("there is no vm `{wanted}` that this account can see"))
                .help("give its name or its number; templates have no console"),
        ),
        several => {
            let ids: Vec<String> = several.iter().map(|(node, vmid)| format!("{vmid} on {node}")).collect();
            Err(Problem::bad_input(format!("several vms are called `{wanted}`"))
                .help(format!("give one's number: {}", ids.join(", "))))
        }
    }
}

async fn screenshot(vm: &Qemu, path: &Path, console: &Console) -> Result<Exit, Box<Problem>> {
    // PVE says nothing of it where the screen is asked for (`FACTS` 67).
    if stopped(vm).await {
        return Err(Problem::failed(format!(
            "vm {} is stopped: it has no screen",
            vm.vmid()
        )));
    }
    let seen = async { vm.screen().await?.capture().await };
    let image = seen.await.map_err(|error| {
        let problem = Problem::of_client(&format!("reading the screen of vm {}", vm.vmid()), &error);
        if error.kind() == proxmox_client::ErrorKind::Transport {
            problem.help("a vm with `vga: none` has no screen")
        } else {
            problem
        }
    })?;
    save_screen(&image, path)
        .map_err(|error| Problem::failed(format!("writing {}", path.display())).because(&error))?;
    console.object(&json!({
        "event": "screenshot", "path": path, "vmid": vm.vmid().get(), "width": image.width, "height": image.height,
    }));
    console.note(format_args!(
        "{}: {} by {} pixels",
        path.display(),
        image.width,
        image.height
    ));
    Ok(Exit::Ok)
}

/// Whether the VM has stopped; an API that is out of reach for a moment says nothing.
async fn stopped(vm: &Qemu) -> bool {
    vm.status().await.is_ok_and(|status| status.is_stopped())
}

/// One JSON object a line.
async fn lines(vm: &Qemu, serial: &mut SerialConsole, console: &Console) -> Result<Exit, End> {
    let mut cleaner = ConsoleLines::default();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            bytes = serial.read() => match bytes? {
                Some(bytes) => for line in cleaner.feed(&bytes) {
                    console.object(&json!({ "event": "console", "vmid": vm.vmid().get(), "line": line }));
                },
                None => return Ok(Exit::Ok),
            },
            _ = look.tick() => if stopped(vm).await { return Ok(Exit::Ok) },
        }
    }
}

/// The guest's bytes as they are; nothing is typed.
async fn follow(vm: &Qemu, serial: &mut SerialConsole) -> Result<Exit, End> {
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            bytes = serial.read() => match bytes? {
                Some(bytes) => if !shown(&bytes)? { return Ok(Exit::Ok) },
                None => return Ok(Exit::Ok),
            },
            _ = look.tick() => if stopped(vm).await { return Ok(Exit::Ok) },
        }
    }
}

/// Writes to standard output; `false` when its reader has gone.
fn shown(bytes: &[u8]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// This terminal becomes the guest's.
async fn attach(vm: &Qemu, serial: &mut SerialConsole, console: &Console) -> Result<Exit, End> {
    console.note(format_args!(
        "attached to vm {}; Ctrl-], or ~. on a new line, leaves",
        vm.vmid()
    ));
    let raw = Raw::enter()?;
    let mut typed = typed();
    let mut escape = Escape::default();
    let mut look = tokio::time::interval(LOOK);
    let mut resized = signal(SignalKind::window_change())?;
    tell_size(serial).await?;
    let told = loop {
        tokio::select! {
            bytes = serial.read() => match bytes? {
                Some(bytes) => if !shown(&bytes)? { break "" },
                None => break "the connection has ended",
            },
            bytes = typed.recv() => {
                let Some(bytes) = bytes else { break "" };
                let (send, leave) = escape.feed(&bytes);
                if !send.is_empty() {
                    serial.write(&send).await?;
                }
                if leave {
                    break "";
                }
            }
            _ = resized.recv() => tell_size(serial).await?,
            _ = look.tick() => if stopped(vm).await { break "the vm has stopped" },
        }
    };
    drop(raw);
    console.note(if told.is_empty() { "\nleft" } else { told });
    Ok(Exit::Ok)
}

async fn tell_size(serial: &mut SerialConsole) -> Result<(), End> {
    // Output that is no terminal has no size to tell.
    if let Ok(size) = termios::tcgetwinsize(io::stdout()) {
        serial.resize(size.ws_col, size.ws_row).await?;
    }
    Ok(())
}

/// Standard input from a thread of its own: a blocked read must not hold up the end of the command.
fn typed() -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel(16);
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok(count) = io::stdin().read(&mut bytes) {
            if count == 0 || sender.blocking_send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A terminal that hands every key over as it is; as before once dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Without a terminal there is nothing left to restore.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Finds the wish to leave among typed bytes: Ctrl-], or `~.` at the beginning of a line as ssh has it; `~~` types a tilde.
#[derive(Debug, Default)]
struct Escape {
    inside_line: bool,
    tilde: bool,
}

impl Escape {
    /// What goes to the guest, and whether to leave then.
    fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut send = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == LEAVE {
                return (send, true);
            }
            if std::mem::take(&mut self.tilde) {
                match byte {
                    b'.' => return (send, true),
                    b'~' => {}
                    _ => send.push(b'~'),
                }
            } else if *byte == b'~' && !self.inside_line {
                self.tilde = true;
                continue;
            }
            self.inside_line = !matches!(byte, b'\r' | b'\n');
            send.push(*byte);
        }
        (send, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_is_found_among_what_is_typed() {
        // What is typed, in pieces; what goes to the guest; whether it leaves.
        let cases: [(&[&str], &str, bool); 8] = [
            (&["ls\r"], "ls\r", false),
            (&["ab\u{1d}cd"], "ab", true),
            (&["~."], "", true),
            (&["ls ~.\r"], "ls ~.\r", false),
            (&["ls\r", "~", "."], "ls\r", true),
            (&["~~x"], "~x", false),
            (&["~/bin\r"], "~/bin\r", false),
            (&["\u{3}"], "\u{3}", false),
        ];
        for (pieces, sent, left) in cases {
            let mut escape = Escape::default();
            let mut got = (Vec::new(), false);
            for piece in pieces {
                let (send, leave) = escape.feed(piece.as_bytes());
                got.0.extend(send);
                got.1 |= leave;
            }
            assert_eq!(got, (sent.as_bytes().to_vec(), left), "{pieces:?}");
        }
    }
}
