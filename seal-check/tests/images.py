"""Makes disks out of folders without root, by the programs of Debian: none of the checker's own code is in their making."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

MIB = 1 << 20
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
ROOT_UUID = "4d3c2b1a-0000-4000-8000-000000000001"
BOOT_UUID = "4d3c2b1a-0000-4000-8000-000000000002"
EFI_ID = "1234ABCD"
STARTS: dict[tuple, list[tuple[int, bytes]]] = {}


def memory() -> Path | None:
    """A folder in memory with room for some disks, if there is one: the makers of file systems wait for a disk after each step."""
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        return None
    room = os.statvfs(folder)
    return folder if room.f_bavail * room.f_frsize > 1024 * MIB else None


def run(*words: object, stdin: str = "") -> str:
    done = subprocess.run([str(word) for word in words], input=stdin, capture_output=True, text=True, env={**os.environ, "PATH": PATH}, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def ext(tree: Path, disk: Path, start: int = 0, size: int = 24, uuid: str = ROOT_UUID, *options: str) -> None:
    """An ext4 of `size` MiB at `start` MiB of the disk, with what is in the folder."""
    offset = ["-E", f"offset={start * MIB}"] if start else []
    run("mke2fs", "-q", "-F", "-t", "ext4", "-b", "1024", "-I", "256", "-U", uuid, *offset, *options, "-d", tree, disk, f"{size}M")


def xfs(tree: Path, disk: Path, start: int = 0, size: int = 300, uuid: str = ROOT_UUID, *options: str) -> None:
    """An XFS; its smallest is 300 MiB."""
    with tempfile.TemporaryDirectory() as folder:
        volume, proto = Path(folder, "volume"), Path(folder, "proto")
        proto.write_text("/dev/null\n0 0\nd--755 0 0\n" + "".join(proto_lines(tree)) + "$\n")
        run("mkfs.xfs", "-q", "-m", f"uuid={uuid}", "-p", proto, *options, "-d", f"file=1,name={volume},size={size}m")
        copy(volume, disk, start)


def proto_lines(folder: Path) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir()):
        assert " " not in path.name
        mode = f"{path.lstat().st_mode & 0o777:03o}"
        if path.is_symlink():
            lines.append(f"{path.name} l--777 0 0 {os.readlink(path)}\n")
        elif path.is_dir():
            lines += [f"{path.name} d--{mode} 0 0\n", *proto_lines(path), "$\n"]
        else:
            lines.append(f"{path.name} ---{mode} 0 0 {path}\n")
    return lines


def fat(tree: Path, disk: Path, start: int, size: int = 8, ident: str = EFI_ID, bits: int = 16) -> None:
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder, "volume")
        with volume.open("wb") as file:
            file.truncate(size * MIB)
        run("mkfs.vfat", "-F", bits, "-s", 1, "-i", ident, volume)
        inside = sorted(tree.iterdir())
        if inside:
            run("mcopy", "-s", "-i", volume, *inside, "::/")
        copy(volume, disk, start)


def blocks(volume: Path) -> Iterator[tuple[int, bytes]]:
    """What is not zeros, by its offset."""
    with volume.open("rb") as source:
        at = 0
        while block := source.read(1 << 16):
            if block != bytes(len(block)):
                yield at, block
            at += len(block)


def lay(content: Iterable[tuple[int, bytes]], disk: Path, start: int) -> None:
    with disk.open("r+b") as target:
        for at, block in content:
            target.seek(start * MIB + at)
            target.write(block)


def copy(volume: Path, disk: Path, start: int) -> None:
    """Lays a volume into the disk."""
    lay(blocks(volume), disk, start)


def blank(disk: Path, size: int) -> None:
    with disk.open("wb") as file:
        file.truncate(size * MIB)


def table(disk: Path, *lines: str, label: str = "gpt") -> None:
    run("sfdisk", "-q", disk, stdin=f"label: {label}\n" + "".join(f"{line}\n" for line in lines))


def split(tree: Path, folder: Path, *wheres: str) -> dict[str, Path]:
    """A copy of the tree with some places taken out of it into folders of their own, as they are on file systems of their own."""
    rest = folder / "rest"
    shutil.copytree(tree, rest, symlinks=True)
    parts = {"/": rest}
    for index, where in enumerate(wheres):
        inner = rest / where.strip("/")
        parts[where] = folder / f"part{index}"
        if inner.exists():
            shutil.move(inner, parts[where])
        parts[where].mkdir(exist_ok=True)
        inner.mkdir(parents=True)
    return parts


def uefi(tree: Path, folder: Path, root: str = "ext4") -> Path:
    """A disk as the example's kickstart makes it under OVMF: EFI system partition, /boot, root; the root last."""
    disk = folder / "disk.raw"
    make = xfs if root == "xfs" else ext
    size = 300 if root == "xfs" else 24
    parts = split(tree, folder / "split", "/boot/efi", "/boot")
    blank(disk, 27 + size)
    # What lies before the root is the same for most tests, and takes most of the time.
    key = (size, *(file.read_bytes() for name in ("/boot/efi", "/boot") for file in sorted(parts[name].rglob("*")) if file.is_file()))
    names = tuple(str(file.relative_to(folder)) for name in ("/boot/efi", "/boot") for file in sorted(parts[name].rglob("*")))
    if (key, names) not in STARTS:
        table(disk, "start=1MiB, size=8MiB, type=uefi", "start=9MiB, size=16MiB, type=linux", f"start=25MiB, size={size}MiB, type=linux")
        fat(parts["/boot/efi"], disk, 1)
        ext(parts["/boot"], disk, 9, 16, BOOT_UUID)
        STARTS[key, names] = list(blocks(disk))
    lay(STARTS[key, names], disk, 0)
    make(parts["/"], disk, 25, size)
    return disk
