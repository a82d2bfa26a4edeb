//! What the few packages bring that matter to an image build; every other package is only a name.

/// Members of a group or dependencies of a package, as far as they change what a guest shows.
pub(super) fn members(name: &str) -> &'static [&'static str] {
    match name {
        "@core" | "@Core" => &["openssh-server", "firewalld", "selinux-policy-targeted", "sudo", "dnf"],
        "@^minimal-environment" | "@^server-product-environment" => &["@core"],
        "@guest-agents" => &["qemu-guest-agent"],
        "k3s-selinux" => &["container-selinux"],
        _ => &[],
    }
}

/// The units that a package brings; EL's presets enable each of these.
pub(super) fn units(name: &str) -> &'static [&'static str] {
    match name {
        "openssh-server" => &["sshd.service"],
        "qemu-guest-agent" => &["qemu-guest-agent.service"],
        "firewalld" => &["firewalld.service"],
        "chrony" => &["chronyd.service"],
        "cloud-init" => &[
            "cloud-init-local.service",
            "cloud-init.service",
            "cloud-config.service",
            "cloud-final.service",
        ],
        "tuned" => &["tuned.service"],
        "NetworkManager-cloud-setup" => &["nm-cloud-setup.service"],
        _ => &[],
    }
}

/// Whether a package lies in AppStream, which the minimal ISO does not carry.
pub(super) fn is_in_appstream(name: &str) -> bool {
    const APPSTREAM: &[&str] = &[
        "@guest-agents",
        "qemu-guest-agent",
        "cloud-init",
        "cloud-utils-growpart",
        "container-selinux",
        "git",
        "podman",
        "openscap-scanner",
        "scap-security-guide",
        "NetworkManager-cloud-setup",
        "python3-pip",
    ];
    APPSTREAM.contains(&name)
}

/// Files of a package: path, text, mode.
pub(super) fn files(name: &str) -> &'static [(&'static str, &'static str, u32)] {
    match name {
        // Both halves of EL9's own policy: no exec, no file access.
        "qemu-guest-agent" => &[
            ("/etc/sysconfig/qemu-ga", QEMU_GA, 0o644),
            ("/usr/lib/systemd/system/qemu-guest-agent.service", UNIT, 0o644),
        ],
        "openssh-server" => &[
            (
                "/etc/ssh/sshd_config.d/50-redhat.conf",
                "X11Forwarding yes\nUsePAM yes\n",
                0o600,
            ),
            ("/usr/lib/systemd/system/sshd.service", UNIT, 0o644),
        ],
        // On every firmware: GRUB's stub beside it is what a BIOS install adds for UEFI.
        "shim-x64" => &[("/boot/efi/EFI/almalinux/shimx64.efi", "", 0o700)],
        "dnf" => &[("/usr/bin/dnf", "", 0o755)],
        _ => &[],
    }
}

/// Stands for a unit file: only that it is there matters.
const UNIT: &str = "[Unit]\n[Service]\n[Install]\nWantedBy=multi-user.target\n";

const QEMU_GA: &str = "# This is a systemd environment file, not a shell script.\n\
FILTER_RPC_ARGS=\"--allow-rpcs=guest-sync-delimited,guest-sync,guest-ping,guest-get-time,guest-set-time,guest-info,\
guest-shutdown,guest-fsfreeze-status,guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fsfreeze-thaw,guest-fstrim,\
guest-suspend-disk,guest-suspend-ram,guest-suspend-hybrid,guest-network-get-interfaces,guest-get-vcpus,guest-set-vcpus,\
guest-get-disks,guest-get-fsinfo,guest-set-user-password,guest-get-memory-blocks,guest-set-memory-blocks,\
guest-get-memory-block-info,guest-get-host-name,guest-get-users,guest-get-timezone,guest-get-osinfo,guest-get-devices,\
guest-ssh-get-authorized-keys,guest-ssh-add-authorized-keys,guest-ssh-remove-authorized-keys,guest-get-diskstats,\
guest-get-cpustats\"\n\
# Fsfreeze hook script specification.\nFSFREEZE_HOOK_PATHNAME=/etc/qemu-ga/fsfreeze-hook\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_locked_down_as_el9_ships_it() {
        assert!(QEMU_GA.contains("guest-network-get-interfaces"));
        assert!(!QEMU_GA.contains("guest-exec") && !QEMU_GA.contains("guest-file"));
    }
}
