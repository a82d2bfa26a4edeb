//! The installer at work, and what becomes of the guest when it is done or stuck.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{End, Guest};
use crate::engine::simulated::firmware::Medium;
use crate::engine::simulated::installer::{self, AtEnd, Stuck};
use crate::engine::simulated::keys::Key;
use crate::engine::simulated::options::FaultKind;
use crate::engine::simulated::record::GuestState;

/// Bytes read from the medium for kernel, initrd and the installer's image.
const INSTALLER_READS: u64 = 900 << 20;
/// Bytes of packages read, and the same unpacked on the disk.
const PACKAGE_READS: u64 = 700 << 20;
const PACKAGE_WRITES: u64 = 1900 << 20;

impl Guest {
    pub(super) async fn run_installer(
        self: &Arc<Self>,
        medium: &Medium,
        kernel_line: &str,
        keys: &mut mpsc::UnboundedReceiver<Key>,
    ) -> End {
        let options = &self.shared.options;
        let stage2 =
            installer::argument(kernel_line, "inst.stage2").or_else(|| installer::argument(kernel_line, "inst.repo"));
        if stage2 != Some(&format!("hd:LABEL={}", medium.label)) && stage2 != Some("cdrom") {
            let wanted = stage2.unwrap_or("nothing (no inst.stage2)");
            return self
                .fail(vec![
                    format!("dracut-initqueue: Warning: /dev/root does not exist: {wanted}"),
                    "Entering emergency mode. Exit the shell to continue.".to_owned(),
                    "dracut:/#".to_owned(),
                ])
                .await;
        }
        if installer::argument(kernel_line, "rd.live.check").is_some() {
            self.work(
                options.durations.media_check,
                Some((&medium.slot, INSTALLER_READS)),
                None,
            )
            .await;
            self.say([
                "Checking: 100.0%",
                "The media check is complete, the result is: PASS.",
                "It is OK to use this media.",
            ]);
        }
        self.work(
            options.durations.installer_boot,
            Some((&medium.slot, INSTALLER_READS)),
            None,
        )
        .await;
        let found = match installer::find_kickstart(&self.launch, kernel_line).await {
            Ok(found) => found,
            Err(lines) => {
                self.clock.sleep(options.durations.fetch_timeout).await;
                return self.fail(lines).await;
            }
        };
        if let Some(found) = &found {
            let mut record = self.record();
            record.kickstart_source = Some(found.source.clone());
            record.kickstart_text = Some(found.text.clone());
        }
        self.say([format!(
            "Starting installer, one moment...\nanaconda 34.25 for {} started.",
            medium.os()
        )]);
        let plan = match installer::plan(&self.launch, medium, kernel_line, found.as_ref()) {
            Ok(plan) => plan,
            Err(Stuck::Failed(lines)) => return self.fail(lines).await,
            Err(Stuck::Waits(questions)) => {
                self.say(questions.iter().map(|question| format!("[!] {question}")));
                self.say([
                    "Please make a selection from the above ['b' to begin installation, 'q' to quit, 'r' to refresh]:",
                ]);
                self.enter(GuestState::InstallerWaits);
                return self.wait_for_power().await;
            }
        };
        self.enter(GuestState::Installing);
        self.say([
            "Creating disklabel",
            "Creating xfs",
            "Starting package installation process",
        ]);
        let half = options.durations.install / 2;
        let (slot, path) = &plan.disk;
        let ending = tokio::select! {
            () = self.installer_power.notified() => Some(End::PowerOff),
            () = self.work(half, Some((&medium.slot, PACKAGE_READS)), Some((slot, PACKAGE_WRITES))) => None,
        };
        if let Some(end) = ending {
            return end;
        }
        let fault = self.strike(|kind| match kind {
            FaultKind::InstallFails { message } => Some(message.clone()),
            _ => None,
        });
        if let Some(message) = fault {
            return self
                .fail(vec!["An unknown error has occured".to_owned(), message])
                .await;
        }
        self.work(half, None, Some((slot, PACKAGE_WRITES / 4))).await;
        self.say(["Configuring installed system", "Running post-installation scripts"]);
        let host = Arc::new(self.host(plan.system, None, None));
        match installer::run_post(&plan.kickstart, &host).await {
            Ok(lines) => self.say(lines),
            Err(lines) => return self.fail(lines).await,
        }
        let mut system = host.system().clone();
        if let Some(found) = &found {
            system.files.put("/root/anaconda-ks.cfg", found.text.clone(), 0o600);
            system.files.put("/root/original-ks.cfg", found.text.clone(), 0o600);
        }
        self.record().installed = Some(system.summary());
        if let Err(error) = system.save(path) {
            return self.fail(vec![format!("storage error: {slot}: {error}")]).await;
        }
        self.say(["Installation complete"]);
        self.end_install(plan.at_end, medium, keys).await
    }

    async fn end_install(&self, at_end: AtEnd, medium: &Medium, keys: &mut mpsc::UnboundedReceiver<Key>) -> End {
        match at_end {
            AtEnd::Reboot { eject } => {
                if eject {
                    self.machine().ejected.insert(medium.slot.clone());
                }
                End::Reboot
            }
            AtEnd::PowerOff => End::PowerOff,
            AtEnd::Halt => {
                self.say(["reboot: System halted"]);
                self.enter(GuestState::Halted);
                std::future::pending().await
            }
            AtEnd::Wait => {
                self.say(["Installation complete. Press ENTER to quit:"]);
                self.enter(GuestState::InstallerDone);
                loop {
                    tokio::select! {
                        () = self.installer_power.notified() => return End::PowerOff,
                        key = keys.recv() => if key == Some(Key::Enter) {
                            return End::Reboot;
                        },
                    }
                }
            }
        }
    }

    async fn fail(&self, lines: Vec<String>) -> End {
        self.say(lines);
        self.enter(GuestState::InstallerFailed);
        self.wait_for_power().await
    }

    /// Nothing more happens but the power button.
    async fn wait_for_power(&self) -> End {
        self.installer_power.notified().await;
        End::PowerOff
    }
}
