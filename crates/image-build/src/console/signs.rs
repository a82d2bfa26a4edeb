//! Lines that say that a guest will not get any further, and what to do about each.

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// Nothing can come after it.
    End,
    /// It waits for a person, unless it goes on by itself soon.
    Waits,
    /// It may go on, but if the guest ends, this is why.
    Cause,
}

/// One thing that a console can say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sign {
    /// Part of the line. Anaconda's text mode breaks its texts after 80 columns, so what is looked for stands before that.
    text: &'static str,
    pub(crate) means: Means,
    /// What has happened, and what to do.
    pub(crate) story: &'static str,
}

const fn end(text: &'static str, story: &'static str) -> Sign {
    Sign {
        text,
        means: Means::End,
        story,
    }
}

const fn waits(text: &'static str, story: &'static str) -> Sign {
    Sign {
        text,
        means: Means::Waits,
        story,
    }
}

const fn cause(text: &'static str, story: &'static str) -> Sign {
    Sign {
        text,
        means: Means::Cause,
        story,
    }
}

/// Whether a line belongs to the begin of a boot of an installed system.
///
/// # Source
/// Linux init/version.c, `linux_banner`; systemd src/core/main.c, the status `Welcome to NAME!` and what a machine without an id logs.
pub(crate) fn is_boot(line: &str) -> bool {
    let welcome = line.contains("Welcome to ") && line.trim_end().ends_with('!');
    welcome || line.contains("Linux version ") || line.contains("Detected first boot")
}

/// The first that fits counts. Before each the program that prints it, and where.
///
/// # Source
/// Anaconda 34 (EL9) and its `text` and `cmdline` modes, pykickstart, dracut 057, systemd 252, Linux 5.14, glibc 2.34, GRUB 2.06,
/// EDK2 and SeaBIOS: the files named below. None of these lines is part of a boot that goes well.
const SIGNS: &[Sign] = &[
    // glibc sysdeps/x86/dl-get-cpu-features.c; AlmaLinux 9 is built for x86-64-v2.
    end(
        "Fatal glibc error: CPU does not support x86-64-v",
        "the vm's CPU type is too old for this system: use vm_cpu_type = \"x86-64-v2-AES\" or \"host\"",
    ),
    // Linux kernel/panic.c.
    end("Kernel panic - not syncing", "the guest's kernel panicked"),
    // Linux kernel/reboot.c, kernel_halt.
    end(
        "reboot: System halted",
        "the guest halted without powering off: the kickstart must end with `reboot`, and no script may call `halt`",
    ),
    // systemd src/core/main.c and crash-handler.c.
    end("Freezing execution", "the guest's systemd crashed"),
    // SeaBIOS src/boot.c; EDK2 MdeModulePkg/Universal/BdsDxe; EDK2 ShellPkg.
    end("No bootable device", "the firmware found nothing to boot from"),
    end(
        "No bootable option or device was found",
        "the firmware found nothing to boot from: does the ISO boot with UEFI, and did the installer write a boot entry?",
    ),
    end(
        "UEFI Interactive Shell",
        "the firmware found nothing to boot from and opened its shell: does the ISO boot with UEFI, and did the installer \
         write a boot entry?",
    ),
    // GRUB grub-core/kern/rescue_reader.c.
    end(
        "Entering rescue mode...",
        "GRUB could not read its files and opened its rescue shell",
    ),
    // dracut modules.d/98dracut-systemd/dracut-emergency.sh, with a shell and without; modules.d/99base/dracut-lib.sh, die.
    end(
        "Entering emergency mode. Exit the shell to continue.",
        "the initial ramdisk gave up and opened its emergency shell: it found no installer image or root file system \
         (inst.stage2, a label), or no kickstart",
    ),
    end(
        "Boot has failed. To debug this issue add",
        "the initial ramdisk gave up: it found no installer image or root file system (inst.stage2, a label), or no kickstart",
    ),
    end("dracut: Refusing to continue", "the initial ramdisk gave up"),
    // systemd src/sulogin-shell/sulogin-shell.c.
    end(
        "You are in emergency mode",
        "the system could not boot and opened its emergency shell",
    ),
    end("You are in rescue mode", "the system booted into its rescue shell"),
    // pykickstart errors.py, _format_error_message.
    end(
        "The following problem occurred on line",
        "the installer refuses the kickstart",
    ),
    end(
        "There was a problem reading from line",
        "the installer refuses the kickstart",
    ),
    // Anaconda pyanaconda/errors.py, _scriptErrorHandler and the handlers beside it.
    end(
        "There was an error running the kickstart script",
        "a script of the kickstart failed that says --erroronfail",
    ),
    end(
        "The following error occurred while installing.",
        "the installer could not install the packages",
    ),
    end(
        "The following errors occurred with your partitioning",
        "the installer cannot partition the disk as the kickstart says",
    ),
    end(
        "Non interactive installation failed",
        "the installer stopped with an error",
    ),
    // Anaconda pyanaconda/exception.py; the first without its end, as releases spell it in two ways.
    end("An unknown error has occur", "the installer crashed"),
    end(
        "The installation was stopped due to",
        "the installer stopped with an error, as nobody can be asked in cmdline mode",
    ),
    // Anaconda pyanaconda/ui/tui/hubs/summary.py.
    end(
        "The following mandatory spokes are not completed",
        "the kickstart leaves something open, and in cmdline mode nobody can be asked",
    ),
    // simpleline render/prompt.py, which Anaconda's text mode asks with.
    waits(
        "Please make a selection from the above",
        "the installer asks a question: the kickstart leaves something open, or was not found",
    ),
    // Anaconda pyanaconda/ui/tui/hubs/summary.py and ui/gui/hubs/__init__.py, in its log; the title of the open part follows.
    waits(
        "kickstart installation stopped for info:",
        "the installer asks a question: the kickstart leaves something open",
    ),
    // Anaconda pyanaconda/ui/tui/tuiobject.py: YesNoDialog, ErrorDialog.
    waits(
        "Please respond 'yes' or 'no'",
        "the installer asks whether it may go on in spite of an error",
    ),
    waits("Press ENTER to exit", "the installer stopped with an error"),
    // Anaconda pyanaconda/ui/tui/spokes/installation_progress.py.
    waits(
        "Press ENTER to quit",
        "the installer is done and waits for a key: the kickstart must end with `reboot`",
    ),
    // simpleline, a page that is longer than the screen.
    waits("Press ENTER to continue", "the installer waits for a key"),
    // Anaconda dracut/fetch-kickstart-net.sh and -disk: another network device may still fetch it; if not, dracut gives up
    // some three minutes later.
    cause(
        "anaconda: failed to fetch kickstart from",
        "the kickstart could not be fetched",
    ),
    cause(
        "anaconda: failed to fetch stage2 from",
        "the installer image could not be fetched",
    ),
    // Linux mm/oom_kill.c.
    cause("Out of memory: Killed process", "the guest ran out of memory"),
];

/// What a line of a console says about the guest's future, if anything.
pub(crate) fn read(line: &str) -> Option<&'static Sign> {
    SIGNS.iter().find(|sign| line.contains(sign.text))
}

/// Whether a log speaks: the kernel's, `[   12.345678] ...`, or Anaconda's, `12:34:56,789 INF ...`. They do so whenever they like,
/// also while a program waits for an answer; behind a prompt they have no line of their own.
pub(crate) fn is_aside(line: &str) -> bool {
    let kernels = |text: &str| {
        text.split_once("] ").is_some_and(|(time, _)| {
            time.trim_start()
                .split_once('.')
                .is_some_and(|(seconds, part)| is_number(seconds) && part.len() == 6 && is_number(part))
        })
    };
    line.match_indices('[')
        .any(|(at, bracket)| line.get(at + bracket.len()..).is_some_and(kernels))
        || LEVELS.iter().any(|level| {
            line.split_once(level)
                .and_then(|(before, _)| before.rsplit_once(','))
                .is_some_and(|(time, part)| part.len() == 3 && is_number(part) && ends_with_time(time))
        })
}

/// Anaconda's names of its levels, pyanaconda/anaconda_logging.py.
const LEVELS: [&str; 5] = [" DBG ", " INF ", " WRN ", " ERR ", " CRT "];

/// `12:34:56` at the end.
fn ends_with_time(text: &str) -> bool {
    let mut parts = text.rsplitn(3, ':');
    let (seconds, minutes, hours) = (parts.next(), parts.next(), parts.next());
    let pair = |part: Option<&str>| part.is_some_and(|part| part.len() == 2 && is_number(part));
    pair(seconds) && pair(minutes) && hours.is_some_and(|hours| hours.ends_with(|c: char| c.is_ascii_digit()))
}

/// The job of a line that systemd repeats while it waits for one, `[  *** ] A start job is running for ... (12s / 1min 30s)`: all but
/// the stars, the count and the time.
///
/// # Source
/// systemd src/core/manager.c, `manager_print_jobs_in_progress`.
pub(crate) fn job_of(line: &str) -> Option<&str> {
    let (stars, rest) = line.trim_start().strip_prefix('[')?.split_once("] ")?;
    if !stars.contains('*') || !stars.chars().all(|c| c == '*' || c == ' ') {
        return None;
    }
    let rest = rest
        .strip_prefix('(')
        .and_then(|counted| counted.split_once(") "))
        .map_or(rest, |(_, rest)| rest);
    Some(rest.rsplit_once(" (").map_or(rest, |(job, _)| job))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_guest_is_known() {
        let cases = [
            (
                "[    1.204512] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00",
                Means::End,
                "panicked",
            ),
            (
                "Fatal glibc error: CPU does not support x86-64-v2",
                Means::End,
                "x86-64-v2-AES",
            ),
            ("[  155.442101] reboot: System halted", Means::End, "halted"),
            ("systemd[1]: Freezing execution.", Means::End, "systemd crashed"),
            ("BdsDxe: No bootable option or device was found.", Means::End, "UEFI"),
            ("UEFI Interactive Shell v2.2", Means::End, "its shell"),
            (
                "You are in emergency mode. After logging in, type \"journalctl -xb\" to view",
                Means::End,
                "could not boot",
            ),
            (
                "Entering emergency mode. Exit the shell to continue.",
                Means::End,
                "ramdisk gave up",
            ),
            (
                "[    7.898169] dracut: Refusing to continue",
                Means::End,
                "ramdisk gave up",
            ),
            (
                "The following problem occurred on line 12 of the kickstart file:",
                Means::End,
                "refuses the kickstart",
            ),
            (
                "There was an error running the kickstart script at line 40.  This is a fatal",
                Means::End,
                "--erroronfail",
            ),
            (
                "An unknown error has occured, look at the /tmp/anaconda-tb* file(s) for more",
                Means::End,
                "crashed",
            ),
            (
                "The installation was stopped due to an error which occurred while running in non-interactive cmdline mode.",
                Means::End,
                "cmdline",
            ),
            (
                "Please make a selection from the above ['b' to begin installation, 'q' to",
                Means::Waits,
                "question",
            ),
            ("Installation complete. Press ENTER to quit:", Means::Waits, "`reboot`"),
            ("Please respond 'yes' or 'no':", Means::Waits, "whether it may go on"),
            (
                "[   61.117208] dracut-initqueue[812]: Warning: anaconda: failed to fetch kickstart from http://10.0.2.2:8000/ks.cfg",
                Means::Cause,
                "could not be fetched",
            ),
        ];
        for (line, means, part) in cases {
            let sign = read(line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(sign.means, means, "{line}");
            assert!(sign.story.contains(part), "{line}: {}", sign.story);
        }
    }

    /// An installation and a first boot that went well (`tests/fixtures/README.md`).
    const NORMAL: &str = include_str!("../../tests/fixtures/console-normal.log");

    #[test]
    fn an_installation_and_a_boot_that_go_well_hold_no_sign() {
        let signs: Vec<&str> = NORMAL.lines().filter(|line| read(line).is_some()).collect();
        assert!(signs.is_empty(), "{signs:?}");
        // It is what it says it is.
        for part in [
            "Starting installer",
            "Installation complete",
            "Linux version",
            "Reached target getty.target",
        ] {
            assert!(NORMAL.contains(part), "{part}");
        }
        // How long systemd waits is said again and again.
        let jobs: Vec<&str> = NORMAL.lines().filter_map(job_of).collect();
        let told: std::collections::BTreeSet<&str> = jobs.iter().copied().collect();
        assert!(jobs.len() == 71 && told.len() == 14, "{} of {}", told.len(), jobs.len());
    }

    #[test]
    fn a_job_that_systemd_waits_for_is_one_whatever_its_stars_and_time() {
        let job = Some("Job systemd-tmpfiles-setup.service/start running");
        for (line, expected) in [
            (
                "[    **] Job systemd-tmpfiles-setup.service/start running (12s / no limit)",
                job,
            ),
            (
                "[*     ] Job systemd-tmpfiles-setup.service/start running (1min 2s / no limit)",
                job,
            ),
            (
                "[ ***  ] (1 of 2) A start job is running for X (3s / 1min 30s)",
                Some("A start job is running for X"),
            ),
            ("[  OK  ] Finished modprobe@loop.service.", None),
            ("[    1.2] x", None),
            ("[    ] x", None),
        ] {
            assert_eq!(job_of(line), expected, "{line}");
        }
    }

    #[test]
    fn logs_are_known_by_their_stamps() {
        for (line, aside) in [
            ("[    0.000000] Linux version 5.14.0", true),
            (
                "quit, 'r' to refresh]: [  301.118272] audit: backlog limit exceeded",
                true,
            ),
            ("[12345.678901] usb 1-1: new device", true),
            ("Please make a selection ['b' to begin] now", false),
            ("[  OK  ] Reached target Basic System.", false),
            ("[1.2] section", false),
            ("05:35:38,756 INF core.configuration.product: Loading information", true),
            (
                "quit, 'r' to refresh]: 12:00:01,123 INF threading: Thread Done: AnaWait",
                true,
            ),
            ("1,000 INF of them", false),
            ("Error, see INF file", false),
            ("[ ä] ", false),
        ] {
            assert_eq!(is_aside(line), aside, "{line}");
        }
    }
}
