#!/usr/bin/env bash
# Puts the medium together: iso.sh WORK LABEL OUT. WORK holds what the other parts made.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
work="$1" label="$2" out="$3"
tree="${work}/iso"
rm -rf "${tree}"
mkdir -p "${tree}/isolinux" "${tree}/images/pxeboot" "${tree}/EFI/BOOT" "${tree}/stand-in"
kernel="${work}/kernel/vmlinuz"
# As on the real medium, both menus have their own copy of the name; the bytes are there once (hard links).
cp "${kernel}" "${tree}/images/pxeboot/vmlinuz"
cp "${work}/initrd.img" "${tree}/images/pxeboot/initrd.img"
ln "${tree}/images/pxeboot/vmlinuz" "${tree}/isolinux/vmlinuz"
ln "${tree}/images/pxeboot/initrd.img" "${tree}/isolinux/initrd.img"
cp /usr/lib/ISOLINUX/isolinux.bin "${tree}/isolinux/"
cp /usr/lib/syslinux/modules/bios/{ldlinux,libcom32,libutil,vesamenu}.c32 "${tree}/isolinux/"
sed "s/@LABEL@/${label}/g" "${here}/menus/isolinux.cfg" >"${tree}/isolinux/isolinux.cfg"
sed "s/@LABEL@/${label}/g" "${here}/menus/grub.cfg" >"${tree}/EFI/BOOT/grub.cfg"
cp "${work}/loaders/medium.efi" "${tree}/EFI/BOOT/BOOTX64.EFI"
truncate --size 8M "${tree}/images/efiboot.img"
mkfs.vfat -n ANACONDA "${tree}/images/efiboot.img" >/dev/null
MTOOLS_SKIP_CHECK=1 mmd -i "${tree}/images/efiboot.img" ::/EFI ::/EFI/BOOT
MTOOLS_SKIP_CHECK=1 mcopy -i "${tree}/images/efiboot.img" "${tree}/EFI/BOOT/BOOTX64.EFI" "${tree}/EFI/BOOT/grub.cfg" ::/EFI/BOOT/
cp "${work}/install.img" "${tree}/images/install.img"
cp "${work}/system.img" "${tree}/stand-in/system.img"
cp -r "${work}/mirror/medium/." "${tree}/"
# The mirror that an installed system without a network asks; the packages are the same files, and so the same bytes.
mkdir -p "${tree}/stand-in/mirror"
cp -r "${work}/mirror/mirror/." "${tree}/stand-in/mirror/"
cp "${here}/README.md" "${tree}/README-STAND-IN.md"
printf '0\nAlmaLinux 9.4 (stand-in)\nx86_64\n' >"${tree}/.discinfo"
printf '[general]\nname = AlmaLinux 9.4 (k3simage stand-in)\nfamily = AlmaLinux\nversion = 9.4\narch = x86_64\nvariant = BaseOS\n' >"${tree}/.treeinfo"
xorriso -as mkisofs -quiet -o "${out}" -V "${label}" -R -J -joliet-long \
    -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
    -eltorito-alt-boot -e images/efiboot.img -no-emul-boot -isohybrid-mbr /usr/lib/ISOLINUX/isohdpfx.bin -isohybrid-gpt-basdat "${tree}"
implantisomd5 --force "${out}" >/dev/null
