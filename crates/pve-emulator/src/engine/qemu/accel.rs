//! Which accelerator runs the guests: KVM where it works, else TCG.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// How a guest's instructions are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the processor itself, through `/dev/kvm`.
    Kvm,
    /// Translated by QEMU; some ten times slower, works everywhere.
    Tcg,
}

impl Accel {
    /// KVM when `/dev/kvm` can be opened and the CPU shows `vmx` or `svm`, else TCG. Containers often have the device
    /// without the feature: the node exists, and every VM fails.
    pub fn detect() -> Self {
        Self::detect_in(Path::new("/dev/kvm"), Path::new("/proc/cpuinfo"))
    }

    fn detect_in(device: &Path, cpuinfo: &Path) -> Self {
        let capable = std::fs::read_to_string(cpuinfo).is_ok_and(|text| has_virtualisation(&text));
        let usable = capable && std::fs::OpenOptions::new().read(true).write(true).open(device).is_ok();
        if usable { Self::Kvm } else { Self::Tcg }
    }

    /// As `-accel` and `--accel` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Accel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            other => Err(format!("no accelerator '{other}': kvm or tcg")),
        }
    }
}

fn has_virtualisation(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_the_device_and_the_feature() {
        let dir = tempfile::tempdir().unwrap();
        let (device, cpuinfo) = (dir.path().join("kvm"), dir.path().join("cpuinfo"));
        for (flags, with_device, expected) in [
            ("flags\t\t: fpu vmx aes", true, Accel::Kvm),
            ("flags\t\t: fpu svm", true, Accel::Kvm),
            ("flags\t\t: fpu vmx", false, Accel::Tcg),
            ("flags\t\t: fpu avmx", true, Accel::Tcg),
        ] {
            std::fs::write(&cpuinfo, format!("processor\t: 0\n{flags}\n")).unwrap();
            let _ = std::fs::remove_file(&device);
            if with_device {
                std::fs::write(&device, "").unwrap();
            }
            assert_eq!(Accel::detect_in(&device, &cpuinfo), expected, "{flags} {with_device}");
        }
    }
}
