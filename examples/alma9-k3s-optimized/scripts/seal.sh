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
# What is only removed can still be read from the free space of every clone. Larger files hold no secrets.
overwrite() {
    local path
    if ! has shred; then return 0; fi
    for path in "$@"; do
        if [[ -e "${path}" && ! -L "${path}" ]]; then find "${path}" -xdev -type f -size -8M -exec shred --force --iterations=0 --zero {} +; fi
    done
}
# Of root, of every account, and what lies where homes lie.
homes=("${root}"/root "${root}"/home/*)
if [[ -f "${root}/etc/passwd" ]]; then
    while IFS=: read -r _ _ _ _ _ home _; do
        if [[ "${home}" == /?* && -d "${root}${home}" && " ${homes[*]} " != *" ${root}${home} "* ]]; then homes+=("${root}${home}"); fi
    done <"${root}/etc/passwd"
fi

# In this order: what writes is stopped first, the marker of a sealed image comes last.
operations=(loggers k3s-state machine-id host-keys random-seed systemd-secrets storage-names hostname network-profiles network-state
    installer-files package-history credentials authorized-keys passwords guest-agent cloud-init shell-history spool crash-dumps logs free-space)

do_loggers() { systemctl stop syslog.socket rsyslog.service 2>/dev/null || true; if has auditctl; then service auditd stop >/dev/null 2>&1 || true; fi; }
ok_loggers() { ! systemctl is-active --quiet rsyslog.service; }

k3s_state() {
    printf '%s\n' "${root}"/var/lib/rancher/k3s/{server,data,storage,agent/{[!i]*,i[!m]*}} "${root}"/etc/rancher/node \
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
    overwrite "${state[@]}"
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
do_host-keys() {
    overwrite "${root}"/etc/ssh/ssh_host_*
    rm -f "${root}"/etc/ssh/ssh_host_*
}
ok_host-keys() { absent "${root}"/etc/ssh/ssh_host_*; }

# Stopping the service saves a seed, and so does a shutdown while it is active: stop first, then remove.
do_random-seed() {
    systemctl stop systemd-random-seed.service 2>/dev/null || true
    overwrite "${root}"/var/lib/systemd/random-seed "${root}"/boot{/efi,}/loader/random-seed
    rm -f "${root}"/var/lib/systemd/random-seed "${root}"/boot/efi/loader/random-seed "${root}"/boot/loader/random-seed
}
ok_random-seed() { absent "${root}"/var/lib/systemd/random-seed "${root}"/boot/efi/loader/random-seed "${root}"/boot/loader/random-seed; }

do_systemd-secrets() {
    overwrite "${root}"/var/lib/systemd/credential.secret
    rm -f "${root}"/var/lib/systemd/credential.secret "${root}"/etc/machine-info
}
ok_systemd-secrets() { absent "${root}"/var/lib/systemd/credential.secret "${root}"/etc/machine-info; }

# The machine towards a storage. iscsi-init makes a name where there is none; NVMe over fabrics then takes the one of the firmware.
do_storage-names() {
    if ! ok_storage-names; then rm -f "${root}"/etc/iscsi/initiatorname.iscsi; fi
    rm -f "${root}"/etc/nvme/host{id,nqn}
}
ok_storage-names() { absent "${root}"/etc/nvme/host{id,nqn} && ! grep -qs '^InitiatorName=.' "${root}"/etc/iscsi/initiatorname.iscsi; }

# A clone's name comes from cloud-init, DHCP, or the first boot; never from the machine it was made of.
do_hostname() { rm -f "${root}/etc/hostname"; }
ok_hostname() { absent "${root}/etc/hostname"; }

# Without its uuid line a profile gets one made of its file name; a hardware address would tie it to the build VM.
do_network-profiles() {
    local profile
    for profile in "${root}"/etc/NetworkManager/system-connections/*; do
        sed -i -E '/^(uuid|mac-address|cloned-mac-address|timestamp)=/d' "${profile}"
        if grep -Eqs '^(address[0-9]*|addresses)=' "${profile}"; then
            printf 'seal: note: %s holds a fixed address, which every clone will have\n' "${profile##*/}"
        fi
    done
    for profile in "${root}"/etc/sysconfig/network-scripts/ifcfg-*; do sed -i -E '/^(UUID|HWADDR|MACADDR)=/d' "${profile}"; done
}
ok_network-profiles() {
    ! grep -Eqs '^(uuid|mac-address|UUID|HWADDR)=' "${root}"/etc/NetworkManager/system-connections/* \
        "${root}"/etc/sysconfig/network-scripts/ifcfg-* /dev/null
}

# Leases, and the key of which NetworkManager makes stable addresses and DHCP ids. The name servers are noted by it at every start.
do_network-state() {
    overwrite "${root}"/var/lib/NetworkManager/secret_key
    rm -rf "${root}"/var/lib/NetworkManager/* "${root}"/var/lib/dhclient/* "${root}"/etc/udev/rules.d/70-persistent-net.rules
    if [[ ! -L "${root}/etc/resolv.conf" ]] && grep -qs '^# Generated by NetworkManager' "${root}/etc/resolv.conf"; then : >"${root}/etc/resolv.conf"; fi
}
ok_network-state() { absent "${root}"/var/lib/NetworkManager/* "${root}"/var/lib/dhclient/*; }

installer_files() {
    printf '%s\n' "${root}"/root/{anaconda-ks.cfg,original-ks.cfg,initial-setup-ks.cfg} "${root}"/root/ks-*.log \
        "${root}"/var/log/anaconda "${root}"/tmp/ks-script-* "${root}"/var/tmp/k3s-install.*
}
do_installer-files() {
    local files
    mapfile -t files < <(installer_files)
    overwrite "${files[@]}"
    rm -rf "${files[@]}"
}
ok_installer-files() { local files; mapfile -t files < <(installer_files); absent "${files[@]}"; }

do_package-history() {
    if has dnf; then dnf -q clean all >/dev/null; fi
    # In repos/ lie the weeks that each repository's counter has seen.
    rm -rf "${root}"/var/lib/dnf/history.sqlite* "${root}"/var/cache/dnf/* "${root}"/var/lib/dnf/{countme,repos}
}
ok_package-history() { absent "${root}"/var/lib/dnf/history.sqlite* "${root}"/var/cache/dnf/* "${root}"/var/lib/dnf/repos; }

credentials() {
    local home
    for home in "${homes[@]}"; do
        printf '%s\n' "${home}"/.{gnupg,netrc,git-credentials,pypirc,npmrc,vault-token,pgpass,my.cnf,aws/credentials,docker/config.json} \
            "${home}"/.config/{containers/auth.json,gh/hosts.yml}
    done
}
do_credentials() { local files; mapfile -t files < <(credentials); overwrite "${files[@]}"; rm -rf "${files[@]}"; }
ok_credentials() { local files; mapfile -t files < <(credentials); absent "${files[@]}"; }

# The build's own key is among them. cloud-init writes a clone's keys at its first boot.
do_authorized-keys() { local home; for home in "${homes[@]}"; do overwrite "${home}/.ssh"; rm -rf "${home}/.ssh"; done; }
ok_authorized-keys() { local home; for home in "${homes[@]}"; do absent "${home}/.ssh" || return 1; done; }

# A password that built the image would open every clone, and so would an empty one. The backup files beside hold the former hashes.
do_passwords() {
    local file
    # sed writes a new file; the old one keeps a name until it is overwritten.
    for file in shadow gshadow passwd; do if [[ -f "${root}/etc/${file}" ]]; then ln -f "${root}/etc/${file}" "${root}/etc/${file}.seal"; fi; done
    sed -i -E '/^[^:]+:[!*]+:/!s/^([^:]+):[^:]*:/\1:!!:/' "${root}/etc/shadow"
    if [[ -f "${root}/etc/gshadow" ]]; then sed -i -E '/^[^:]+:[!*]*:/!s/^([^:]+):[^:]*:/\1:!:/' "${root}/etc/gshadow"; fi
    if [[ -f "${root}/etc/passwd" ]] && grep -Eqv "${passwd_line}" "${root}/etc/passwd"; then sed -i -E "/${passwd_line}/!s/^([^:]+):[^:]*:/\\1:x:/" "${root}/etc/passwd"; fi
    for file in "${root}"/etc/{shadow,gshadow,passwd}; do
        if has restorecon && [[ -f "${file}" ]]; then restorecon "${file}"; fi
        if [[ ! "${file}" -ef "${file}.seal" ]]; then overwrite "${file}.seal"; fi
        rm -f "${file}.seal"
    done
    overwrite "${root}"/etc/{shadow,gshadow,passwd,group}- "${root}"/etc/security/opasswd
    rm -f "${root}"/etc/{shadow,passwd,gshadow,group}-
    if [[ -s "${root}/etc/security/opasswd" ]]; then : >"${root}/etc/security/opasswd"; fi
}
passwd_line='^([^:]+:[x*!]+:|$)'
ok_passwords() {
    ! grep -Eqv '^([^:]+:[!*]+:|$)' "${root}/etc/shadow" && absent "${root}"/etc/{shadow,gshadow}- \
        && ! grep -Eqsv '^([^:]+:[!*]*:|$)' "${root}/etc/gshadow" && ! grep -Eqsv "${passwd_line}" "${root}/etc/passwd" && [[ ! -s "${root}/etc/security/opasswd" ]]
}

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

histories() {
    local home
    for home in "${homes[@]}"; do
        printf '%s\n' "${home}"/.{viminfo,lesshst,wget-hsts,history,cache} "${home}"/.*_history "${home}"/.*hist "${home}"/.recently-used* \
            "${home}"/.local/share/{fish/fish_history,nano/search_history} "${home}"/.local/state/*history*
    done
}
do_shell-history() { local files; mapfile -t files < <(histories); overwrite "${files[@]}"; rm -rf "${files[@]}"; }
ok_shell-history() { local files; mapfile -t files < <(histories); absent "${files[@]}"; }

# Mail and jobs that every clone would deliver or run once more. Mailboxes are emptied: useradd made them.
spooled() { find "${root}"/var/spool/{mail/,postfix/{maildrop,incoming,active,deferred,defer,hold,bounce,corrupt},at} -xdev -type f -size +0 ! -name .SEQ "$@" 2>/dev/null || true; }
do_spool() { spooled -exec truncate --size 0 {} +; rm -f "${root}"/var/spool/postfix/{maildrop,incoming,active,deferred,defer,hold,bounce,corrupt}/* "${root}"/var/spool/at/[a-z]*; }
ok_spool() { [[ -z "$(spooled -print)" ]]; }

do_crash-dumps() { rm -rf "${root}"/var/crash/* "${root}"/var/lib/systemd/{coredump,pstore}/* "${root}"/var/spool/abrt/*; }
ok_crash-dumps() { absent "${root}"/var/crash/* "${root}"/var/lib/systemd/{coredump,pstore}/* "${root}"/var/spool/abrt/*; }

# Emptied in place, so that owners, modes and SELinux labels stay; what was rotated or belongs to the journal goes.
do_logs() {
    if has journalctl; then journalctl --relinquish-var 2>/dev/null || true; fi
    # rsyslog's place in the journal names boot and machine.
    rm -rf "${root}"/var/log/journal/* "${root}"/var/lib/rsyslog/* "${root}"/var/spool/rsyslog/* "${root}"/var/account/pacct*
    # The shutdown is noted in wtmp where there is one, and systemd-tmpfiles makes it at the next boot.
    rm -f "${root}"/var/log/wtmp
    find "${root}/var/log" -xdev -type f \( -name '*.gz' -o -name '*.xz' -o -name '*-20[0-9][0-9]*' -o -name '*.[0-9]' \) -delete
    find "${root}/var/log" -xdev -type f -size +0 -exec truncate --size 0 {} +
}
ok_logs() { [[ -z "$(find "${root}/var/log" -xdev -type f -size +0 -print -quit)" ]] && absent "${root}"/var/log/{wtmp,journal/*} "${root}"/var/lib/rsyslog/*; }

# What was removed goes from the disk too, where the disk takes discards; not all of it: a disk forgets in pieces of its own size.
do_free-space() {
    if [[ -n "${root}" ]] || ! has fstrim; then return 0; fi
    sync
    # It passes over disks that take none, and says nothing of them.
    if [[ -z "$(fstrim --all --verbose 2>/dev/null || true)" ]]; then
        printf 'seal: note: the disk takes no discards; what was removed lies in its free space\n'
    fi
}
ok_free-space() { :; }

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
