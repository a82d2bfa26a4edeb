//! `Kickstart::render`: the model's text.

use std::fmt::Write as _;

use secrecy::ExposeSecret as _;

use super::model::{InstallSource, Kickstart, Network, User};
use super::quote::{KickstartError, name, section_body, word};
use super::text::KickstartText;

/// Begins the disk with the partitions that both firmwares need, since Anaconda would lay out for the one it runs on.
///
/// # Source
/// The kickstarts of AlmaLinux's own cloud images do the same: GPT, a BIOS boot partition, an EFI system partition.
const PARTITION: &str = r"parted -s -a optimal /dev/DISK -- mklabel gpt \
  mkpart biosboot 1MiB 2MiB set 1 bios_grub on \
  mkpart esp fat32 2MiB 202MiB set 2 esp on \
  mkpart boot xfs 202MiB 1226MiB \
  mkpart root xfs 1226MiB 100%
udevadm settle
";

/// Makes the disk bootable by the firmware that the installer did not run on.
const BOTH_FIRMWARES: &str = r"set -euo pipefail
boot_uuid=$(findmnt -no UUID /boot)
if [ -d /sys/firmware/efi ]; then
  grub2-install --target=i386-pc /dev/DISK
else
  cat > /boot/efi/EFI/almalinux/grub.cfg <<STUB
search --no-floppy --fs-uuid --set=dev $boot_uuid
set prefix=(\$dev)/grub2
export \$prefix
configfile \$prefix/grub.cfg
STUB
  chmod 0700 /boot/efi/EFI/almalinux/grub.cfg
fi
";

/// What [`BOTH_FIRMWARES`] needs, whichever firmware the installer ran on.
const BOOT_PACKAGES: &[&str] = &[
    "grub2-pc",
    "grub2-pc-modules",
    "grub2-efi-x64",
    "shim-x64",
    "efibootmgr",
];

impl Kickstart {
    /// The text of `ks.cfg`.
    ///
    /// # Errors
    /// [`KickstartError`] naming the field whose value cannot stand in a kickstart as data.
    pub fn render(&self) -> Result<KickstartText, KickstartError> {
        let mut text = String::new();
        self.header(&mut text)?;
        self.accounts(&mut text)?;
        self.sections(&mut text)?;
        Ok(KickstartText::new(text))
    }

    fn header(&self, text: &mut String) -> Result<(), KickstartError> {
        let Self {
            source,
            repos,
            lang,
            keyboard,
            timezone,
            network,
            disk,
            kernel_append,
            firewall,
            ..
        } = self;
        let disk = name("disk", disk, "")?;
        line(
            text,
            "# AlmaLinux 9, unattended, for one disk that boots with BIOS and with UEFI.",
        );
        line(text, "text");
        match source {
            InstallSource::Cdrom => line(text, "cdrom"),
            InstallSource::Url(url) => line(text, &format!("url --url={}", word("source", url)?)),
            InstallSource::Mirrorlist(url) => line(text, &format!("url --mirrorlist={}", word("source", url)?)),
        }
        for repo in repos {
            let option = match &repo.source {
                InstallSource::Cdrom => {
                    return Err(KickstartError::new("repos", "a repository needs an address of its own"));
                }
                InstallSource::Url(url) => format!("--baseurl={}", word("repos", url)?),
                InstallSource::Mirrorlist(url) => format!("--mirrorlist={}", word("repos", url)?),
            };
            line(
                text,
                &format!("repo --name={} {option}", name("repos", &repo.name, "-_.")?),
            );
        }
        line(text, &format!("lang {}", name("lang", lang, "_.@-")?));
        line(
            text,
            &format!("keyboard --xlayouts={}", name("keyboard", keyboard, "-_")?),
        );
        line(text, &format!("timezone {} --utc", name("timezone", timezone, "/_+-")?));
        line(text, "eula --agreed");
        line(text, "firstboot --disable");
        line(text, "selinux --enforcing");
        line(
            text,
            if *firewall {
                "firewall --enabled --ssh"
            } else {
                "firewall --disabled"
            },
        );
        match network {
            Network::Dhcp => line(text, "network --bootproto=dhcp --device=link --activate --onboot=on"),
            Network::Static {
                address,
                netmask,
                gateway,
                nameservers,
            } => {
                let mut command = format!(
                    "network --bootproto=static --device=link --activate --onboot=on --ip={address} --netmask={netmask} \
                     --gateway={gateway}"
                );
                if !nameservers.is_empty() {
                    let list: Vec<String> = nameservers.iter().map(ToString::to_string).collect();
                    command = format!("{command} --nameserver={}", list.join(","));
                }
                line(text, &command);
            }
        }
        line(text, "");
        line(text, &format!("ignoredisk --only-use={disk}"));
        let mut bootloader = format!("bootloader --location=mbr --boot-drive={disk} --timeout=1");
        if !kernel_append.is_empty() {
            for part in kernel_append {
                if part.contains('"') {
                    return Err(KickstartError::new(
                        "kernel_append",
                        "a double quote has no place in it",
                    ));
                }
            }
            let append = word("kernel_append", &kernel_append.join(" "))?;
            bootloader = format!("{bootloader} --append={append}");
        }
        line(text, &bootloader);
        line(text, &format!("part biosboot --fstype=biosboot --onpart={disk}1"));
        line(text, &format!("part /boot/efi --fstype=efi --onpart={disk}2"));
        line(text, &format!("part /boot --fstype=xfs --onpart={disk}3"));
        line(text, &format!("part / --fstype=xfs --onpart={disk}4"));
        line(text, "");
        Ok(())
    }

    fn accounts(&self, text: &mut String) -> Result<(), KickstartError> {
        line(text, "rootpw --lock");
        for key in &self.root_keys {
            line(text, &ssh_key("root_keys", "root", key)?);
        }
        for User {
            name: user,
            groups,
            password_hash,
            keys,
        } in &self.users
        {
            let user = name("users", user, "-_.")?;
            let mut command = format!("user --name={user}");
            if !groups.is_empty() {
                let groups: Result<Vec<&str>, _> = groups.iter().map(|group| name("users", group, "-_.")).collect();
                command = format!("{command} --groups={}", groups?.join(","));
            }
            match password_hash {
                Some(hash) => {
                    let hash = hash.expose_secret();
                    if !hash.starts_with('$') {
                        return Err(KickstartError::new(
                            "users",
                            "a password must be given as its crypt(3) hash",
                        ));
                    }
                    // The value of a secret must not stand in the error either: `word` names characters only.
                    command = format!("{command} --iscrypted --password={}", word("users", hash)?);
                }
                None => command.push_str(" --lock"),
            }
            line(text, &command);
            for key in keys {
                line(text, &ssh_key("users", user, key)?);
            }
        }
        for (option, field, units) in [
            ("enabled", "services_enabled", &self.services_enabled),
            ("disabled", "services_disabled", &self.services_disabled),
        ] {
            if !units.is_empty() {
                let units: Result<Vec<&str>, _> = units.iter().map(|unit| name(field, unit, "-_.@:")).collect();
                line(text, &format!("services --{option}={}", units?.join(",")));
            }
        }
        // With the build VM's option reboot=0 this ends the VM's process: the sign that the installer is done.
        line(text, "reboot --eject");
        Ok(())
    }

    fn sections(&self, text: &mut String) -> Result<(), KickstartError> {
        let disk = name("disk", &self.disk, "")?;
        line(text, "\n%pre --erroronfail");
        text.push_str(&PARTITION.replace("DISK", disk));
        line(text, "%end\n\n%packages --exclude-weakdeps");
        for package in self
            .packages
            .iter()
            .map(String::as_str)
            .chain(BOOT_PACKAGES.iter().copied())
        {
            let bare = package
                .strip_prefix("@^")
                .or_else(|| package.strip_prefix('@'))
                .unwrap_or(package);
            name("packages", bare, "-_.+*?:")?;
            line(text, package);
        }
        for package in &self.excluded_packages {
            line(text, &format!("-{}", name("excluded_packages", package, "-_.+*?")?));
        }
        line(text, "%end\n\n%post --erroronfail --log=/var/log/k3simage-post.log");
        text.push_str(&BOTH_FIRMWARES.replace("DISK", disk));
        line(text, "%end");
        for script in &self.post {
            let title = word("post", &script.name)?;
            line(
                text,
                &format!("\n# {title}\n%post --erroronfail --log=/var/log/k3simage-post.log"),
            );
            text.push_str("set -euo pipefail\n");
            text.push_str(&section_body("post", &script.body)?);
            line(text, "%end");
        }
        Ok(())
    }
}

pub(super) fn ssh_key(field: &str, user: &str, key: &str) -> Result<String, KickstartError> {
    let key = key.trim();
    let known = [
        "ssh-ed25519 ",
        "ssh-rsa ",
        "ecdsa-sha2-nistp",
        "sk-ssh-ed25519@",
        "sk-ecdsa-sha2-nistp",
    ];
    if !known.iter().any(|prefix| key.starts_with(prefix)) {
        return Err(KickstartError::new(
            field,
            "it holds no public key in the form `ssh-ed25519 AAAA... comment`",
        ));
    }
    Ok(format!("sshkey --username={user} \"{}\"", quoted(field, key)?))
}

/// Within double quotes.
fn quoted(field: &str, value: &str) -> Result<String, KickstartError> {
    let word = word(field, value)?;
    Ok(word
        .strip_prefix('"')
        .and_then(|word| word.strip_suffix('"'))
        .map_or(word.clone(), str::to_owned))
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests;
