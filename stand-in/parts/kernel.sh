#!/usr/bin/env bash
# Takes the kernel and the modules that are needed out of Debian's package: kernel.sh DEBS OUT.
# Leaves OUT/vmlinuz, OUT/version, OUT/lib/modules/VERSION, and OUT/initrd-files with those that an initramfs holds.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
debs="$1" out="$2"
rm -rf "${out}"
mkdir -p "${out}/all" "${out}/lib/modules"
dpkg-deb --extract "${debs}"/linux-image-*.deb "${out}/all"
version="$(basename "${out}"/all/lib/modules/*)"
printf '%s\n' "${version}" >"${out}/version"
cp "${out}/all/boot/vmlinuz-${version}" "${out}/vmlinuz"
depmod -b "${out}/all" "${version}"
target="${out}/lib/modules/${version}"
# listed NAME: its file and those that it needs, in the order of loading; nothing for what is built in.
listed() { modprobe --dirname "${out}/all" --set-version "${version}" --show-depends "$1" | sed -n 's/^insmod \([^ ]*\).*/\1/p'; }
while read -r where name; do
    while read -r file; do
        inside="${file#"${out}/all/lib/modules/${version}/"}"
        install -D -m 0644 "${file}" "${target}/${inside}"
        [[ "${where}" != initrd ]] || printf '%s\n' "${inside}" >>"${out}/initrd-files"
    done < <(listed "${name}")
done < <(grep -v '^#' "${here}/modules.txt")
cp "${out}/all/lib/modules/${version}/modules.order" "${out}/all/lib/modules/${version}/modules.builtin"* "${target}/"
depmod -b "${out}" "${version}"
rm -rf "${out}/all"
