#!/usr/bin/env bash
# Takes away what must not be cloned: identities, keys, passwords, states and logs. Runs last, before the shutdown.
#
# A list of named operations; each one has its own check and prints a line. Nothing it removes is needed by the script
# that runs, by the connection it runs over, or by the next boot, which makes machine-id and host keys anew.
#
# Environment:
#   SEAL_KEEP            operations to leave out, separated by spaces, e.g. "passwords authorized-keys"
#   K3SIMAGE_NAME        name of the image, written into /etc/k3simage/sealed
#   K3SIMAGE_BUILD_ID    id of the build, likewise
#   K3SIMAGE_ROOT        prefix of every path; for tests
set -euo pipefail
shopt -s nullglob dotglob

root="${K3SIMAGE_ROOT:-}"
fail() { printf 'seal: %s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
# absent PATH...: true if none of them exists (patterns that match nothing have vanished already)
absent() { local path; for path in "$@"; do [[ ! -e "${path}" && ! -L "${path}" ]] || return 1; done; }
homes=("${root}"/root "${root}"/home/*)

# In this order: what writes is stopped first, the marker of a sealed image comes last.
operations=(loggers k3s-state machine-id host-keys random-seed systemd-secrets hostname network-profiles network-state
    installer-files package-history authorized-keys passwords guest-agent cloud-init shell-history logs)

do_loggers() { systemctl stop syslog.socket rsyslog.service 2>/dev/null || true; if has auditctl; then service auditd stop >/dev/null 2>&1 || true; fi; }
ok_loggers() { ! systemctl is-active --quiet rsyslog.service; }

k3s_state() {
    printf '%s\n' "${root}"/var/lib/rancher/k3s/{server,data,storage,agent/[!i]*} "${root}"/etc/rancher/node \
        "${root}"/etc/rancher/k3s/k3s.yaml "${root}"/var/lib/{kubelet,cni,k3simage/firstboot.done} "${root}"/etc/cni/net.d \
        "${root}"/var/log/{pods,containers} "${root}"/etc/k3simage/{k3s,role}.env "${root}"/root/.kube "${root}"/home/*/.kube
}
do_k3s-state() {
    local state
    # Its containers would still hold these paths; and the image promises that no cluster was ever made in it.
    if systemctl is-active --quiet k3s.service || systemctl is-active --quiet k3s-agent.service; then
        fail 'k3s is running: no script of an image may start it (with the k3s installer, set INSTALL_K3S_SKIP_START=true)'
    fi
    mapfile -t state < <(k3s_state)
    rm -rf "${state[@]}"
}
ok_k3s-state() { local state; mapfile -t state < <(k3s_state); absent "${state[@]}"; }

# Empty, not "uninitialized" and not missing: those make systemd apply presets at the next boot, which would disable
# k3simage-firstboot.
do_machine-id() {
    : >"${root}/etc/machine-id"
    if [[ -f "${root}/var/lib/dbus/machine-id" && ! -L "${root}/var/lib/dbus/machine-id" ]]; then rm -f "${root}/var/lib/dbus/machine-id"; fi
}
ok_machine-id() { [[ -f "${root}/etc/machine-id" && ! -s "${root}/etc/machine-id" && ! -s "${root}/var/lib/dbus/machine-id" ]]; }

# sshd-keygen@.service, or cloud-init where it is active, makes them at the next boot.
do_host-keys() { rm -f "${root}"/etc/ssh/ssh_host_*; }
ok_host-keys() { absent "${root}"/etc/ssh/ssh_host_*; }

# Stopping the service saves a seed, and so does a shutdown while it is active: stop first, then remove.
do_random-seed() {
    systemctl stop systemd-random-seed.service 2>/dev/null || true
    rm -f "${root}"/var/lib/systemd/random-seed "${root}"/boot/efi/loader/random-seed "${root}"/boot/loader/random-seed
}
ok_random-seed() { absent "${root}"/var/lib/systemd/random-seed "${root}"/boot/efi/loader/random-seed "${root}"/boot/loader/random-seed; }

do_systemd-secrets() { rm -f "${root}"/var/lib/systemd/credential.secret "${root}"/etc/machine-info; }
ok_systemd-secrets() { absent "${root}"/var/lib/systemd/credential.secret "${root}"/etc/machine-info; }

# A clone's name comes from cloud-init, DHCP, or the first boot; never from the machine it was made of.
do_hostname() { rm -f "${root}/etc/hostname"; }
ok_hostname() { absent "${root}/etc/hostname"; }

# Without its uuid line a profile gets one made of its file name; a hardware address would tie it to the build VM.
do_network-profiles() {
    local profile
    for profile in "${root}"/etc/NetworkManager/system-connections/*.nmconnection; do
        sed -i -E '/^(uuid|mac-address|cloned-mac-address|timestamp)=/d' "${profile}"
        if grep -Eqs '^(address[0-9]*|addresses)=' "${profile}"; then
            printf 'seal: note: %s holds a fixed address, which every clone will have\n' "${profile##*/}"
        fi
    done
    for profile in "${root}"/etc/sysconfig/network-scripts/ifcfg-*; do sed -i -E '/^(UUID|HWADDR|MACADDR)=/d' "${profile}"; done
}
ok_network-profiles() {
    ! grep -Eqs '^(uuid|mac-address|UUID|HWADDR)=' "${root}"/etc/NetworkManager/system-connections/*.nmconnection \
        "${root}"/etc/sysconfig/network-scripts/ifcfg-* /dev/null
}

# Leases, and the key of which NetworkManager makes stable addresses and DHCP ids.
do_network-state() { rm -rf "${root}"/var/lib/NetworkManager/* "${root}"/var/lib/dhclient/* "${root}"/etc/udev/rules.d/70-persistent-net.rules; }
ok_network-state() { absent "${root}"/var/lib/NetworkManager/* "${root}"/var/lib/dhclient/*; }

installer_files() {
    printf '%s\n' "${root}"/root/{anaconda-ks.cfg,original-ks.cfg,initial-setup-ks.cfg} "${root}"/root/ks-*.log \
        "${root}"/var/log/anaconda "${root}"/tmp/ks-script-* "${root}"/var/tmp/k3s-install.*
}
do_installer-files() { local files; mapfile -t files < <(installer_files); rm -rf "${files[@]}"; }
ok_installer-files() { local files; mapfile -t files < <(installer_files); absent "${files[@]}"; }

do_package-history() {
    if has dnf; then dnf -q clean all >/dev/null; fi
    rm -rf "${root}"/var/lib/dnf/history.sqlite* "${root}"/var/cache/dnf/* "${root}"/var/lib/dnf/countme
}
ok_package-history() { absent "${root}"/var/lib/dnf/history.sqlite* "${root}"/var/cache/dnf/*; }

# The build's own key is among them. cloud-init writes a clone's keys at its first boot.
do_authorized-keys() { local home; for home in "${homes[@]}"; do rm -rf "${home}/.ssh"; done; }
ok_authorized-keys() { local home; for home in "${homes[@]}"; do absent "${home}/.ssh" || return 1; done; }

# A password that built the image would open every clone, and so would an empty one. The backup files beside hold the former hashes.
do_passwords() {
    sed -i -E '/^[^:]+:[!*]+:/!s/^([^:]+):[^:]*:/\1:!!:/' "${root}/etc/shadow"
    rm -f "${root}"/etc/{shadow,passwd,gshadow,group}-
    if has restorecon; then restorecon "${root}/etc/shadow"; fi
}
ok_passwords() { ! grep -Eqv '^([^:]+:[!*]+:|$)' "${root}/etc/shadow" && absent "${root}"/etc/shadow-; }

# The agent's own list again: nothing that runs programs or touches files. It is read when the agent starts, so the
# one that may be carrying this very script goes on until the shutdown.
agent_config="${root}/etc/sysconfig/qemu-ga"
agent_rpcs=guest-sync-delimited,guest-sync,guest-ping,guest-info,guest-get-time,guest-set-time,guest-shutdown
agent_rpcs+=,guest-fsfreeze-status,guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fsfreeze-thaw,guest-fstrim
agent_rpcs+=,guest-network-get-interfaces,guest-get-host-name,guest-get-users,guest-get-timezone,guest-get-osinfo
agent_rpcs+=,guest-get-vcpus,guest-get-fsinfo,guest-get-memory-blocks,guest-get-memory-block-info,guest-get-disks,guest-get-diskstats,guest-get-cpustats
do_guest-agent() {
    # The file as it was shipped, where the build put it aside to open the agent.
    if [[ -f "${agent_config}.k3simage" ]]; then mv -f "${agent_config}.k3simage" "${agent_config}"; fi
    if [[ -f "${agent_config}" ]] && ! ok_agent_list; then
        sed -i -E '/^[[:space:]]*(FILTER_RPC_ARGS|BLACKLIST_RPC|BLOCK_RPCS)=/d' "${agent_config}"
        printf 'FILTER_RPC_ARGS="--allow-rpcs=%s"\n' "${agent_rpcs}" >>"${agent_config}"
    fi
    rm -rf "${root}"/etc/systemd/system/qemu-guest-agent.service.d
    if has getsebool && [[ "$(getsebool virt_qemu_ga_run_unconfined 2>/dev/null)" == *'> on' ]]; then setsebool -P virt_qemu_ga_run_unconfined off; fi
}
ok_agent_list() {
    [[ ! -f "${agent_config}" ]] && return 0
    # Of two lines the last one counts, so there may be only one.
    [[ "$(grep '^[[:space:]]*FILTER_RPC_ARGS=' "${agent_config}")" =~ ^FILTER_RPC_ARGS=\"?--allow-rpcs=guest-[a-z0-9,-]+\"?$ ]] \
        && ! grep -Eq '^[^#]*guest-(exec|file-|set-user-password|ssh-)' "${agent_config}"
}
ok_guest-agent() {
    ok_agent_list && absent "${root}"/etc/systemd/system/qemu-guest-agent.service.d \
        && { ! has getsebool || [[ "$(getsebool virt_qemu_ga_run_unconfined 2>/dev/null)" != *'> on' ]]; }
}

do_cloud-init() {
    if has cloud-init; then cloud-init clean --logs; fi
    rm -rf "${root}"/var/lib/cloud/*
}
ok_cloud-init() { absent "${root}"/var/lib/cloud/*; }

histories() { local home; for home in "${homes[@]}"; do printf '%s\n' "${home}"/.{bash_history,viminfo,lesshst,python_history,wget-hsts,cache}; done; }
do_shell-history() { local files; mapfile -t files < <(histories); rm -rf "${files[@]}"; }
ok_shell-history() { local files; mapfile -t files < <(histories); absent "${files[@]}"; }

# Emptied in place, so that owners, modes and SELinux labels stay; what was rotated or belongs to the journal goes.
do_logs() {
    if has journalctl; then journalctl --relinquish-var 2>/dev/null || true; fi
    rm -rf "${root}"/var/log/journal/*
    find "${root}/var/log" -xdev -type f \( -name '*.gz' -o -name '*.xz' -o -name '*-20[0-9][0-9]*' -o -name '*.[0-9]' \) -delete
    find "${root}/var/log" -xdev -type f -size +0 -exec truncate --size 0 {} +
}
ok_logs() { [[ -z "$(find "${root}/var/log" -xdev -type f -size +0 -print -quit)" ]]; }

for kept in ${SEAL_KEEP:-}; do
    [[ " ${operations[*]} " == *" ${kept} "* ]] || fail "SEAL_KEEP names \"${kept}\"; the operations are: ${operations[*]}"
done
for operation in "${operations[@]}"; do
    if [[ " ${SEAL_KEEP:-} " == *" ${operation} "* ]]; then
        printf 'seal: %-17s kept (SEAL_KEEP)\n' "${operation}"
        continue
    fi
    "do_${operation}"
    "ok_${operation}" || fail "${operation}: something is left after its removal"
    printf 'seal: %-17s ok\n' "${operation}"
done

install -d "${root}/etc/k3simage"
printf 'IMAGE_NAME=%s\nBUILD_ID=%s\n' "${K3SIMAGE_NAME:-}" "${K3SIMAGE_BUILD_ID:-}" >"${root}/etc/k3simage/sealed"
sync
printf 'seal: done; the next boot makes an identity of its own\n'
