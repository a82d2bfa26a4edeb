#!/usr/bin/env python3
"""Upload an ISO to a storage of a node, with progress; the server verifies its SHA-256.

    upload_iso.py pve local AlmaLinux-9.3-x86_64-minimal.iso

The cluster is what PKR_VAR_proxmox_url, PKR_VAR_proxmox_username, PKR_VAR_proxmox_token and the like say.
"""

from __future__ import annotations

import argparse
import sys

import k3simage

MIB = 1024 * 1024


def show(done: int, total: int) -> None:
    """Draw one line over itself on a terminal, and say little elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{done // MIB} of {total // MIB} MiB", end="", file=sys.stderr)
    elif done == total:
        print(f"{total} bytes sent", file=sys.stderr)


def main() -> int:
    """Read the arguments and upload."""
    parser = argparse.ArgumentParser(description="Upload an ISO to a storage of a node.")
    parser.add_argument("node")
    parser.add_argument("storage")
    parser.add_argument("iso")
    parser.add_argument("--checksum", help="its published checksum, sha256:...; else it is computed here")
    arguments = parser.parse_args()
    try:
        client = k3simage.Client()
        volid = client.upload_iso(
            arguments.node, arguments.storage, arguments.iso, checksum=arguments.checksum, on_progress=show
        )
    except k3simage.Error as error:
        print(f"error: {error}", *error.log_tail, sep="\n", file=sys.stderr)
        return 1
    print(volid)
    return 0


if __name__ == "__main__":
    sys.exit(main())
