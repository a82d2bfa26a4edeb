#!/usr/bin/env bash
# Packs an initramfs: initrd.sh DEBS KERNEL ROOT OUT [lvm]. ROOT is the unpacked system, where LVM's programs are.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
debs="$1" kernel="$2" root="$3" out="$4" with="${5:-}"
work="$(mktemp -d)"
trap 'rm -rf "${work}"' EXIT
version="$(cat "${kernel}/version")"
tree="${work}/tree"
mkdir -p "${tree}/bin" "${tree}/lib/modules/${version}" "${tree}/dev"
dpkg-deb --fsys-tarfile "${debs}"/busybox-static_*.deb | tar -x -C "${work}" ./bin/busybox
install -m 0755 "${work}/bin/busybox" "${tree}/bin/busybox"
install -m 0755 "${here}/initrd/init" "${tree}/init"
while read -r file; do install -D -m 0644 "${kernel}/lib/modules/${version}/${file}" "${tree}/lib/modules/${version}/${file}"; done \
    < <(sort -u "${kernel}/initrd-files")
cp "${kernel}/lib/modules/${version}/modules.order" "${kernel}/lib/modules/${version}/modules.builtin"* "${tree}/lib/modules/${version}/"
depmod -b "${tree}" "${version}"
if [[ "${with}" == lvm ]]; then
    mkdir -p "${tree}/etc/lvm" "${tree}/lib64"
    install -m 0755 "${root}/usr/sbin/lvm" "${tree}/bin/lvm"
    while read -r library; do install -D -m 0755 "${root}${library}" "${tree}${library}"; done \
        < <(chroot "${root}" ldd /usr/sbin/lvm | grep -o '/[^ ]*' | sort -u)
    printf 'devices { use_devicesfile = 0 }\nactivation { udev_sync = 0 udev_rules = 0 }\nglobal { locking_type = 1 }\n' >"${tree}/etc/lvm/lvm.conf"
    sed -i '/locking_type/d' "${tree}/etc/lvm/lvm.conf"
fi
# Times left out, so that the same inputs give the same bytes.
find "${tree}" -exec touch --no-dereference --date=@0 {} +
(cd "${tree}" && find . -print0 | LC_ALL=C sort -z | cpio --null --create --format=newc --owner=0:0 --quiet --reproducible) | gzip -n -6 >"${out}"
