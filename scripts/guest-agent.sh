#!/usr/bin/env bash
# Installs and enables the QEMU guest agent, by which Proxmox VE learns addresses, freezes disks and shuts down in order.
#
# The kickstart installs it too: without an agent the build cannot learn the guest's address and so never gets here.
# This script makes sure of it where another kickstart, with a fixed address, is used.
#
# Environment:
#   K3SIMAGE_ROOT    prefix of every path; for tests
set -euo pipefail

root="${K3SIMAGE_ROOT:-}"
fail() { printf 'guest-agent: %s\n' "$*" >&2; exit 1; }

rpm -q qemu-guest-agent >/dev/null 2>&1 || dnf -y install qemu-guest-agent \
    || fail 'dnf could not install qemu-guest-agent; it is in AppStream, so that repository must be reachable'

# udev starts the unit when the channel appears; enabling it covers a channel that is there from the start.
systemctl enable qemu-guest-agent.service

# The channel exists only if the VM has `agent: 1`. Packages can be laid down without it, so this is no failure.
if [[ -e "${root}/dev/virtio-ports/org.qemu.guest_agent.0" ]]; then
    systemctl start qemu-guest-agent.service || fail 'the agent does not start; see journalctl -u qemu-guest-agent'
    printf 'guest-agent: running\n'
else
    printf 'guest-agent: installed; this VM offers it no channel (VM option agent)\n'
fi
