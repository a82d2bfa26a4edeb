#!/usr/bin/env bash
# Makes the Debian system that lies under the stand-in: bootstrap.sh OUT MIRROR. Leaves OUT/rootfs.tar and OUT/debs/*.deb.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
self="${here}/${0##*/}"
if [[ "${1:-}" == --customize ]]; then
    # Called by mmdebstrap with the new system complete. Its apt, run from outside, fetches what is carved.
    debs="$2" root="$3"
    cd "${debs}"
    mapfile -t carved < <(grep -v '^#' "${here}/carve.txt")
    # The kernel's package is a name for the current version; the file is wanted of what it depends on.
    kernel="$(APT_CONFIG="${MMDEBSTRAP_APT_CONFIG}" apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)"
    APT_CONFIG="${MMDEBSTRAP_APT_CONFIG}" apt-get download --quiet=2 "${carved[@]/#linux-image-amd64/${kernel}}"
    chroot "${root}" localedef -i en_US -f UTF-8 en_US.UTF-8
    chroot "${root}" dpkg-query --show --showformat '${Package} ${Version}\n' >"${debs}/system-packages.txt"
    mapfile -t gone < <(cat "${here}/carve.txt" "${here}/drop.txt" | grep -v '^#' | cut -d/ -f1)
    mapfile -t gone < <(chroot "${root}" dpkg-query --show --showformat '${Package}\n' "${gone[@]}" 2>/dev/null)
    chroot "${root}" dpkg --purge --force-depends --force-remove-essential "${gone[@]}" >/dev/null
    cd "${root}"
    shopt -s nullglob dotglob
    while read -r pattern; do
        # shellcheck disable=SC2086  # patterns are meant to be expanded, and none holds a space
        rm -rf ${pattern}
    done < <(grep -v '^#' "${here}/trim.txt")
    exit 0
fi

out="$(realpath --canonicalize-missing "$1")" mirror="$2"
rm -rf "${out}"
mkdir -p "${out}/debs"
# apt's own user writes there.
chmod 0777 "${out}/debs"
packages="$(grep -v '^#' "${here}/packages.txt" | paste -sd,)"
exclude=()
for path in doc man info locale lintian; do exclude+=("--dpkgopt=path-exclude=/usr/share/${path}/*"); done
mmdebstrap --quiet --variant=minbase --include="${packages}" --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-unsafe-io "${exclude[@]}" --customize-hook="'${self}' --customize '${out}/debs' \"\$1\"" \
    bookworm "${out}/rootfs.tar" \
    "deb ${mirror} bookworm main" "deb ${mirror} bookworm-updates main" "deb ${mirror} bookworm-backports main"
