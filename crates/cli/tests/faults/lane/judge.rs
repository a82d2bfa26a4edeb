//! What a run left, judged: one good template, or what was there before; a cause that is named, and no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::{End, Lane, MARGIN, Outcome, ROOT_PASSWORD};
use crate::common::{Ended, Folder, IMAGE};
use crate::kind::Kind;
use crate::trouble::{Case, LONG_LEASE, Trouble};

/// What a build says that could not delete the template that it has replaced.
const KEPT: &str = "kept as";
/// What one says whose image could not get the vmid asked for, for good.
const STAYS: &str = "the new template keeps vmid";

/// All that is on a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    vms: BTreeMap<u32, BTreeMap<String, String>>,
    volumes: BTreeSet<String>,
}

impl Snapshot {
    /// Takes a VM out, with its volumes.
    fn take(&mut self, vmid: u32) -> Option<BTreeMap<String, String>> {
        let its = |volume: &String| volume.contains(&format!("-{vmid}-")) || volume.contains(&format!("/{vmid}/"));
        self.volumes.retain(|volume| !its(volume));
        self.vms.remove(&vmid)
    }
}

impl Lane {
    pub(super) fn snapshot(&self) -> Snapshot {
        let emulator = &self.cluster.emulator;
        let vms = emulator
            .vmids()
            .into_iter()
            .filter_map(|vmid| Some((vmid, emulator.vm_config(vmid)?)));
        Snapshot {
            vms: vms.collect(),
            volumes: emulator.volids("pve").into_iter().collect(),
        }
    }

    /// Where the image is, or the VM that is to become it.
    fn image(&self) -> u32 {
        let config = |vmid: u32| self.cluster.emulator.vm_config(vmid);
        let bears =
            |vmid: &u32| config(*vmid).is_some_and(|config| config.get("name").is_some_and(|name| name == IMAGE));
        self.kind.image_at().into_iter().find(bears).unwrap_or(self.kind.vmid())
    }

    /// A template that is all that it is to be, and nothing else beside what was there. One that was replaced is deleted, or was
    /// left retired, as was said.
    pub(super) fn is_good(&self, said: &str, case: Option<&Case>, violations: &mut Vec<String>) {
        let vmid = self.image();
        let mut after = self.snapshot();
        let Some(config) = after.take(vmid) else {
            violations.push("there is no template".to_owned());
            return;
        };
        let get = |key: &str| config.get(key).map(String::as_str).unwrap_or_default();
        let mut wants = |what: &str, holds: bool| {
            if !holds {
                violations.push(format!("{what}: {config:?}"));
            }
        };
        wants("it is no template", get("template") == "1");
        wants(
            "it is not where it was to be",
            self.kind.image_at().last() == Some(&vmid) || said.contains(STAYS),
        );
        wants("its name is wrong", get("name") == IMAGE);
        wants(
            "its tags are wrong",
            get("tags").contains("k3simage") && !get("tags").contains("k3simage-build"),
        );
        wants("its journal is left", !get("description").contains("k3simage-journal"));
        wants("it does not boot from its disk alone", get("boot") == "order=scsi0");
        wants("it has no cloud-init drive", get("scsi1").contains("cloudinit"));
        wants(
            "it has another drive",
            ["ide2", "ide3", "unused0"]
                .iter()
                .all(|slot| !config.contains_key(*slot)),
        );
        wants("`reboot` is left", !config.contains_key("reboot"));
        wants("a lock is left", !config.contains_key("lock"));
        // A copy is known by what it was made of: its own system is read when it starts.
        let built = self.guests().guest(self.kind.vmid());
        let sealed = built.and_then(|guest| guest.installed);
        let machine_id = sealed.map(|system| system.machine_id);
        wants(
            "it is not sealed",
            machine_id.as_deref().is_some_and(|id| id.trim().is_empty()),
        );
        let mut before = self.before.clone();
        if let Some(old) = self.kind.old() {
            before.take(old);
            self.is_good_of_old(&mut after, said, case, violations);
        }
        if after != before {
            violations.push(format!(
                "something else is left or changed: {}",
                difference(&before, &after)
            ));
        }
    }

    /// What was replaced is a whole template with its retired name where it is kept, and not there where it is not.
    fn is_good_of_old(&self, after: &mut Snapshot, said: &str, case: Option<&Case>, violations: &mut Vec<String>) {
        let retired: Vec<u32> = after
            .vms
            .iter()
            .filter(|(_, config)| config.get("name").is_some_and(|name| name.contains("-retired-")))
            .map(|(vmid, _)| *vmid)
            .collect();
        for vmid in &retired {
            let config = after.take(*vmid).unwrap_or_default();
            let is = |key: &str, value: &str| config.get(key).is_some_and(|held| held.contains(value));
            let whole =
                is("template", "1") && is("scsi0", &format!("base-{vmid}-disk")) && !config.contains_key("lock");
            if !whole || config.get("tags").is_none_or(|tags| tags != "k3simage-retired") {
                violations.push(format!("the old template is not what it was: {config:?}"));
            }
        }
        let gone = case.is_some_and(|case| case.any(|trouble| trouble == Trouble::OldVanishes));
        let good = match retired.len() {
            0 => self.kind == Kind::Replace || gone,
            1 => self.kind == Kind::Exchange || said.contains(KEPT),
            _ => false,
        };
        if !good {
            violations.push(format!("of the old template there is {retired:?}"));
        }
    }

    fn is_as_before(&self, case: &Case, violations: &mut Vec<String>) {
        let (mut before, after) = (self.before.clone(), self.snapshot());
        if let Some(old) = self.kind.old()
            && case.any(|trouble| trouble == Trouble::OldVanishes)
            && !after.vms.contains_key(&old)
        {
            before.take(old);
        }
        if after != before {
            violations.push(format!("it is not as before: {}", difference(&before, &after)));
        }
    }

    /// Whether the image is there and complete, with the mark of a build that has still to delete the old one.
    fn is_complete(&self) -> bool {
        let config = self.cluster.emulator.vm_config(self.image()).unwrap_or_default();
        let is = |key: &str, value: &str| config.get(key).is_some_and(|held| held == value);
        self.kind.old().is_some() && is("template", "1") && is("name", IMAGE)
    }

    /// A build that failed: nothing is left, or it says what, and gc collects that; the message names what went wrong.
    pub(super) fn has_failed(&self, code: i32, ended: &Ended, case: &Case, outcome: &mut Outcome) {
        if !(1..=3).contains(&code) {
            outcome.violations.push(format!("exit code {code}"));
        }
        let events: Vec<Value> = ended
            .out
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let Some(error) = events.iter().rfind(|event| event["event"] == "error") else {
            outcome.violations.push("no error is told".to_owned());
            return;
        };
        let message = error["message"].as_str().unwrap_or_default();
        if !case.any(|trouble| trouble.words().iter().any(|word| message.contains(word))) {
            outcome
                .violations
                .push(format!("the message does not name the cause: {message}"));
        }
        let mut left = Vec::new();
        self.is_as_before(case, &mut left);
        outcome.end = End::Clean;
        if left.is_empty() {
            return;
        }
        if ended.all().contains("lease could not be ended") {
            self.cluster
                .emulator
                .advance_clock(Duration::from_secs(case.lease.into()) + MARGIN);
        }
        if self.is_complete() {
            outcome.end = End::Left;
            if code != 1 || !ended.all().contains("k3simage resume") {
                outcome.violations.push(format!("nobody is told to go on: {message}"));
            }
            return self.collect(case, outcome);
        }
        // One fault leaves room for the undo; of several, another may hit it too, and then it says so and its lease ends at once.
        let told = events
            .iter()
            .any(|event| event["event"] == "cleanup" && event["ok"] == false);
        if !told || code != 1 || case.troubles.len() == 1 {
            outcome.violations.append(&mut left);
            return;
        }
        outcome.end = End::Left;
        self.collect(case, outcome);
    }

    /// After a kill the build is gone on with, or it is said why not and there is nothing to go on with.
    pub(super) fn after_a_kill(&self, folder: &Folder, killed: &Ended, case: &Case, outcome: &mut Outcome) {
        let first = killed
            .out
            .lines()
            .next()
            .and_then(|line| serde_json::from_str::<Value>(line).ok());
        let Some(build) = first.and_then(|event| event["build"].as_str().map(str::to_owned)) else {
            // It had not told anything yet.
            return self.collect(case, outcome);
        };
        let ended = Ended::of(
            &self
                .builder(&["resume", &build, folder.path()], LONG_LEASE)
                .output()
                .unwrap(),
        );
        outcome.said.push_str(&ended.all());
        self.keeps_secrets(&ended, outcome);
        match ended.code {
            Some(0) => {
                self.is_good(&ended.all(), Some(case), &mut outcome.violations);
            }
            Some(2) if ended.out.contains("bears its tag") => {
                if self.tags().contains(&build) {
                    outcome.violations.push("resume does not see the VM".to_owned());
                }
                self.collect(case, outcome);
            }
            // What happened before the kill goes on after it: an agent stays silent.
            Some(1) if case.troubles.len() > 1 => self.has_failed(1, &ended, case, outcome),
            code => outcome
                .violations
                .push(format!("resume ends with {code:?}: {}", ended.all())),
        }
    }

    fn tags(&self) -> String {
        let config = self.cluster.emulator.vm_config(self.image());
        config
            .and_then(|config| config.get("tags").cloned())
            .unwrap_or_default()
    }

    /// Collects what is dead: then all is as before, unless the build had been through.
    pub(super) fn collect(&self, case: &Case, outcome: &mut Outcome) {
        if case.any(|trouble| trouble == Trouble::TaskHangs) {
            // As somebody does who was told of it: while it runs, what it works on counts as living.
            self.cluster.block_on(self.stop_tasks());
        }
        let ended = Ended::of(&self.command(&["gc", "--yes", "--volume-age", "0"]).output().unwrap());
        outcome.said.push_str(&ended.all());
        self.keeps_secrets(&ended, outcome);
        if ended.code != Some(0) {
            outcome
                .violations
                .push(format!("gc ends with {:?}: {}", ended.code, ended.all()));
        }
        if ended.all().contains("makes it the image again") {
            // As somebody does who reads that: with the new VM its journal has gone.
            self.cluster.block_on(self.make_image_again());
        }
        let tags = self.tags();
        if !tags.is_empty() && !tags.contains("k3simage-build") {
            // `gc` deletes no template that was replaced; it may be gone before.
            self.is_good(&format!("{KEPT} {STAYS}"), Some(case), &mut outcome.violations);
        } else {
            self.is_as_before(case, &mut outcome.violations);
        }
    }

    /// Whatever happened: gc then finds nothing.
    pub(super) fn collected_twice(&self, outcome: &mut Outcome) {
        let ended = Ended::of(&self.command(&["gc", "--volume-age", "0"]).output().unwrap());
        if ended.code != Some(0) || !ended.all().contains("nothing is left") {
            outcome
                .violations
                .push(format!("gc still finds something: {}", ended.all()));
        }
    }

    /// No secret is in what was printed, in the log with the API requests, or on the cluster where people look.
    pub(super) fn keeps_secrets(&self, ended: &Ended, outcome: &mut Outcome) {
        let log = std::fs::read_to_string(self.work.path().join("log")).unwrap_or_default();
        let secrets = [self.cluster.emulator.token_secret(), ROOT_PASSWORD, "PRIVATE KEY"];
        for (place, text) in [("output", &ended.all()), ("log", &log)] {
            for secret in secrets {
                if text.contains(secret) {
                    outcome.violations.push(format!("a secret is in the {place}"));
                }
            }
        }
    }
}

fn difference(before: &Snapshot, after: &Snapshot) -> String {
    let volumes: Vec<_> = after.volumes.symmetric_difference(&before.volumes).collect();
    let vms: Vec<_> = after
        .vms
        .iter()
        .filter(|(vmid, config)| before.vms.get(vmid) != Some(config))
        .collect();
    let gone: Vec<_> = before.vms.keys().filter(|vmid| !after.vms.contains_key(vmid)).collect();
    format!("vms {vms:?}, gone {gone:?}, volumes {volumes:?}")
}
