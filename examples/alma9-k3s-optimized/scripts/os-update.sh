#!/usr/bin/env bash
# Updates AlmaLinux 9 and sets what every k3s node needs: time, no swap, no firewalld, no nm-cloud-setup.
#
# Environment:
#   OS_UPDATE        1 (default) installs all updates; 0 keeps the packages of the installation medium
#   K3SIMAGE_ROOT    prefix of every path; for tests
set -euo pipefail

root="${K3SIMAGE_ROOT:-}"
fail() { printf 'os-update: %s\n' "$*" >&2; exit 1; }

# Writes standard input to PATH if the file does not hold it yet.
put() {
    local path="${root}$1" text
    text="$(cat)"
    [[ -f "${path}" && "$(cat "${path}")" == "${text}" ]] && return 0
    mkdir -p "${path%/*}"
    printf '%s\n' "${text}" >"${path}"
    printf 'os-update: wrote %s\n' "$1"
}

# True if systemd knows UNIT, whatever its state.
has_unit() { [[ -n "$(systemctl list-unit-files --no-legend "$1" 2>/dev/null)" ]]; }

case "${OS_UPDATE:-1}" in
    # Said here too, beside EL9's own setting: an update must not end well because a repository was left out.
    1) dnf -y --refresh --setopt=skip_if_unavailable=False upgrade || fail 'dnf could not update; see its lines above: most often a mirror or DNS was not reachable' ;;
    0) printf 'os-update: updates left out (OS_UPDATE=0)\n' ;;
    *) fail "OS_UPDATE is \"${OS_UPDATE}\"; give 1 or 0" ;;
esac

# Certificates, leases and etcd need a right clock.
for package in chrony tar; do
    rpm -q "${package}" >/dev/null 2>&1 || dnf -y install "${package}" || fail "dnf could not install ${package}"
done
systemctl enable chronyd.service

# The kubelet refuses to start beside swap.
swapoff -a
if grep -Eqs '^[^#[:space:]]+[[:space:]]+[^[:space:]]+[[:space:]]+swap[[:space:]]' "${root}/etc/fstab"; then
    sed -i -E 's/^([^#[:space:]]+[[:space:]]+[^[:space:]]+[[:space:]]+swap[[:space:]].*)$/# no swap beside the kubelet: \1/' \
        "${root}/etc/fstab"
    printf 'os-update: took swap out of /etc/fstab\n'
fi

# firewalld reorders the rules that k3s, flannel and network policies write. A node is fenced by the hypervisor's firewall.
if has_unit firewalld.service; then systemctl disable --now firewalld.service; fi

# nm-cloud-setup adds routing rules that break pod traffic (k3s documentation, "Additional OS preparations").
for unit in nm-cloud-setup.service nm-cloud-setup.timer; do
    if has_unit "${unit}"; then
        systemctl disable --now "${unit}"
        systemctl mask "${unit}"
    fi
done

# NetworkManager must not take the interfaces that the container network makes.
put /etc/NetworkManager/conf.d/90-k3s.conf <<'CONF'
[keyfile]
unmanaged-devices=interface-name:cni*;interface-name:flannel*;interface-name:veth*
CONF

printf 'os-update: done\n'
