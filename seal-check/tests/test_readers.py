"""Partition tables, volumes and file systems made by the programs of others are read as they were filled, and as GRUB reads them."""

import json
import lzma
import os
import subprocess
from pathlib import Path

import pytest
import trees
from images import BOOT_UUID, EFI_ID, MIB, PATH, ROOT_UUID, blank, copy, ext, fat, run, split, table, uefi, xfs

from sealcheck import command
from sealcheck.filesystem import DIRECTORY, FILE, LINK, FileSystem, open_filesystem
from sealcheck.lvm import parse
from sealcheck.partitions import partitions
from sealcheck.source import Unreadable, open_image


def look(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict]:
    code = command.main([*(str(word) for word in words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def found(report: dict) -> list[tuple[str, str]]:
    return sorted((entry["identity"], entry["path"]) for entry in report["findings"])


def manifold(root: Path) -> Path:
    """Every shape of file and directory: inline, in a block, in many; links short and long; holes, hidden and strange names."""
    for count, name in ((2, "few"), (60, "some"), (3000, "many")):
        for index in range(count):
            trees.put(root, f"{name}/a-name-of-some-length-{index}", f"{index}\n")
    trees.put(root, ".hidden/.file", "x")
    trees.put(root, "na\xefve-\u2026", "x")
    trees.put(root, "empty", "")
    for name, target in (("short", "few"), ("dangling", "/nowhere"), ("long", "x" * 300), ("longer", "y" * 900)):
        (root / name).symlink_to(target)
    with (root / "holes").open("wb") as file:
        for index in range(40):
            file.seek(index * 100_000)
            file.write(b"%d" % index * 1000)
    trees.put(root, "large", "0123456789abcdef" * 40_000)
    return root


def same(filesystem: FileSystem, root: Path) -> None:
    """Every file that is there and no other, with content, kind, size and mode."""
    seen = {}
    waiting = [("", filesystem.root())]
    while waiting:
        path, node = waiting.pop()
        for name, number in filesystem.entries(node):
            child = filesystem.node(number)
            seen[f"{path}/{name}"] = child
            if child.kind == DIRECTORY:
                waiting.append((f"{path}/{name}", child))
    seen.pop("/lost+found", None)
    paths = {f"/{os.fsdecode(os.fsencode(path.relative_to(root)))}": path for path in root.rglob("*")}
    assert set(seen) == set(paths)
    for name, path in paths.items():
        node = seen[name]
        kind = LINK if path.is_symlink() else DIRECTORY if path.is_dir() else FILE
        assert node.kind == kind, name
        if kind == LINK:
            assert filesystem.link(node) == os.readlink(path), name
        elif kind == FILE:
            assert (node.size, filesystem.read(node)) == (path.stat().st_size, path.read_bytes()), name
        if filesystem.kind != "vfat" and kind != LINK:
            assert node.mode == path.stat().st_mode & 0o7777, name


EXT = {
    "as Debian makes it": [],
    "as of today": ["-O", "metadata_csum_seed,orphan_file,large_dir,64bit"],
    "content in inodes": ["-O", "inline_data"],
    "ext3": ["-O", "^extent,^flex_bg,^64bit,^metadata_csum,^huge_file"],
    "ext2": ["-O", "^extent,^flex_bg,^64bit,^metadata_csum,^has_journal"],
    "descriptors apart": ["-O", "meta_bg,^resize_inode"],
    "small inodes": ["-I", "128"],
    "large blocks": ["-b", "4096"],
}
XFS = {
    "as Debian makes it": [],
    "version 4, no types in directories": ["-m", "crc=0,finobt=0,rmapbt=0,reflink=0,bigtime=0", "-n", "ftype=0"],
    "large inodes": ["-i", "size=1024"],
    "counts of 64 bits": ["-i", "nrext64=1"],
    "small blocks, large directories": ["-b", "size=1024", "-n", "size=16384"],
}


@pytest.mark.parametrize("options", EXT.values(), ids=EXT)
def test_ext_is_read_as_it_was_filled(folder: Path, options: list[str]) -> None:
    root = manifold(folder / "tree")
    blank(folder / "disk", 48)
    ext(root, folder / "disk", 0, 48, ROOT_UUID, *options)
    filesystem = open_filesystem(open_image(folder / "disk"))
    assert filesystem is not None
    assert (filesystem.kind, filesystem.uuid, filesystem.unclean) == ("ext4", ROOT_UUID, "")
    same(filesystem, root)


@pytest.mark.parametrize("options", XFS.values(), ids=XFS)
def test_xfs_is_read_as_it_was_filled(folder: Path, options: list[str]) -> None:
    root = manifold(folder / "tree")
    blank(folder / "disk", 300)
    xfs(root, folder / "disk", 0, 300, ROOT_UUID, *options)
    filesystem = open_filesystem(open_image(folder / "disk"))
    assert filesystem is not None
    assert (filesystem.kind, filesystem.uuid, filesystem.unclean) == ("xfs", ROOT_UUID, "")
    same(filesystem, root)


@pytest.mark.parametrize(("bits", "size"), [(12, 2), (16, 16), (32, 48)])
def test_fat_is_read_as_it_was_filled(folder: Path, bits: int, size: int) -> None:
    root = folder / "tree"
    trees.put(root, "EFI/BOOT/BOOTX64.EFI", "MZ" * 5000)
    trees.put(root, "EFI/almalinux/a-long-name-with-Case.conf", "x")
    trees.put(root, "loader/random-seed", "\x01" * 32)
    for index in range(200):
        trees.put(root, f"many/entry-{index}.conf", f"{index}\n")
    blank(folder / "disk", size)
    fat(root, folder / "disk", 0, size, EFI_ID, bits)
    filesystem = open_filesystem(open_image(folder / "disk"))
    assert filesystem is not None
    assert (filesystem.kind, filesystem.uuid) == ("vfat", "1234-ABCD")
    same(filesystem, root)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_grub_sees_the_same_files(folder: Path, kind: str) -> None:
    """Its drivers are written apart from ours. They follow links, and separate names by spaces."""
    root = trees.clean(folder / "tree")
    for index in range(500):
        trees.put(root, f"etc/many/{index}", "x")
    disk = uefi(root, folder, kind)
    part = partitions(open_image(disk))[2]
    filesystem = open_filesystem(part.source)
    assert filesystem is not None
    waiting, directories = [("/", filesystem.root())], 0
    while waiting:
        path, node = waiting.pop()
        directories += 1
        children = {name: filesystem.node(number) for name, number in filesystem.entries(node)}
        listed = run("grub-fstest", disk, "ls", "--", "-a", f"(loop0,gpt3){path}").split()
        assert {name.rstrip("/") for name in listed} - {".", ".."} == set(children)
        waiting += [(f"{path}{name}/", child) for name, child in children.items() if child.kind == DIRECTORY and child.size < 4096]
    assert directories > 30
    ours = filesystem.read(filesystem.node(dict(filesystem.entries(node_at(filesystem, "etc")))["passwd"]))
    theirs = run("grub-fstest", disk, "cat", "(loop0,gpt3)/etc/passwd")
    assert ours.decode() == theirs == trees.PASSWD


def node_at(filesystem: FileSystem, name: str):
    return filesystem.node(dict(filesystem.entries(filesystem.root()))[name])


def planted(folder: Path) -> Path:
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/hostname", "build\n")
    trees.put(tree, "var/log/secure", "line\n")
    return tree


BOTH = [("hostname", "/etc/hostname"), ("logs", "/var/log/secure")]


def test_a_bios_disk_with_logical_partitions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = planted(folder)
    trees.put(tree, "etc/fstab", "/dev/sda6 / ext4 defaults 1 1\n/dev/sda5\t/var/log ext4 defaults 1 2\n")
    disk = folder / "disk"
    parts = split(tree, folder / "split", "/var/log")
    blank(disk, 60)
    table(
        disk,
        "start=1MiB, size=8MiB, type=82",
        "start=10MiB, size=49MiB, type=5",
        "start=11MiB, size=16MiB, type=83",
        "start=28MiB, size=24MiB, type=83",
        label="dos",
    )
    assert [(part.number, part.kind) for part in partitions(open_image(disk))] == [(1, "82"), (5, "83"), (6, "83")]
    ext(parts["/var/log"], disk, 11, 16, BOOT_UUID)
    ext(parts["/"], disk, 28, 24)
    code, report = look(capsys, disk)
    assert (code, report["problems"], found(report)) == (1, [], BOTH)


def test_logical_volumes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The physical volume is LVM2's own making (fixtures/lvm.sh); the root lies in two pieces of it."""
    tree = planted(folder)
    trees.put(tree, "etc/fstab", "/dev/mapper/alma-root / ext4 defaults 1 1\n/dev/mapper/alma-var--log /var/log ext4 defaults 1 2\n")
    parts = split(tree, folder / "split", "/var/log")
    disk = folder / "disk"
    blank(disk, 68)
    table(disk, "start=1MiB, size=64MiB, type=lvm")
    (folder / "head").write_bytes(lzma.decompress((Path(__file__).parent / "fixtures/lvm.xz").read_bytes()))
    copy(folder / "head", disk, 1)
    for where, size in (("/", 24), ("/var/log", 8)):
        blank(folder / "volume", size)
        ext(parts[where], folder / "volume", 0, size)
        if where == "/":
            whole = (folder / "volume").read_bytes()
            (folder / "first").write_bytes(whole[: 16 * MIB])
            (folder / "second").write_bytes(whole[16 * MIB :])
            copy(folder / "first", disk, 1 + 1)
            copy(folder / "second", disk, 1 + 25)
        else:
            copy(folder / "volume", disk, 1 + 17)
    code, report = look(capsys, disk)
    assert (code, report["problems"], found(report)) == (1, [], BOTH)
    assert report["looked_at"] == ["alma/root: ext4, /", "alma/var-log: ext4, /var/log"]


def test_the_text_of_lvm_is_read_with_its_comments_and_lists() -> None:
    text = '# made by x\nalma {\nid = "a\\"b"\nstatus = ["READ", "WRITE"]\nempty = []\npv0 { start = 2048 # sectors\n} }\nversion = 1\n'
    assert parse(text) == {"alma": {"id": 'a"b', "status": ["READ", "WRITE"], "empty": [], "pv0": {"start": "2048"}}, "version": "1"}
    for damaged in ("alma {", "alma = [", "alma }}", "alma ^"):
        with pytest.raises(Unreadable):
            parse(damaged) if damaged != "alma {" else parse(damaged + " a")


def test_a_second_disk_is_looked_into_when_it_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = planted(folder)
    trees.put(tree, "etc/fstab", f"UUID={ROOT_UUID} / ext4 defaults 1 1\nUUID={BOOT_UUID} /var/log ext4 defaults 1 2\n")
    parts = split(tree, folder / "split", "/var/log")
    for name, where, size, uuid in (("a", "/", 24, ROOT_UUID), ("b", "/var/log", 8, BOOT_UUID)):
        blank(folder / name, size)
        ext(parts[where], folder / name, 0, size, uuid)
    code, report = look(capsys, folder / "a", folder / "b")
    assert (code, found(report)) == (1, BOTH)
    code, report = look(capsys, folder / "a")
    assert code == 2
    assert report["problems"] == [{"where": "/var/log", "why": f"fstab mounts UUID={BOOT_UUID} there, which is on none of the disks named"}]


QCOW2 = {
    "version 3": ["-o", "compat=1.1"],
    "version 2": ["-o", "compat=0.10"],
    "compressed": ["-c"],
    "small clusters": ["-o", "cluster_size=4096"],
}


@pytest.mark.parametrize("options", QCOW2.values(), ids=QCOW2)
def test_qcow2(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    disk = uefi(planted(folder), folder)
    image = folder / "disk.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", *options, disk, image)
    raw, read = open_image(disk), open_image(image)
    assert read.size == raw.size
    assert read.read(0, read.size) == raw.read(0, raw.size)
    assert sum(length for _, length in read.data()) < read.size
    code, report = look(capsys, image)
    assert (code, report["problems"], found(report)) == (1, [], BOTH)


def test_a_chain_of_qcow2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = uefi(planted(folder), folder)
    run("qemu-img", "convert", "-O", "qcow2", disk, folder / "base.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", folder / "middle.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", folder / "top.qcow2", "100M")
    run("qemu-io", "-c", f"write -P 7 {60 * MIB} 64k", folder / "top.qcow2")
    top, whole = open_image(folder / "top.qcow2"), open_image(disk)
    places = list(top.data())
    assert places[-1] == (60 * MIB, 65536) and sum(length for _, length in places) < whole.size
    seen = bytearray(whole.size)
    for at, length in places[:-1]:
        seen[at : at + length] = top.read(at, length)
    assert seen == whole.read(0, whole.size)
    code, report = look(capsys, folder / "top.qcow2")
    # The copy of the table is not at the end of a disk that has grown, which is allowed.
    assert (code, report["problems"], found(report)) == (1, [], BOTH)
    (folder / "base.qcow2").unlink()
    assert command.main([str(folder / "top.qcow2")]) == 2
    assert "base.qcow2: No such file or directory" in capsys.readouterr().err


def test_a_gpt_is_read_by_its_copy_when_the_first_is_damaged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = uefi(planted(folder), folder)
    with disk.open("r+b") as file:
        file.seek(1024 + 40)
        file.write(b"\xff" * 8)
    code, report = look(capsys, disk)
    assert (code, found(report)) == (1, BOTH)
    with disk.open("r+b") as file:
        file.seek(-512 + 20, os.SEEK_END)
        file.write(b"\xff")
    code, report = look(capsys, disk)
    assert code == 2
    assert "the disk has a GPT, but neither copy of it is whole" in [problem["why"] for problem in report["problems"]]


def test_debugfs_agrees_on_the_inodes_of_the_root(folder: Path) -> None:
    disk = folder / "disk"
    blank(disk, 24)
    ext(trees.clean(folder / "tree"), disk)
    filesystem = open_filesystem(open_image(disk))
    assert filesystem is not None
    lines = subprocess.run(
        ["debugfs", "-R", "ls -p /etc", disk], capture_output=True, text=True, env={**os.environ, "PATH": PATH}, check=True
    ).stdout.splitlines()
    theirs = {}
    for words in (line.strip("/").split("/") for line in lines if line):
        if words[4] not in (".", ".."):
            theirs[words[4]] = (int(words[0]), int(words[1], 8) & 0o7777, int(words[2]))
    ours = {name: (number, filesystem.node(number).mode, filesystem.node(number).uid) for name, number in filesystem.entries(node_at(filesystem, "etc"))}
    assert ours == theirs and len(ours) > 10
