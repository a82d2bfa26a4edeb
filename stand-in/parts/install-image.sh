#!/usr/bin/env bash
# Makes the image that only the installer needs, over the system's: install-image.sh DEBIAN ROOT WORK OUT.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
debian="$1" root="$2" work="$3" out="$4"
rm -rf "${work}"
mkdir -p "${work}/tree" "${work}/debs"
for name in busybox-static grub-common grub2-common grub-pc-bin libefivar1 libefiboot1 efibootmgr isomd5sum parted libparted2 squashfs-tools liblzo2-2; do
    dpkg-deb --extract "${debian}/debs/${name}"_*.deb "${work}/debs"
done
# The system's /bin, /sbin and /lib are links into /usr, and must stay links in the overlay.
for folder in bin sbin lib; do
    [[ -d "${work}/debs/${folder}" ]] || continue
    mkdir -p "${work}/debs/usr/${folder}"
    cp -a "${work}/debs/${folder}/." "${work}/debs/usr/${folder}/"
done
mkdir -p "${work}/tree/usr/lib/stand-in"
for path in usr/bin/busybox usr/bin/grub-mkimage usr/sbin/grub-probe usr/bin/efibootmgr usr/bin/checkisomd5 usr/bin/unsquashfs usr/sbin/parted usr/sbin/partprobe; do
    install -D -m 0755 "${work}/debs/${path}" "${work}/tree/${path}"
done
mkdir -p "${work}/tree/usr/lib/x86_64-linux-gnu"
cp -a "${work}"/debs/usr/lib/x86_64-linux-gnu/{libefivar,libefiboot,libparted}.so* "${work}"/debs/usr/lib/x86_64-linux-gnu/liblzo2.so* "${work}/tree/usr/lib/x86_64-linux-gnu/"
install -m 0755 "${here}/live/init" "${here}/live/udhcpc" "${work}/tree/usr/lib/stand-in/"
cp -r "${here}/installer/standin" "${work}/tree/usr/lib/stand-in/"
# The parser, in the version that the tests of the kickstarts use.
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile --target "${work}/tree/usr/lib/stand-in/vendor" \
    "$(grep '^pykickstart==' "${here}/../tests/requirements.txt")"
rm -rf "${work}/tree/usr/lib/stand-in/vendor/bin" "${work}"/tree/usr/lib/stand-in/{standin,vendor}/__pycache__
printf 'AlmaLinux 9.4 (stand-in)\n' >"${work}/tree/usr/lib/stand-in/product"
# Compiled once here rather than at each start; by the system's own Python.
mkdir -p "${root}/tmp/stand-in"
cp -r "${work}/tree/usr/lib/stand-in/." "${root}/tmp/stand-in/"
chroot "${root}" python3 -m compileall -q -s /tmp/stand-in -p /usr/lib/stand-in --invalidation-mode unchecked-hash /tmp/stand-in
cp -r "${root}/tmp/stand-in/." "${work}/tree/usr/lib/stand-in/"
rm -rf "${root}/tmp/stand-in"
rm -f "${out}"
mksquashfs "${work}/tree" "${out}" -noappend -quiet -no-progress -all-root -comp lz4 -Xhc -mkfs-time 0
