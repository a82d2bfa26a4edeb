//! `Kickstart`: an AlmaLinux 9 installation as data.

use std::net::Ipv4Addr;

use secrecy::SecretString;
use serde::Serialize;

/// An unattended installation of AlmaLinux 9 on one disk that boots with BIOS and with UEFI.
///
/// The default is what a k3s node wants: no swap, SELinux enforcing, root without a password, the guest agent and
/// cloud-init. Every value is data: what could become a command of its own is refused by [`render`](Self::render).
#[derive(Clone, Debug, Serialize)]
pub struct Kickstart {
    /// Where the packages come from.
    pub source: InstallSource,
    /// Further repositories for the installation.
    pub repos: Vec<Repo>,
    /// Language, `en_US.UTF-8`.
    pub lang: String,
    /// Keyboard layout, `us`.
    pub keyboard: String,
    /// Time zone, `UTC`.
    pub timezone: String,
    /// Network of the installed system.
    pub network: Network,
    /// Kernel name of the disk, `sda` on a SCSI controller, `vda` on virtio-blk.
    pub disk: String,
    /// Added to the kernel's command line.
    pub kernel_append: Vec<String>,
    /// Public keys that may log in as root, in OpenSSH's one-line form.
    pub root_keys: Vec<String>,
    /// Further users.
    pub users: Vec<User>,
    /// Packages and groups (`@core`, `@^minimal-environment`).
    pub packages: Vec<String>,
    /// Packages that a group would bring and that are left out.
    pub excluded_packages: Vec<String>,
    /// Units to enable.
    pub services_enabled: Vec<String>,
    /// Units to disable.
    pub services_disabled: Vec<String>,
    /// Is firewalld on? k3s recommends off, else 6443/tcp and its networks must be opened.
    pub firewall: bool,
    /// Scripts that run in the installed system at the end, in this order.
    pub post: Vec<PostScript>,
}

/// Where the packages come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InstallSource {
    /// The ISO itself; complete only on AlmaLinux's `dvd`.
    Cdrom,
    /// A tree over the network.
    Url(String),
    /// A mirror list.
    Mirrorlist(String),
}

/// A repository for the installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repo {
    /// Its name.
    pub name: String,
    /// Its mirror list or base address.
    pub source: InstallSource,
}

/// Network of the installed system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Network {
    /// Asked for by DHCP.
    Dhcp,
    /// Fixed.
    Static {
        /// Address.
        address: Ipv4Addr,
        /// Network mask, `255.255.255.0`.
        netmask: Ipv4Addr,
        /// Gateway.
        gateway: Ipv4Addr,
        /// Name servers.
        nameservers: Vec<Ipv4Addr>,
    },
}

/// A user beside root.
#[derive(Clone, Debug, Serialize)]
pub struct User {
    /// Name.
    pub name: String,
    /// Groups such as `wheel`.
    pub groups: Vec<String>,
    /// Password as `crypt(3)` leaves it (`$6$...`); `None` locks it.
    #[serde(skip)]
    pub password_hash: Option<SecretString>,
    /// Public keys that may log in.
    pub keys: Vec<String>,
}

/// A script that runs in the installed system at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PostScript {
    /// Says in the log what it does.
    pub name: String,
    /// Lines for bash; the first that fails ends the installation.
    pub body: String,
}

/// AlmaLinux's own mirror lists, which always point at the current minor release.
const MIRRORLIST_BASEOS: &str = "https://mirrors.almalinux.org/mirrorlist/9/baseos";
const MIRRORLIST_APPSTREAM: &str = "https://mirrors.almalinux.org/mirrorlist/9/appstream";

impl Default for Kickstart {
    fn default() -> Self {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Self {
            // boot has no packages and minimal lacks AppStream, where agent and cloud-init live; mixing a minor
            // release's BaseOS from the ISO with the current AppStream breaks dependencies. The network serves all three.
            source: InstallSource::Mirrorlist(MIRRORLIST_BASEOS.to_owned()),
            repos: vec![Repo {
                name: "AppStream".to_owned(),
                source: InstallSource::Mirrorlist(MIRRORLIST_APPSTREAM.to_owned()),
            }],
            lang: "en_US.UTF-8".to_owned(),
            keyboard: "us".to_owned(),
            timezone: "UTC".to_owned(),
            network: Network::Dhcp,
            disk: "sda".to_owned(),
            kernel_append: texts(&["console=tty0", "console=ttyS0,115200n8"]),
            root_keys: Vec::new(),
            users: Vec::new(),
            packages: texts(&[
                "@^minimal-environment",
                "qemu-guest-agent",
                "openssh-server",
                "cloud-init",
                "cloud-utils-growpart",
                "chrony",
                "tar",
            ]),
            // Firmware of hardware that no virtual machine has: some 400 MB.
            excluded_packages: texts(&["iwl*firmware", "plymouth", "dracut-config-rescue"]),
            services_enabled: texts(&["qemu-guest-agent", "sshd", "chronyd"]),
            services_disabled: Vec::new(),
            firewall: false,
            post: Vec::new(),
        }
    }
}
