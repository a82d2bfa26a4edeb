#!/usr/bin/env python3
"""List templates and delete old iterations, keeping the newest of each name.

    prune_templates.py --keep 2             # says what it would do
    prune_templates.py --keep 2 --delete    # does it

A name is `alma9-k3-node-amd64-v1.29.0-v3`: what stands before the last `-v` is one image, the number its iteration.
The cluster is what PKR_VAR_proxmox_url, PKR_VAR_proxmox_username, PKR_VAR_proxmox_token and the like say.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections import defaultdict

import k3simage

NAME = re.compile(r"(?P<image>alma\d+-k3-node-.+)-v(?P<iteration>\d+)")


def iterations(templates: list[k3simage.Vm]) -> dict[str, list[tuple[int, k3simage.Vm]]]:
    """Group templates by image, the newest iteration first; other templates are left out."""
    images: dict[str, list[tuple[int, k3simage.Vm]]] = defaultdict(list)
    for template in templates:
        if match := NAME.fullmatch(template.name or ""):
            images[match["image"]].append((int(match["iteration"]), template))
    for group in images.values():
        group.sort(key=lambda entry: entry[0], reverse=True)
    return images


async def prune(client: k3simage.Client, keep: int, delete: bool) -> int:
    """Delete what is older than the `keep` newest of each image, all at once."""
    images = iterations(await client.templates_async())
    old = []
    for image, group in sorted(images.items()):
        for place, (iteration, template) in enumerate(group):
            verdict = "keep" if place < keep else "delete" if delete else "would delete"
            print(f"{verdict:<12} {image} v{iteration}  {template.vmid} on {template.node}")
            if place >= keep:
                old.append(template)
    if delete:
        await asyncio.gather(*(client.delete_template_async(vm.node, vm.vmid) for vm in old if vm.node is not None))
    return len(old)


def main() -> int:
    """Read the arguments and prune."""
    parser = argparse.ArgumentParser(description="List templates and delete old iterations.")
    parser.add_argument("--keep", type=int, default=2, help="how many iterations of each image stay (default: 2)")
    parser.add_argument("--delete", action="store_true", help="delete; without it nothing is changed")
    arguments = parser.parse_args()
    if arguments.keep < 1:
        parser.error("--keep must be at least 1: the newest template is never deleted")
    try:
        asyncio.run(prune(k3simage.Client(), arguments.keep, arguments.delete))
    except k3simage.Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
