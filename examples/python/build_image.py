#!/usr/bin/env python3
"""Build an image from a template folder and show how it goes.

    build_image.py examples/alma9-k3s-optimized --emulator
    PKR_VAR_proxmox_token=... build_image.py my-image --var k3s_version=v1.31.3+k3s1

With --emulator nothing is needed but this machine: the guest is simulated.
"""

from __future__ import annotations

import argparse
import sys

import k3simage

INSTALLER = "AlmaLinux-9.3-x86_64-minimal.iso"


def show(event: k3simage.Event) -> None:
    """Print what a person wants to know of an event."""
    if event.kind == "step_finished":
        mark = "ok " if event.ok else "ERR"
        print(f" {mark} {event.step:<12} {event.seconds:7.1f} s  {event.message}")
    elif event.kind in {"warning", "cleanup"}:
        print(f"     {event.kind}: {event.message}")


def build(folder: str, variables: dict[str, object]) -> int:
    """Build, and say what was made or why not."""
    try:
        artifact = k3simage.build(folder, variables=variables, on_event=show)
    except k3simage.Error as error:
        cause: BaseException | None = error
        while cause is not None:
            print(f"{type(cause).__name__}: {cause}", file=sys.stderr)
            cause = cause.__cause__
        print(*error.findings, f"help: {error.help}" if error.help else "", sep="\n", file=sys.stderr)
        return 1
    print(f"template {artifact.vmid} {artifact.name} on {artifact.node}, {artifact.api_requests} API requests")
    return 0


def main() -> int:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(description="Build an image from a template folder.")
    parser.add_argument("folder")
    parser.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="a variable of the folder")
    parser.add_argument("--emulator", action="store_true", help="build on the embedded emulator")
    arguments = parser.parse_args()
    variables: dict[str, object] = dict(item.split("=", 1) for item in arguments.var)
    if not arguments.emulator:
        return build(arguments.folder, variables)
    with k3simage.Emulator() as pve:
        pve.add_installer_iso("local", INSTALLER)
        print(f"simulated guest on {pve.url}")
        return build(arguments.folder, {**variables, **pve.variables})


if __name__ == "__main__":
    sys.exit(main())
