#!/usr/bin/env bash
# Makes the loaders for UEFI of Debian's GRUB modules: loaders.sh DEBS OUT.
set -euo pipefail

debs="$1" out="$2"
rm -rf "${out}"
mkdir -p "${out}/debs"
dpkg-deb --extract "${debs}"/grub-efi-amd64-bin_*.deb "${out}/debs"
modules="${out}/debs/usr/lib/grub/x86_64-efi"
common=(part_gpt part_msdos fat iso9660 normal boot linux linuxefi configfile search search_fs_uuid search_fs_file search_label
    test echo cat ls help true all_video video video_bochs video_cirrus efi_gop efi_uga font gfxterm gfxmenu minicmd reboot halt
    regexp loadenv sleep terminal gzio)
# Of the installed system: the file systems that a kickstart may put /boot on. One program under the three names that EL9 has.
grub-mkimage --directory "${modules}" --format x86_64-efi --prefix /EFI/almalinux --output "${out}/grubx64.efi" \
    "${common[@]}" xfs ext2 lvm chain
cp "${out}/grubx64.efi" "${out}/shimx64.efi"
cp "${out}/grubx64.efi" "${out}/bootx64.efi"
# Of the medium: its menu lies beside it.
grub-mkimage --directory "${modules}" --format x86_64-efi --prefix /EFI/BOOT --output "${out}/medium.efi" "${common[@]}" chain
rm -rf "${out}/debs"
