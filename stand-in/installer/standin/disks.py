"""The disks of this machine: what the layout is planned on."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class Partition:
    """A partition that is there already; sizes in MiB."""

    number: int
    size: int


@dataclass
class Disk:
    """A disk; `size` in MiB, `label` is gpt, dos or empty."""

    name: str
    size: int
    label: str = ""
    partitions: list[Partition] = field(default_factory=list)


def partition_path(disk: str, number: int) -> str:
    """/dev/sda1, /dev/nvme0n1p1."""
    return f"/dev/{disk}{'p' if disk[-1].isdigit() else ''}{number}"


def found(sys_block: Path = Path("/sys/block")) -> list[Disk]:
    """Fixed disks in the order of their names. CD-ROMs, loop devices and removable ones are none."""
    disks = []
    for device in sorted(sys_block.iterdir()):
        if not device.name.startswith(("sd", "vd", "nvme", "xvd", "hd")) or (device / "removable").read_text().strip() == "1":
            continue
        sectors = int((device / "size").read_text())
        if sectors:
            disks.append(described(device.name, sectors * 512 // MIB))
    return disks


def described(name: str, size: int) -> Disk:
    """Reads the disk's label and partitions with sfdisk."""
    done = subprocess.run(["sfdisk", "--json", f"/dev/{name}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return Disk(name, size)
    table = json.loads(done.stdout)["partitiontable"]
    sector = int(table.get("sectorsize", 512))
    partitions = [Partition(int(entry["node"].removeprefix(f"/dev/{name}").removeprefix("p")), int(entry["size"]) * sector // MIB) for entry in table.get("partitions", [])]
    return Disk(name, size, table["label"], partitions)
