#!/usr/bin/env bash
# Makes the image of the system that is installed, and that the installer runs on: system.sh DEBIAN KERNEL ROOT OUT.
# DEBIAN comes from bootstrap.sh; ROOT is the folder to unpack in; OUT becomes system.img.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
debian="$1" kernel="$2" root="$3" out="$4"
rm -rf "${root}"
mkdir -p "${root}"
tar -C "${root}" -xf "${debian}/rootfs.tar"
cp -a "${here}/system/." "${root}/"
version="$(cat "${kernel}/version")"
mkdir -p "${root}/boot" "${root}/usr/lib/modules"
cp -a "${kernel}/lib/modules/${version}" "${root}/usr/lib/modules/"
install -m 0755 "${kernel}/vmlinuz" "${root}/boot/vmlinuz-${version}"
"${here}/parts/initrd.sh" "${debian}/debs" "${kernel}" "${root}" "${root}/boot/initramfs-${version}.img" lvm

# /bin/sh is bash on EL, and %post scripts without an interpreter of their own count on it.
ln -sf bash "${root}/usr/bin/sh"
# Files that a package of ours brings must not be Debian's as well: rpm would keep both.
rm -f "${root}"/etc/{os-release,issue,issue.net} "${root}/usr/lib/os-release" "${root}/etc/debian_version"
rm -rf "${root}"/etc/yum.repos.d "${root}"/etc/dnf/vars
# Debian's own timers have nothing to do here.
rm -f "${root}"/usr/lib/systemd/system/{apt-*,dpkg-db-backup,e2scrub*,fstrim}.{timer,service}
find "${root}/etc/systemd/system" \( -name 'apt-*' -o -name 'dpkg-*' -o -name 'e2scrub*' -o -name 'fstrim*' \) -delete
# Calls ifupdown, which is not here, and fails at each change of the network.
rm -f "${root}/etc/NetworkManager/dispatcher.d/01-ifupdown"
# A console for those who look at the screen; no other ones wait for a login.
chroot "${root}" groupadd --system --force wheel
printf '%%wheel ALL=(ALL) ALL\n' >"${root}/etc/sudoers.d/wheel"
chmod 0440 "${root}/etc/sudoers.d/wheel"
chroot "${root}" systemctl --quiet preset NetworkManager.service
: >"${root}/etc/machine-id"
rm -f "${root}/var/lib/dbus/machine-id"
rm -f "${out}"
mksquashfs "${root}" "${out}" -noappend -quiet -no-progress -comp lz4 -b 131072 -mkfs-time 0
