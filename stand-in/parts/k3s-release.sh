#!/usr/bin/env bash
# Lays the stand-in for k3s down as a release page does, once per version: k3s-release.sh OUT.
# OUT/v1.29.0+k3s1/{k3s,sha256sum-amd64.txt,k3s-images.txt}; a server turns %2B of the address into the + of the folder.
set -euo pipefail

here="$(cd "$(dirname "$0")/.." && pwd)"
out="$1"
for version in v1.29.0+k3s1 v1.31.3+k3s1 v1.33.1+k3s1; do
    folder="${out}/${version}"
    mkdir -p "${folder}"
    sed "s/^VERSION = .*/VERSION = \"${version}\"/" "${here}/k3s/k3s" >"${folder}/k3s"
    chmod 0755 "${folder}/k3s"
    printf 'docker.io/rancher/stand-in:none\n' >"${folder}/k3s-images.txt"
    # An archive like the real one in name only: nothing here runs containers.
    printf 'stand-in for the container images of k3s %s\n' "${version}" >"${folder}/k3s-airgap-images-amd64.tar.zst"
    (cd "${folder}" && sha256sum k3s k3s-images.txt k3s-airgap-images-amd64.tar.zst >sha256sum-amd64.txt)
done
