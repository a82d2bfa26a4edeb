//! The installer: finds its kickstart, and makes of it what will be on the disk.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use super::crypt;
use super::files::base_name;
use super::firmware::{Medium, disk_names, mac};
use super::host::Host;
use super::http;
use super::iso::IsoFile;
use super::kickstart::{self, Command, Kickstart, Script, When};
use super::packages;
use super::shell::Shell;
use super::shell::io::{Input, Io, Output};
use super::system::System;
use crate::engine::{Drive, Launch};

/// Label of the volume that Anaconda looks at when the kernel line names no kickstart.
const OEMDRV: &str = "OEMDRV";

/// What ends the installer's own work before the disk is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stuck {
    /// It asks and waits; the questions.
    Waits(Vec<String>),
    /// It stopped with an error; the lines on the screen.
    Failed(Vec<String>),
}

/// The kickstart that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) source: String,
    pub(super) text: String,
}

/// What the installer does when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    Reboot {
        eject: bool,
    },
    PowerOff,
    Halt,
    /// Waits for Enter.
    Wait,
}

/// Everything decided before the first byte is written.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) kickstart: Kickstart,
    pub(super) system: System,
    /// Slot and file of the disk to install on.
    pub(super) disk: (String, PathBuf),
    pub(super) at_end: AtEnd,
}

/// Value of a kernel argument; the last one counts.
pub(super) fn argument<'a>(kernel_line: &'a str, name: &str) -> Option<&'a str> {
    let words = kernel_line.split_whitespace().rev();
    words.into_iter().find_map(|word| match word.split_once('=') {
        Some((key, value)) if key == name => Some(value),
        None if word == name => Some(""),
        _ => None,
    })
}

/// Whether a volume with the label of a driver disk is in a drive. Reads files.
pub(super) fn has_oemdrv(launch: &Launch) -> bool {
    volume(&launch.drives, OEMDRV).is_some()
}

fn volume(drives: &[Drive], label: &str) -> Option<IsoFile> {
    // blkid compares labels as they are; an ISO's are mostly capitals.
    drives
        .iter()
        .filter_map(|drive| IsoFile::open(&drive.path).ok())
        .find(|iso| iso.label() == label)
}

/// Looks for the kickstart where the kernel line says, or on a volume `OEMDRV`; `None` if there is none.
///
/// # Errors
/// The lines dracut prints when a kickstart was asked for and cannot be had.
pub(super) async fn find_kickstart(launch: &Launch, kernel_line: &str) -> Result<Option<Found>, Vec<String>> {
    let Some(source) = argument(kernel_line, "inst.ks").map(str::to_owned) else {
        let drives = launch.drives.clone();
        let found = blocking(move || volume(&drives, OEMDRV).map(|mut iso| iso.read("/ks.cfg"))).await;
        return match found {
            Some(Ok(Some(bytes))) => Ok(Some(Found {
                source: format!("{OEMDRV}:/ks.cfg"),
                text: String::from_utf8_lossy(&bytes).into_owned(),
            })),
            Some(Err(error)) => Err(unfetched(&format!("hd:LABEL={OEMDRV}:/ks.cfg"), &error.to_string())),
            Some(Ok(None)) | None => Ok(None),
        };
    };
    let bytes = if source.contains("://") {
        if mac(&launch.config).is_none() {
            Err("no network device".to_owned())
        } else {
            http::get(&source).await
        }
    } else {
        let drives = launch.drives.clone();
        let wanted = source.clone();
        blocking(move || from_drives(&drives, &wanted)).await
    };
    match bytes {
        Ok(bytes) => Ok(Some(Found {
            source,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })),
        Err(why) => Err(unfetched(&source, &why)),
    }
}

fn unfetched(source: &str, why: &str) -> Vec<String> {
    vec![
        format!("dracut-initqueue: {why}"),
        format!("dracut-initqueue: Warning: anaconda: failed to fetch kickstart from {source}"),
        "dracut-initqueue: Warning: dracut-initqueue: timeout, still waiting for following initqueue hooks:".to_owned(),
        "Warning: Kickstart file could not be fetched. Entering emergency mode.".to_owned(),
        "dracut:/#".to_owned(),
    ]
}

/// `hd:LABEL=X:/path`, `hd:sr1:/path`, `cdrom:/path`, `cdrom:sr0:/path`.
fn from_drives(drives: &[Drive], source: &str) -> Result<Vec<u8>, String> {
    let (kind, rest) = source.split_once(':').unwrap_or((source, ""));
    let (device, path) = rest.split_once(":/").map_or_else(
        || rest.strip_prefix('/').map_or((rest, "ks.cfg"), |path| ("", path)),
        |(device, path)| (device, path),
    );
    let cdroms = || drives.iter().filter(|drive| drive.cdrom);
    let mut volumes: Vec<IsoFile> = match (kind, device) {
        ("hd" | "cdrom", device) if device.starts_with("LABEL=") => volume(drives, &device[6..]).into_iter().collect(),
        ("cdrom", "") => cdroms().filter_map(|drive| IsoFile::open(&drive.path).ok()).collect(),
        ("hd" | "cdrom", device) => {
            let number = base_name(device)
                .strip_prefix("sr")
                .and_then(|number| number.parse::<usize>().ok());
            number
                .and_then(|number| cdroms().nth(number))
                .and_then(|drive| IsoFile::open(&drive.path).ok())
                .into_iter()
                .collect()
        }
        _ => return Err(format!("unknown kickstart source {source}")),
    };
    if volumes.is_empty() {
        return Err(format!("no volume for {source}"));
    }
    for iso in &mut volumes {
        match iso.read(&format!("/{path}")) {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("/{path}: No such file or directory"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Whether a kernel with these arguments writes to the first serial port.
pub(super) fn serial_console(arguments: &str) -> bool {
    arguments
        .split_whitespace()
        .any(|argument| argument == "console=ttyS0" || argument.starts_with("console=ttyS0,"))
}

/// Decides everything, or says why the installer cannot go on.
pub(super) fn plan(launch: &Launch, medium: &Medium, kernel_line: &str, found: Option<&Found>) -> Result<Plan, Stuck> {
    let Some(found) = found else {
        return Err(Stuck::Waits(vec![
            "Language settings, Time settings, Installation source, Software selection, Installation Destination, Root password".to_owned(),
        ]));
    };
    let kickstart = kickstart::parse(&found.text).map_err(|error| {
        Stuck::Failed(vec![
            format!(
                "The following problem occurred on line {} of the kickstart file:",
                error.line
            ),
            String::new(),
            error.message,
        ])
    })?;
    let disk = choose_disk(launch, &kickstart)?;
    let mut questions: Vec<String> = kickstart
        .questions(medium.kind != "boot")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let networked = mac(&launch.config).is_some();
    if kickstart.has(&["url", "nfs"]) && !networked {
        questions.push("Installation source (the repository cannot be reached: no network device)".to_owned());
    }
    questions.extend(missing_packages(&kickstart, medium, networked));
    if !questions.is_empty() {
        // `inst.cmdline` promises never to ask.
        if argument(kernel_line, "inst.cmdline").is_some() || kickstart.has(&["cmdline"]) {
            let mut lines = vec!["Can't ask for input in command line mode. Missing:".to_owned()];
            lines.extend(questions);
            return Err(Stuck::Failed(lines));
        }
        return Err(Stuck::Waits(questions));
    }
    let mut system = install(&kickstart, medium);
    let appended = kickstart
        .command("bootloader")
        .and_then(|command| command.option("append"));
    // Anaconda hands the consoles of its own kernel line on to the installed system (its docs/boot-options.rst, `console=`).
    system.serial_console = serial_console(kernel_line) || appended.is_some_and(serial_console);
    let at_end = at_end(&kickstart);
    Ok(Plan {
        kickstart,
        system,
        disk,
        at_end,
    })
}

fn at_end(kickstart: &Kickstart) -> AtEnd {
    let last = kickstart
        .commands
        .iter()
        .rev()
        .find(|command| matches!(command.name.as_str(), "reboot" | "poweroff" | "shutdown" | "halt"));
    match last.map(|command| (command.name.as_str(), command)) {
        Some(("reboot", command)) => AtEnd::Reboot {
            eject: command.flag("eject"),
        },
        Some(("halt", _)) => AtEnd::Halt,
        Some(_) => AtEnd::PowerOff,
        None => AtEnd::Wait,
    }
}

/// The disk that the kickstart names, else the first; a name that no disk has stops Anaconda.
fn choose_disk(launch: &Launch, kickstart: &Kickstart) -> Result<(String, PathBuf), Stuck> {
    let names = disk_names(&launch.drives);
    let mut only: Option<Vec<&str>> = None;
    for (command, options) in [
        ("ignoredisk", &["only-use"][..]),
        ("clearpart", &["drives"]),
        ("bootloader", &["boot-drive"]),
        ("part", &["ondisk", "ondrive"]),
        ("partition", &["ondisk", "ondrive"]),
    ] {
        for given in kickstart.all(command) {
            for value in options.iter().filter_map(|option| given.option(option)) {
                let wanted: Vec<&str> = value
                    .split(',')
                    .map(|name| name.strip_prefix("/dev/").unwrap_or(name))
                    .collect();
                let unknown = wanted.iter().find(|name| {
                    // Names with a pattern or a by-id path are matched by the kernel's own means.
                    !name.contains(['*', '/']) && !names.iter().any(|(_, known)| known == *name)
                });
                if let Some(unknown) = unknown {
                    return Err(Stuck::Failed(vec![
                        format!(
                            "The following problem occurred on line {} of the kickstart file:",
                            given.line
                        ),
                        String::new(),
                        format!("Disk \"{unknown}\" given in {command} command does not exist."),
                    ]));
                }
                only.get_or_insert(wanted);
            }
        }
    }
    let chosen = names.iter().find(|(_, name)| {
        only.as_ref()
            .is_none_or(|only| only.iter().any(|wanted| wanted == name || wanted.contains(['*', '/'])))
    });
    let drive = chosen.and_then(|(slot, _)| launch.drives.iter().find(|drive| drive.slot == *slot));
    match drive {
        Some(drive) => Ok((drive.slot.clone(), drive.path.clone())),
        None => Err(Stuck::Waits(vec!["Installation Destination (no disks)".to_owned()])),
    }
}

/// Packages that the sources at hand do not have. The minimal ISO carries no AppStream.
fn missing_packages(kickstart: &Kickstart, medium: &Medium, networked: bool) -> Option<String> {
    let packages = kickstart.packages.as_ref()?;
    let ignore = packages.options.iter().any(|option| option == "--ignoremissing");
    let remote = networked && kickstart.has(&["url", "nfs", "repo"]);
    if remote || ignore || medium.kind != "minimal" {
        return None;
    }
    let missing: Vec<&str> = packages
        .included
        .iter()
        .map(String::as_str)
        .filter(|name| packages::is_in_appstream(name))
        .collect();
    (!missing.is_empty()).then(|| {
        format!("The following packages, groups or modules are missing: {}. Would you like to ignore this and continue with installation?", missing.join(", "))
    })
}

/// `network --bootproto=static --ip=...`: the profile that Anaconda writes for NetworkManager.
fn fixed_address(command: &Command, system: &mut System) {
    let given = |name| command.option(name).and_then(|text| text.parse::<Ipv4Addr>().ok());
    if command.option("bootproto") != Some("static") {
        return;
    }
    let Some(address) = given("ip") else { return };
    let prefix = given("netmask").map_or(24, |mask| u32::from(mask).count_ones());
    let gateway = given("gateway").map_or(String::new(), |gateway| format!(",{gateway}"));
    // The one device a guest is seen with, whatever name or `link` the line gives it.
    system.files.put(
        "/etc/NetworkManager/system-connections/eth0.nmconnection",
        format!(
            "[connection]\nid=eth0\ntype=ethernet\n\n[ipv4]\naddress1={address}/{prefix}{gateway}\nmethod=manual\n"
        ),
        0o600,
    );
}

/// The system that the kickstart describes, before its `%post` sections.
fn install(kickstart: &Kickstart, medium: &Medium) -> System {
    let mut system = System::base(medium.major, &medium.release);
    if let Some(section) = &kickstart.packages {
        // Core is always there unless it is told not to be.
        if !section.options.iter().any(|option| option == "--nocore") {
            system.install("@core");
        }
        for name in &section.included {
            system.install(name);
        }
        for name in &section.excluded {
            system.uninstall(name);
        }
    }
    users(kickstart, &mut system);
    for command in kickstart.all("network") {
        if let Some(name) = command.option("hostname").filter(|name| !name.is_empty()) {
            system.files.put("/etc/hostname", format!("{name}\n"), 0o644);
        }
        fixed_address(command, &mut system);
    }
    for command in kickstart.all("services") {
        for (option, enabled) in [("disabled", false), ("enabled", true)] {
            for name in command
                .option(option)
                .unwrap_or_default()
                .split(',')
                .filter(|name| !name.trim().is_empty())
            {
                let unit = System::unit_name(name.trim());
                // systemctl in the installer complains about a unit that is not there; the install goes on.
                if system.has_unit(&unit) || unit == "sshd.service" && system.packages.contains("openssh-server") {
                    system.unit_mut(&unit).enabled = enabled;
                }
            }
        }
    }
    if let Some(command) = kickstart.command("firewall")
        && command.args.iter().any(|arg| arg == "--disabled" || arg == "--disable")
        && system.has_unit("firewalld.service")
    {
        system.unit_mut("firewalld.service").enabled = false;
    }
    if let Some(command) = kickstart.command("selinux") {
        let mode = ["permissive", "disabled"]
            .into_iter()
            .find(|mode| command.flag(mode))
            .unwrap_or("enforcing");
        system.files.put(
            "/etc/selinux/config",
            format!("SELINUX={mode}\nSELINUXTYPE=targeted\n"),
            0o644,
        );
    }
    if let Some(zone) = kickstart.command("timezone").and_then(|command| {
        command
            .positional(&["ntpservers"])
            .first()
            .map(|zone| (*zone).to_owned())
    }) {
        system.files.insert(
            "/etc/localtime".to_owned(),
            super::files::Kind::Link(format!("../usr/share/zoneinfo/{zone}")),
            0o777,
            "root",
        );
    }
    if let Some(lang) = kickstart.command("lang").and_then(|command| command.args.first()) {
        system
            .files
            .put("/etc/locale.conf", format!("LANG=\"{lang}\"\n"), 0o644);
    }
    system
}

fn users(kickstart: &Kickstart, system: &mut System) {
    let hashed = |command: &kickstart::Command, password: &str| {
        if command.flag("iscrypted") {
            password.to_owned()
        } else {
            crypt::hash(password)
        }
    };
    if let Some(command) = kickstart.command("rootpw") {
        if let Some(password) = command.positional(&[]).first() {
            let hash = hashed(command, password);
            let lock = if command.flag("lock") { "!" } else { "" };
            system.set_password_hash("root", &format!("{lock}{hash}"));
        }
        if command.flag("allow-ssh") {
            // The file Anaconda itself writes.
            system.files.put(
                "/etc/ssh/sshd_config.d/01-permitrootlogin.conf",
                "PermitRootLogin yes\n",
                0o600,
            );
        }
    }
    for command in kickstart.all("user") {
        let Some(name) = command.option("name") else { continue };
        let groups: Vec<&str> = command
            .option("groups")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|group| !group.is_empty())
            .collect();
        system.add_user(name, &groups, command.option("shell").unwrap_or("/bin/bash"));
        if let Some(password) = command.option("password") {
            let lock = if command.flag("lock") { "!" } else { "" };
            system.set_password_hash(name, &format!("{lock}{}", hashed(command, password)));
        }
    }
    for command in kickstart.all("sshkey") {
        let Some(user) = command.option("username") else {
            continue;
        };
        for key in command.positional(&["username"]) {
            system.authorise_key(user, key);
        }
    }
}

/// Carries out what `%post` does to files, users and units, as far as the shell knows its commands; everything else in
/// it is taken as done. The message of the first section that failed with `--erroronfail`.
pub(super) async fn run_post(kickstart: &Kickstart, host: &Arc<Host>) -> Result<Vec<String>, Vec<String>> {
    let mut console = Vec::new();
    for script in kickstart.scripts.iter().filter(|script| script.when == When::Post) {
        let (code, output) = run_section(script, host).await;
        console.extend(output.lines().map(str::to_owned));
        if code != 0 {
            console.push(format!(
                "%post script on line {} failed with exit code {code}",
                script.line
            ));
            if script.has("--erroronfail") {
                let mut lines = vec![format!(
                    "There was an error running the kickstart script at line {}. This is a fatal error and installation will be aborted. The details of this error are:",
                    script.line
                )];
                lines.extend(output.lines().map(str::to_owned));
                return Err(lines);
            }
        }
    }
    Ok(console)
}

async fn run_section(script: &Script, host: &Arc<Host>) -> (i32, String) {
    let interpreter = script
        .options
        .iter()
        .skip_while(|option| *option != "--interpreter")
        .nth(1);
    if interpreter.is_some_and(|interpreter| !matches!(base_name(interpreter), "sh" | "bash")) {
        return (0, String::new());
    }
    // Outside the chroot the new system lies below these two.
    let body = if script.has("--nochroot") {
        script.body.replace("/mnt/sysimage", "").replace("/mnt/sysroot", "")
    } else {
        script.body.clone()
    };
    let Some(shell) = Shell::login(host, "root") else {
        return (0, String::new());
    };
    let mut shell = shell.skipping_unknown();
    let (stdout, written) = Output::buffer();
    let io = Io {
        stdin: Input::empty(),
        stderr: stdout.clone(),
        stdout,
    };
    let code = shell.run(&body, &io).await;
    let output = String::from_utf8_lossy(&super::host::lock(&written)).into_owned();
    if let Some(log) = script.options.iter().find_map(|option| option.strip_prefix("--log=")) {
        host.system().files.put(log, output.clone(), 0o600);
    }
    (code, output)
}

#[cfg(test)]
#[path = "installer_tests.rs"]
mod tests;
