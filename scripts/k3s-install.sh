#!/usr/bin/env bash
# Lays k3s down without ever starting it: verified binary, the units of both roles, and the unit that decides at first boot.
#
# Environment:
#   K3S_VERSION             required, as on the release page: v1.29.0+k3s1
#   K3S_ROLE                what a clone becomes that is told nothing: server (default), agent or none
#   K3S_MIRROR_URL          where the release files come from, laid out as MIRROR/VERSION/FILE with + as %2B;
#                           default https://github.com/k3s-io/k3s/releases/download
#   K3S_SHA256              SHA-256 of the binary; if given it must fit beside the release's own list. Required for http://
#   K3S_AIRGAP_IMAGES       1 also lays down the release's container images, so that nodes need no registry; default 0
#   K3S_AIRGAP_SHA256       SHA-256 of their archive, as K3S_SHA256 is that of the binary
#   K3S_SELINUX_RPM_URL     k3s-selinux RPM to install, with
#   K3S_SELINUX_RPM_SHA256  its SHA-256; both or neither
#   K3SIMAGE_NAME           name of the image, kept for the first boot: no node may have it
#   K3SIMAGE_BUILD_ID       id of the build, kept for people
#   K3SIMAGE_ROOT           prefix of every path; for tests
#
# Written: /usr/local/bin/{k3s,kubectl,crictl,ctr}, /etc/k3simage/image.env, k3s.service, k3s-agent.service,
# k3simage-firstboot.service and its program. A second run with the same input changes nothing.
set -euo pipefail

root="${K3SIMAGE_ROOT:-}"
fail() { printf 'k3s-install: %s\n' "$*" >&2; exit 1; }

version="${K3S_VERSION:-}"
role="${K3S_ROLE:-server}"
mirror="${K3S_MIRROR_URL:-https://github.com/k3s-io/k3s/releases/download}"
image="${K3SIMAGE_NAME:-}"
build="${K3SIMAGE_BUILD_ID:-}"
rpm_url="${K3S_SELINUX_RPM_URL:-}"
rpm_sum="${K3S_SELINUX_RPM_SHA256:-}"

[[ "${version}" =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[a-z0-9.]+)?\+k3s[0-9]+$ ]] \
    || fail "K3S_VERSION is \"${version}\"; give a release such as v1.29.0+k3s1"
[[ "${role}" =~ ^(server|agent|none)$ ]] || fail "K3S_ROLE is \"${role}\"; give server, agent or none"
[[ "${mirror}" =~ ^https?://[^[:space:]]+$ ]] || fail "K3S_MIRROR_URL is \"${mirror}\"; give an https:// address"
[[ "${mirror}" == https://* || -n "${K3S_SHA256:-}" ]] \
    || fail 'K3S_MIRROR_URL is http://, so its list of checksums proves nothing: give K3S_SHA256 too, or use https://'
[[ "${K3S_AIRGAP_IMAGES:-0}" == [01] ]] || fail "K3S_AIRGAP_IMAGES is \"${K3S_AIRGAP_IMAGES}\"; give 1 or 0"
[[ "${mirror}" == https://* || "${K3S_AIRGAP_IMAGES:-0}" == 0 || -n "${K3S_AIRGAP_SHA256:-}" ]] \
    || fail 'K3S_MIRROR_URL is http://: give K3S_AIRGAP_SHA256 too for the container images, or use https://'
[[ "${image}${build}" =~ ^[A-Za-z0-9._-]*$ ]] || fail 'K3SIMAGE_NAME and K3SIMAGE_BUILD_ID may hold letters, digits and . _ - only'
[[ -z "${rpm_url}" && -z "${rpm_sum}" || "${rpm_url}" == http*://*.rpm && -n "${rpm_sum}" ]] \
    || fail 'K3S_SELINUX_RPM_URL (of an .rpm file) and K3S_SELINUX_RPM_SHA256 belong together'

work="$(mktemp -d "${root}/var/tmp/k3s-install.XXXXXX")"
trap 'rm -rf "${work}"' EXIT

# fetch URL FILE. What begins at https:// stays there, whatever it redirects to: a list that came over http:// proves nothing.
fetch() {
    local redirects='=https'
    [[ "$1" == https://* ]] || redirects='=https,http'
    curl --fail --silent --show-error --location --proto '=https,http' --proto-redir "${redirects}" --tlsv1.2 --retry 3 \
        --connect-timeout 20 --output "$2" "$1" || fail "cannot fetch $1 (see curl's line above)"
}

# verified FILE SHA256: true if the file is there and has this checksum
verified() { [[ -f "$1" ]] && printf '%s  %s\n' "$2" "$1" | sha256sum --check --status; }

# release FILE DESTINATION MODE PIN SHA256: a file of the release, in place only when it is what the release's list says, and what
# the variable PIN asks for, if it does
release() {
    local name="$1" to="${root}$2" mode="$3" pin="$5" sum base
    base="${mirror%/}/${version/+/%2B}"
    [[ -f "${work}/sums" ]] || fetch "${base}/sha256sum-amd64.txt" "${work}/sums"
    sum="$(awk -v name="${name}" '$2 == name { print $1 }' "${work}/sums")"
    [[ "${sum}" =~ ^[0-9a-f]{64}$ ]] || fail "${base}/sha256sum-amd64.txt has no single SHA-256 for ${name}"
    [[ -z "${pin}" || "${pin,,}" == "${sum}" ]] || fail "the release lists ${sum} for ${name}, but $4 is ${pin}"
    if verified "${to}" "${sum}"; then return 0; fi
    fetch "${base}/${name}" "${work}/${name}"
    verified "${work}/${name}" "${sum}" \
        || fail "${base}/${name} has SHA-256 $(sha256sum "${work}/${name}" | cut -d' ' -f1), the release lists ${sum}: not installed"
    mkdir -p "${to%/*}"
    # Moved in two steps, as /var/tmp may be another file system: a name in use never shows half a file.
    install -m "${mode}" "${work}/${name}" "${to}.new"
    mv -f "${to}.new" "${to}"
    printf 'k3s-install: %s %s, SHA-256 %s\n' "${name}" "${version}" "${sum}"
}

# put PATH MODE: standard input becomes the file, if it is not that already
put() {
    cat >"${work}/put"
    if cmp -s "${work}/put" "${root}$1"; then return 0; fi
    install -D -m "$2" "${work}/put" "${root}$1"
    printf 'k3s-install: wrote %s\n' "$1"
}

release k3s /usr/local/bin/k3s 0755 K3S_SHA256 "${K3S_SHA256:-}"
for tool in kubectl crictl ctr; do
    [[ -e "${root}/usr/local/bin/${tool}" ]] || ln -s k3s "${root}/usr/local/bin/${tool}"
done

if [[ "${K3S_AIRGAP_IMAGES:-0}" == 1 ]]; then
    images=/var/lib/rancher/k3s/agent/images
    release k3s-airgap-images-amd64.tar.zst "${images}/k3s-airgap-images-amd64.tar.zst" 0644 \
        K3S_AIRGAP_SHA256 "${K3S_AIRGAP_SHA256:-}"
    # Without this file k3s imports the archive anew at each start; releases before these know nothing of it.
    case "${version}" in
        v1.31.*) since=v1.31.9 ;;
        v1.32.*) since=v1.32.5 ;;
        *) since=v1.33.1 ;;
    esac
    if [[ "$(printf '%s\n' "${since}" "${version%%[-+]*}" | sort -V | head -n 1)" == "${since}" ]]; then
        put "${images}/.cache.json" 0644 </dev/null
    fi
fi

if [[ -n "${rpm_url}" ]] && ! rpm -q k3s-selinux >/dev/null 2>&1; then
    fetch "${rpm_url}" "${work}/k3s-selinux.rpm"
    verified "${work}/k3s-selinux.rpm" "${rpm_sum,,}" || fail "${rpm_url} has another SHA-256 than K3S_SELINUX_RPM_SHA256: not installed"
    dnf -y install container-selinux || fail 'dnf could not install container-selinux (AppStream)'
    dnf -y install "${work}/k3s-selinux.rpm" || fail 'dnf could not install k3s-selinux'
fi
if [[ -n "${rpm_url}" ]]; then
    # The RPM can report success with its policy not loaded.
    semodule -l | grep -qx 'k3s' || fail 'k3s-selinux is installed, but its policy is not loaded (semodule -l)'
    restorecon "${root}/usr/local/bin/k3s"
    [[ "$(stat --format=%C "${root}/usr/local/bin/k3s")" == *:container_runtime_exec_t:* ]] \
        || fail '/usr/local/bin/k3s is not labelled container_runtime_exec_t, so k3s would run outside its policy'
    put /etc/rancher/k3s/config.yaml.d/20-selinux.yaml 0600 <<<'selinux: true'
fi

put /etc/k3simage/image.env 0644 <<ENV
IMAGE_NAME=${image}
BUILD_ID=${build}
K3S_VERSION=${version}
K3S_ROLE=${role}
ENV

# unit NAME COMMAND TYPE. The assertion keeps k3s from making its identity before the first boot has decided.
unit() {
    put "/etc/systemd/system/$1.service" 0644 <<UNIT
[Unit]
Description=Lightweight Kubernetes ($2)
Documentation=https://docs.k3s.io
Wants=network-online.target
After=network-online.target
AssertPathExists=/var/lib/k3simage/firstboot.done

[Service]
Type=$3
EnvironmentFile=/etc/k3simage/k3s.env
ExecStartPre=-/usr/sbin/modprobe br_netfilter
ExecStartPre=-/usr/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s $2 \$K3S_ARGS
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s

[Install]
WantedBy=multi-user.target
UNIT
}
unit k3s server notify
unit k3s-agent agent exec

put /etc/systemd/system/k3simage-firstboot.service 0644 <<'UNIT'
[Unit]
Description=Decide the k3s role of this clone
Wants=network-online.target
# cloud-init, whose unit has had both names, writes the host name and /etc/k3simage/role.env before this.
After=network-online.target cloud-init.service cloud-init-network.service
# Not in the build itself, should the guest reboot in its middle: sealing makes the file.
ConditionPathExists=/etc/k3simage/sealed
ConditionPathExists=!/var/lib/k3simage/firstboot.done

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/libexec/k3simage/firstboot

[Install]
WantedBy=multi-user.target
UNIT

put /usr/local/libexec/k3simage/firstboot 0755 <<'FIRSTBOOT'
#!/usr/bin/env bash
# Decides, once in a clone's life, what k3s does here: server, joining server, agent or nothing. Then starts it.
#
# What it is told comes from the file k3simage.env on a volume labelled K3SIMAGE, else from /etc/k3simage/role.env
# (cloud-init's write_files), else from the image's default. Lines KEY=VALUE, # for comments; read as data, never run:
#   K3S_ROLE=server|agent|none    K3S_URL=https://first-server:6443    K3S_TOKEN=...    K3S_NODE_NAME=...    K3S_ARGS=--flag=value ...
set -euo pipefail

root="${K3SIMAGE_ROOT:-}"
fail() {
    printf 'firstboot: %s\n' "$*" >&2
    printf 'firstboot: k3s is not started. Put it right, then: systemctl restart k3simage-firstboot\n' >&2
    exit 1
}

# setting FILE KEY: the value, or nothing
setting() { sed -n "s/^$2=//p" "$1" | tail -n 1; }

# The file's text in one form: no carriage returns, comments or empty lines, no quotes around a whole value.
told() {
    sed -E -e 's/\r$//' -e '/^[[:space:]]*(#|$)/d' -e 's/^([A-Z0-9_]+)="(.*)"$/\1=\2/' -e "s/^([A-Z0-9_]+)='(.*)'\$/\1=\2/" "$1"
}

umask 077
work="$(mktemp -d "${root}/run/k3simage.XXXXXX")"
trap 'umount "${work}/volume" 2>/dev/null || true; rm -rf "${work}"' EXIT
: >"${work}/told"
source='the image default'
if device="$(blkid -L K3SIMAGE)" && [[ -n "${device}" ]]; then
    mkdir "${work}/volume"
    mount -o ro,nosuid,nodev,noexec "${device}" "${work}/volume" || fail "cannot mount the volume K3SIMAGE (${device})"
    [[ -f "${work}/volume/k3simage.env" ]] || fail 'the volume K3SIMAGE holds no file k3simage.env'
    told "${work}/volume/k3simage.env" >"${work}/told"
    source='k3simage.env on the volume K3SIMAGE'
elif [[ -f "${root}/etc/k3simage/role.env" ]]; then
    told "${root}/etc/k3simage/role.env" >"${work}/told"
    source='/etc/k3simage/role.env'
fi

# A mistyped key must not turn a node that should join into a cluster of its own.
while IFS= read -r line; do
    [[ "${line%%=*}" =~ ^K3S_(ROLE|URL|TOKEN|NODE_NAME|ARGS)$ && "${line}" == *=* ]] \
        || fail "${source}: \"${line%%=*}\" is no setting; known are K3S_ROLE, K3S_URL, K3S_TOKEN, K3S_NODE_NAME and K3S_ARGS"
done <"${work}/told"

default_role="$(setting "${root}/etc/k3simage/image.env" K3S_ROLE)"
image="$(setting "${root}/etc/k3simage/image.env" IMAGE_NAME)"
role="$(setting "${work}/told" K3S_ROLE)"
role="${role:-${default_role}}"
url="$(setting "${work}/told" K3S_URL)"
token="$(setting "${work}/told" K3S_TOKEN)"
name="$(setting "${work}/told" K3S_NODE_NAME)"
args="$(setting "${work}/told" K3S_ARGS)"

[[ "${role}" =~ ^(server|agent|none)$ ]] || fail "${source}: K3S_ROLE is \"${role}\"; give server, agent or none"
[[ -z "${url}" || "${url}" =~ ^https://[][A-Za-z0-9.:-]+/?$ ]] || fail "${source}: K3S_URL is \"${url}\"; give https://NAME:6443"
# Never printed: only its form is named.
[[ -z "${token}" || "${token}" =~ ^[A-Za-z0-9.:_+/=-]+$ ]] || fail "${source}: K3S_TOKEN holds a character that no k3s token has"
[[ -z "${args}" || "${args}" =~ ^--[A-Za-z0-9=.,:/@_%+\ -]+$ ]] || fail "${source}: K3S_ARGS is \"${args}\"; give plain --flag=value words"
[[ "${role}" != agent || -n "${url}" ]] || fail "${source}: an agent joins a server, but there is no K3S_URL"
[[ -z "${url}" || -n "${token}" ]] || fail "${source}: K3S_URL is given, but not the K3S_TOKEN to join with"

# A name that other clones have too would be turned away by the cluster (node password), or worse, accepted.
cannot_be_unique() { [[ "$1" == localhost* || "$1" == "${image,,}" || "$1" == "${image%%.*}" || ! "$1" =~ ^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$ ]]; }
machine="$(cat "${root}/etc/machine-id" 2>/dev/null || true)"
[[ "${machine}" =~ ^[0-9a-f]{32}$ ]] || fail '/etc/machine-id holds no id of this machine; systemd makes it at boot if the file is empty'
if [[ -n "${name}" ]]; then
    if cannot_be_unique "${name}"; then fail "${source}: K3S_NODE_NAME \"${name}\" cannot be unique in a cluster, or is no host name"; fi
else
    name="$(hostname | tr '[:upper:]' '[:lower:]')"
    if cannot_be_unique "${name}"; then
        # Unique because the machine id is, the same at each boot, and it does not give the id away.
        given="${name}"
        name="k3s-$(printf 'k3simage node %s' "${machine}" | sha256sum | cut -c1-12)"
        printf 'firstboot: the host name "%s" cannot be unique, so this machine is now %s\n' "${given}" "${name}"
        hostnamectl set-hostname "${name}"
    fi
fi

mkdir -p "${root}/etc/k3simage" "${root}/var/lib/k3simage"
# The node's name is written down, so that a later change of the host name does not make a second node of this one.
{
    printf 'K3S_NODE_NAME="%s"\n' "${name}"
    [[ -z "${url}" ]] || printf 'K3S_URL="%s"\n' "${url}"
    [[ -z "${token}" ]] || printf 'K3S_TOKEN="%s"\n' "${token}"
    printf 'K3S_ARGS="%s"\n' "${args}"
} >"${work}/k3s.env"
install -m 0600 "${work}/k3s.env" "${root}/etc/k3simage/k3s.env"

printf '%s %s\n' "${role}" "${name}" >"${root}/var/lib/k3simage/firstboot.done"
case "${role}" in
    server) service=k3s.service ;;
    agent) service=k3s-agent.service ;;
    *) service='' ;;
esac
if [[ -n "${service}" ]]; then
    systemctl enable "${service}"
    # Not waited for: this unit is part of the boot that the service waits for.
    systemctl start --no-block "${service}"
fi
printf 'firstboot: node %s, role %s%s, from %s\n' "${name}" "${role}" "${url:+ joining ${url}}" "${source}"
FIRSTBOOT

systemctl daemon-reload
systemctl disable k3s.service k3s-agent.service
systemctl enable k3simage-firstboot.service

told="$("${root}/usr/local/bin/k3s" --version)" || fail '/usr/local/bin/k3s does not run here; is this an x86-64 guest?'
[[ "${told}" == *"${version}"* ]] || fail "the binary calls itself \"${told%%$'\n'*}\", not ${version}"
printf 'k3s-install: %s is in place and not started; a clone that is told nothing becomes: %s\n' "${version}" "${role}"
