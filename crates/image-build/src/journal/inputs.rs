//! `Inputs`: what a build was asked for, part by part, as hashes short enough to stand in a description.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::spec::ImageSpec;

/// Hexadecimal digits of a part's hash: enough to see a change, which no one is to forge.
const DIGITS: usize = 12;
/// With more provisioners than this they share one hash: a description holds 8,192 characters in all.
const PROVISIONERS_MAX: usize = 60;

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
        add("seal script", hash(seal));
        add("k3s", hash(k3s));
        if provisioners.len() > PROVISIONERS_MAX {
            add("provisioners", hash(provisioners));
        } else {
            for (number, provisioner) in (1..).zip(provisioners) {
                add(
                    &format!("provisioner {number} ({})", provisioner.name()),
                    hash(provisioner),
                );
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
            .cloned()
            .collect()
    }
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
    use crate::spec::{FileContent, FileSpec, ProvisionerSpec, ShellSpec};

    fn spec(script: &str) -> ImageSpec {
        let shell = |name: &str, text: &str| ProvisionerSpec::Shell(ShellSpec::new(name, text));
        ImageSpec::builder()
            .node("pve")
            .provisioners(vec![shell("a.sh", "true"), shell("b.sh", script)])
            .build()
            .unwrap()
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
            ["network devices", "node", "provisioner 2 (b.sh)"]
        );
        // Limits and the choice after a failure may change: they decide nothing about the image.
        let mut same = spec("true");
        same.timeouts.install *= 2;
        same.on_error = crate::spec::OnError::Keep;
        assert!(before.changed(&Inputs::of(&same)).is_empty());
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
