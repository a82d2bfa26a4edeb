//! From the reset vector to the medium's menu and what is chosen there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{End, Guest};
use crate::engine::Drive;
use crate::engine::simulated::firmware::{self, Bootable, Firmware, Medium};
use crate::engine::simulated::installer;
use crate::engine::simulated::keys::Key;
use crate::engine::simulated::menu::{Choice, Menu};
use crate::engine::simulated::options::FaultKind;
use crate::engine::simulated::record::GuestState;

/// Bytes read from the medium until its menu is on the screen.
const MENU_READS: u64 = 12 << 20;
/// What it reads of the medium when its menu is left: kernel and initial ramdisk, before either can say anything.
const KERNEL_READS: u64 = 110 << 20;

impl Guest {
    /// From the reset vector to the end of whatever booted.
    pub(super) async fn boot(self: &Arc<Self>, keys: &mut mpsc::UnboundedReceiver<Key>) -> End {
        let firmware = Firmware::of(&self.launch.config);
        self.record().boots += 1;
        self.enter(GuestState::Firmware);
        self.firmware_console(firmware == Firmware::Ovmf);
        self.say([match firmware {
            Firmware::SeaBios => "SeaBIOS (version rel-1.16.3)",
            Firmware::Ovmf => "BdsDxe: loading Boot Options (EDK II)",
        }]);
        self.clock.sleep(self.shared.options.durations.firmware).await;
        let mut order: Vec<String> = firmware::boot_order(&self.launch);
        loop {
            match self.probe(firmware, order.clone()).await {
                None => {
                    self.say(match firmware {
                        Firmware::SeaBios => ["No bootable device."],
                        Firmware::Ovmf => ["BdsDxe: No bootable option or device was found."],
                    });
                    self.enter(GuestState::NoBootDevice);
                    return std::future::pending().await;
                }
                Some((_, Bootable::System { slot, path, system })) => {
                    let size_bytes = 0;
                    return self
                        .run_system(
                            Drive {
                                slot,
                                cdrom: false,
                                path,
                                format: "raw".into(),
                                size_bytes,
                            },
                            *system,
                        )
                        .await;
                }
                Some((at, Bootable::Medium(medium))) => {
                    if let Some(end) = self.run_medium(firmware, &medium, keys).await {
                        return end;
                    }
                    // Boot from local drive: on to the devices behind the medium, then to those before it.
                    let mut rest = order.split_off(at + 1);
                    rest.extend(order.into_iter().take(at));
                    order = rest;
                }
            }
        }
    }

    /// The first device of the list that boots, with its place.
    async fn probe(&self, firmware: Firmware, order: Vec<String>) -> Option<(usize, Bootable)> {
        let mut launch = self.launch.clone();
        let ejected = self.machine().ejected.clone();
        launch.drives.retain(|drive| !ejected.contains(&drive.slot));
        launch
            .config
            .insert("boot".to_owned(), format!("order={}", order.join(";")));
        let probing = tokio::task::spawn_blocking(move || firmware::probe(&launch)).await;
        let attempts = match probing {
            Ok(attempts) => attempts,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        for (at, attempt) in attempts.into_iter().enumerate() {
            match attempt.found {
                Ok(bootable) => {
                    self.say([match firmware {
                        Firmware::SeaBios => format!("Booting from {}...", attempt.slot),
                        Firmware::Ovmf => format!("BdsDxe: starting Boot{at:04} \"{}\"", attempt.slot),
                    }]);
                    return Some((at, bootable));
                }
                Err(why) => self.say([match firmware {
                    Firmware::SeaBios => format!("Booting from {}... Boot failed: {why}", attempt.slot),
                    Firmware::Ovmf => format!("BdsDxe: failed to load Boot{at:04} \"{}\": {why}", attempt.slot),
                }]),
            }
        }
        None
    }

    /// Menu and installer; `None` to go on with the next boot device.
    async fn run_medium(
        self: &Arc<Self>,
        firmware: Firmware,
        medium: &Medium,
        keys: &mut mpsc::UnboundedReceiver<Key>,
    ) -> Option<End> {
        let choice = self.menu(firmware, medium, keys).await;
        let (kernel_line, initrd) = match choice {
            Choice::LocalDisk => return None,
            Choice::Reset => return Some(End::Reset),
            Choice::Kernel { arguments, initrd } => (arguments, initrd),
        };
        self.record().kernel_line = Some(kernel_line.clone());
        self.machine().counters.entry(medium.slot.clone()).or_default().read += KERNEL_READS;
        self.enter(GuestState::InstallerBoot);
        self.kernel_console(installer::serial_console(&kernel_line));
        self.say([format!("[    0.000000] Command line: BOOT_IMAGE=vmlinuz {kernel_line}")]);
        if !initrd {
            let line = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)";
            return Some(self.panic(&[line.to_owned()]).await);
        }
        if let Some(end) = self.fatal_start(medium.major).await {
            return Some(end);
        }
        if installer::argument(&kernel_line, "inst.rescue").is_some() {
            self.say([
                "Starting installer, one moment...",
                "Please press ENTER to get a shell:",
            ]);
            self.enter(GuestState::Rescue);
            return Some(std::future::pending().await);
        }
        Some(self.run_installer(medium, &kernel_line, keys).await)
    }

    /// The ways in which a kernel does not get far.
    pub(super) async fn fatal_start(&self, major: u32) -> Option<End> {
        if let Some(complaint) = firmware::cpu_complaint(&self.launch.config, major) {
            let panic = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00";
            return Some(self.panic(&[complaint, panic.to_owned()]).await);
        }
        if self
            .strike(|kind| matches!(kind, FaultKind::KernelPanic).then_some(()))
            .is_some()
        {
            let line = "Kernel panic - not syncing: Fatal exception in interrupt";
            return Some(self.panic(&[line.to_owned()]).await);
        }
        None
    }

    async fn menu(&self, firmware: Firmware, medium: &Medium, keys: &mut mpsc::UnboundedReceiver<Key>) -> Choice {
        let options = &self.shared.options;
        self.machine().counters.entry(medium.slot.clone()).or_default().read += MENU_READS;
        let mut menu = Menu::new(firmware, medium);
        self.say(menu.screen());
        // What was typed before the menu was there is lost.
        while keys.try_recv().is_ok() {}
        self.enter(GuestState::Menu);
        let countdown = if self.clock.is_instant() {
            let launch = self.launch.clone();
            let unattended = tokio::task::spawn_blocking(move || installer::has_oemdrv(&launch))
                .await
                .unwrap_or(false);
            if unattended {
                Duration::ZERO
            } else {
                options.instant_menu_wait
            }
        } else {
            self.clock.host(options.durations.menu_timeout)
        };
        let first = tokio::select! {
            biased;
            () = self.clock.sleep_host(countdown) => None,
            key = keys.recv() => key,
        };
        let Some(mut key) = first else {
            return Menu::default_choice(medium);
        };
        // A key was typed: the countdown is over for good (FACTS 83).
        loop {
            let before = menu.screen();
            if let Some(choice) = menu.key(key) {
                return choice;
            }
            let after = menu.screen();
            if before.len() != after.len() {
                self.say(after);
            }
            match keys.recv().await {
                Some(next) => key = next,
                None => std::future::pending().await,
            }
        }
    }
}
