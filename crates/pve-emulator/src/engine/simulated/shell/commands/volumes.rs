//! Media in the CD-ROM drives, and k3s's own command.

use crate::engine::simulated::files::Kind;
use crate::engine::simulated::k3s;
use crate::engine::simulated::shell::Shell;
use crate::engine::simulated::shell::io::Io;

/// Where the volume of a medium is found by its label.
const BY_LABEL: &str = "/dev/disk/by-label/";

impl Shell {
    /// `blkid -L LABEL`, `mount [-o OPTIONS] DEVICE FOLDER`, `umount FOLDER`: ISO 9660 volumes, read only. A mounted volume's
    /// files lie in the tree until it is unmounted.
    pub(super) fn volume_command(&mut self, name: &str, args: &[String], io: &Io) -> i32 {
        let mut rest = Vec::new();
        let mut label = None;
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-L" => label = args.next(),
                "-o" | "-t" => drop(args.next()),
                option if option.starts_with('-') => {}
                _ => rest.push(arg.as_str()),
            }
        }
        match (name, label, rest.as_slice()) {
            // What the program answers when it finds nothing.
            ("blkid", Some(label), _) if self.host.medium(label).is_none() => 2,
            ("blkid", Some(label), _) => {
                io.stdout.line(format!("{BY_LABEL}{label}"));
                0
            }
            ("mount", _, [device, folder]) => self.mount(device, folder, io),
            ("umount", _, [folder]) => {
                let path = self.path(folder);
                let mut system = self.host.system();
                if !system.files.is_dir(&path) {
                    io.stderr.line(format!("umount: {folder}: no mount point specified."));
                    return 32;
                }
                for name in system.files.list(&path).unwrap_or_default() {
                    // Listed a moment ago under the same lock.
                    let _ = system.files.remove(&format!("{path}/{name}"), true);
                }
                0
            }
            _ => {
                io.stderr.line(format!("{name}: this use is not simulated"));
                1
            }
        }
    }

    fn mount(&self, device: &str, folder: &str, io: &Io) -> i32 {
        let path = self.path(folder);
        if !self.host.system().files.is_dir(&path) {
            io.stderr.line(format!("mount: {folder}: mount point does not exist."));
            return 32;
        }
        let files = device
            .strip_prefix(BY_LABEL)
            .and_then(|label| self.host.medium(label))
            .and_then(|mut iso| iso.files(self.host.keep_file_bytes).ok());
        let Some(files) = files else {
            io.stderr
                .line(format!("mount: {folder}: {device} is not a valid block device."));
            return 32;
        };
        let mut system = self.host.system();
        for (name, content) in files {
            system
                .files
                .insert(format!("{path}/{name}"), Kind::File(content), 0o444, "root");
        }
        0
    }

    /// `k3s kubectl get nodes`, `k3s --version`; the rest is not simulated.
    pub(super) fn k3s_command(&self, name: &str, args: &[String], io: &Io) -> i32 {
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let system = self.host.system();
        match (name, words.as_slice()) {
            ("k3s", ["--version" | "-v"]) => {
                let version = k3s::version(&system);
                io.stdout.line(format!("k3s version {version} (simulated)"));
                0
            }
            ("k3s", ["kubectl", "get", "node" | "nodes", ..]) | ("kubectl", ["get", "node" | "nodes", ..]) => {
                if system.unit_state("k3s.service") != "active" {
                    io.stderr
                        .line("The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?");
                    return 1;
                }
                io.stdout.line("NAME STATUS ROLES AGE VERSION");
                for node in k3s::nodes(&system) {
                    io.stdout
                        .line(format!("{node} Ready <none> 1m {}", k3s::version(&system)));
                }
                0
            }
            _ => {
                io.stderr.line(format!("{name}: {} is not simulated", words.join(" ")));
                1
            }
        }
    }
}
