//! `Inputs`: what a build was asked for, part by part, as hashes short enough to stand in a description.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::spec::{ImageSpec, ProvisionerSpec, ShellSpec};

/// Hexadecimal digits of a part's hash: enough to see a change, which no one is to forge.
const DIGITS: usize = 12;
/// With more provisioners than this they share one hash: a description holds 8,192 characters in all.
const PROVISIONERS_MAX: usize = 60;

/// The part that holds what scripts are told by their environment.
const SCRIPTS_ARE_TOLD: &str = "what scripts are told";
/// Parts and the variables that they are made of.
const MADE_OF: [(&str, &str); 11] = [
    ("name", "image_version, k3s_version"),
    ("node", "proxmox_node"),
    (
        "hardware",
        "vm_cores, vm_sockets, vm_memory, vm_cpu_type, vm_bios, vm_machine, vm_scsi_controller",
    ),
    ("disks", "vm_storage_pool, vm_disk_size, vm_disk_format"),
    ("network devices", "vm_bridge, vm_vlan_tag"),
    ("cloud-init drive", "vm_cloud_init_storage_pool, vm_storage_pool"),
    (
        "installer ISO",
        "alma_iso_url, alma_iso_checksum, alma_iso_storage_pool",
    ),
    (
        "boot command",
        "boot_command, boot_wait, kickstart_delivery, http_bind_address, http_address, http_port_min, http_port_max",
    ),
    ("communicator", "communicator, ssh_username, ssh_host, ssh_password"),
    ("k3s", "k3s_version, k3s_role, k3s_mirror_url"),
    (
        SCRIPTS_ARE_TOLD,
        "k3s_version, k3s_role, k3s_mirror_url, k3s_airgap_images, k3s_sha256, k3s_airgap_sha256, os_update, hardening_oscap, hardening_profile",
    ),
];

/// A hash for each part of what is built. Secrets have no part in it: whoever may read the VM's description could try
/// guesses on their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// Of everything that decides what is built, and of how the guest is reached, which the kickstart prepares.
    pub(crate) fn of(spec: &ImageSpec) -> Self {
        let ImageSpec {
            name,
            description,
            tags,
            node,
            vmid: _,
            pool: _,
            hardware,
            disks,
            nics,
            cloud_init,
            installer,
            communicator,
            provisioners,
            seal,
            k3s,
            timeouts: _,
            on_error: _,
        } = spec;
        let mut parts = BTreeMap::new();
        let mut add = |name: &str, part: String| {
            parts.insert(name.to_owned(), part);
        };
        add("name", hash(name));
        add("description", hash(description));
        add("tags", hash(tags));
        add("node", hash(node));
        add("hardware", hash(hardware));
        add("disks", hash(disks));
        add("network devices", hash(nics));
        add("cloud-init drive", hash(cloud_init));
        add("installer ISO", hash(&(&installer.iso, &installer.iso_storage)));
        add("kickstart", hash(&installer.kickstart));
        add(
            "boot command",
            hash(&(&installer.delivery, &installer.boot_command, &installer.boot_wait)),
        );
        add(
            "communicator",
            hash(&(
                &communicator.kind,
                &communicator.ssh.username,
                &communicator.ssh.host,
                communicator.ssh.password.is_some(),
            )),
        );
        let mut seal = seal.clone();
        seal.iter_mut().for_each(without_limit);
        add("seal script", hash(&seal));
        add("k3s", hash(k3s));
        let (scripts, told) = apart(provisioners);
        add(SCRIPTS_ARE_TOLD, hash(&told));
        if provisioners.len() > PROVISIONERS_MAX {
            add("provisioners", hash(&scripts));
        } else {
            for (number, script) in (1..).zip(&scripts) {
                add(&format!("provisioner {number} ({})", script.0.name()), hash(script));
            }
        }
        Self(parts)
    }

    /// The parts that differ, that are new, or that are gone.
    pub(crate) fn changed(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| match variables_of(name) {
                Some(variables) => format!("{name} ({variables})"),
                None => name.clone(),
            })
            .collect()
    }
}

/// Limits may change: they decide nothing about the image.
fn without_limit(shell: &mut ShellSpec) {
    shell.timeout = Duration::ZERO;
}

/// The provisioners without what they are told, each with the place of that among all that is told, and hashes of that, each once.
/// Scripts are mostly told the same: a version that changes would else be found in each of them.
fn apart(provisioners: &[ProvisionerSpec]) -> (Vec<(ProvisionerSpec, usize)>, Vec<String>) {
    let mut told = Vec::new();
    let mut bare = |provisioner: &ProvisionerSpec| {
        let mut bare = provisioner.clone();
        let environment = match &mut bare {
            ProvisionerSpec::Shell(shell) => {
                without_limit(shell);
                hash(&std::mem::take(&mut shell.env))
            }
            ProvisionerSpec::File(_) => return (bare, 0),
        };
        let place = told.iter().position(|known| *known == environment).unwrap_or_else(|| {
            told.push(environment);
            told.len() - 1
        });
        (bare, place)
    };
    let provisioners = provisioners.iter().map(&mut bare).collect();
    (provisioners, told)
}

/// The variables of a template folder that decide a part; those that stand for a file or for themselves need none.
fn variables_of(part: &str) -> Option<&'static str> {
    MADE_OF
        .iter()
        .find(|(name, _)| *name == part)
        .map(|(_, variables)| *variables)
}

/// Plain data with text keys is always JSON; if it were not, it would equal nothing.
fn hash(part: &impl Serialize) -> String {
    match serde_json::to_vec(part) {
        Ok(json) => {
            let mut hex = hex::encode(Sha256::digest(json));
            hex.truncate(DIGITS);
            hex
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{FileContent, FileSpec};

    fn spec(script: &str) -> ImageSpec {
        let shell = |name: &str, text: &str| ProvisionerSpec::Shell(ShellSpec::new(name, text));
        ImageSpec::builder()
            .node("pve")
            .provisioners(vec![shell("a.sh", "true"), shell("b.sh", script)])
            .build()
            .unwrap()
    }

    fn shell_of(provisioner: &mut ProvisionerSpec) -> Option<&mut ShellSpec> {
        match provisioner {
            ProvisionerSpec::Shell(shell) => Some(shell),
            ProvisionerSpec::File(_) => None,
        }
    }

    #[test]
    fn a_change_is_named_by_its_part() {
        let before = Inputs::of(&spec("true"));
        assert_eq!(before.changed(&Inputs::of(&spec("true"))), Vec::<String>::new());
        assert_eq!(before.changed(&Inputs::of(&spec("false"))), ["provisioner 2 (b.sh)"]);
        let mut other = spec("true");
        other.nics.clear();
        other.node = "other".parse().unwrap();
        other.provisioners.pop();
        assert_eq!(
            before.changed(&Inputs::of(&other)),
            [
                "network devices (vm_bridge, vm_vlan_tag)",
                "node (proxmox_node)",
                "provisioner 2 (b.sh)"
            ]
        );
        // Limits and the choice after a failure may change: they decide nothing about the image.
        let mut same = spec("true");
        same.timeouts.install *= 2;
        for shell in [&mut same.provisioners[0]]
            .into_iter()
            .filter_map(shell_of)
            .chain(&mut same.seal)
        {
            shell.timeout *= 2;
        }
        same.on_error = crate::spec::OnError::Keep;
        assert!(before.changed(&Inputs::of(&same)).is_empty());
    }

    #[test]
    fn what_scripts_are_told_is_told_apart_from_them() {
        let told = |version: &str| {
            let shell = |name: &str| ProvisionerSpec::Shell(ShellSpec::new(name, "true").env("K3S_VERSION", version));
            let mut spec = spec("true");
            spec.provisioners = vec![shell("a.sh"), shell("b.sh")];
            Inputs::of(&spec)
        };
        let changed = told("v1").changed(&told("v2"));
        assert!(
            changed.len() == 1 && changed[0].starts_with(SCRIPTS_ARE_TOLD) && changed[0].contains("k3s_version"),
            "{changed:?}"
        );
    }

    #[test]
    fn parts_are_made_of_variables_that_there_are() {
        let parts = Inputs::of(&spec("true"));
        for (part, variables) in MADE_OF {
            assert!(part == SCRIPTS_ARE_TOLD || parts.0.contains_key(part), "{part}");
            for variable in variables.split(", ") {
                let known = crate::variables::VARIABLES.iter().any(|known| known.name == variable);
                assert!(known, "{part}: {variable}");
            }
        }
    }

    #[test]
    fn many_provisioners_still_fit_a_description() {
        let mut spec = spec("true");
        let file = |number: usize| {
            ProvisionerSpec::File(FileSpec {
                name: format!("file-{number}.txt"),
                content: FileContent::Bytes(vec![0]),
                destination: "/tmp/f".to_owned(),
                mode: 0o644,
            })
        };
        spec.provisioners = (0..PROVISIONERS_MAX).map(file).collect();
        let most = serde_json::to_string(&Inputs::of(&spec)).unwrap();
        assert!(most.len() < 4096, "{}", most.len());
        spec.provisioners = (0..1000).map(file).collect();
        let shared = serde_json::to_string(&Inputs::of(&spec)).unwrap();
        assert!(shared.len() < most.len());
    }
}
