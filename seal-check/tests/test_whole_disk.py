"""What is in no file: swap, free space, what lies below a mount; and what cannot be read is said, whatever the image holds."""

import json
import random
import shutil
from pathlib import Path

import pytest
import trees
from images import BOOT_UUID, MIB, ROOT_UUID, blank, copy, ext, run, table, uefi, xfs

from sealcheck import command
from sealcheck.catalogue import CATALOGUE

CANARY = "canary-5f0c2a91-of-the-build"
SECRET = f"{trees.KEY}root:$6$saltsalt$abcdefghijklmnopqrstuvwxyz:19700:0:99999:7:::\nK10{'a1' * 32}::server:{'b2' * 16}\n"


def look(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict]:
    code = command.main([*(str(word) for word in words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def named(entries: list[dict]) -> set[str]:
    return {entry["identity"] for entry in entries} - {"disk-names"}


@pytest.fixture
def disk(folder: Path) -> Path:
    return uefi(trees.clean(folder / "tree"), folder)


def write(disk: Path, at: int, content: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(at)
        file.write(content)


def removed(disk: Path, content: bytes, start: int = 25) -> int:
    """Lays a content into a block that no file has, as a removed file leaves it."""
    at = start * MIB + 20 * MIB
    with disk.open("rb") as file:
        file.seek(at)
        assert file.read(MIB) == bytes(MIB)
    write(disk, at, content)
    return at


def test_swap_that_was_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swap = folder / "swap"
    blank(swap, 4)
    run("mkswap", "-q", "-U", BOOT_UUID, swap)
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/fstab", f"UUID={ROOT_UUID} / ext4 defaults 1 1\nUUID={BOOT_UUID} none swap defaults 0 0\n/swapfile none swap defaults 0 0\n")
    shutil.copy(swap, tree / "swapfile")
    disk = folder / "disk"

    def make() -> None:
        blank(disk, 40)
        table(disk, "start=1MiB, size=4MiB, type=swap", "start=5MiB, size=32MiB, type=linux")
        copy(swap, disk, 1)
        ext(tree, disk, 5, 32)

    make()
    assert look(capsys, disk)[0] == 0
    write(disk, 1 * MIB + 2 * MIB, b"memory")
    code, report = look(capsys, disk)
    assert (code, [(entry["identity"], entry["path"]) for entry in report["findings"]]) == (1, [("swap", "gpt1")])
    with (tree / "swapfile").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"memory")
    make()
    code, report = look(capsys, disk)
    assert (code, [(entry["identity"], entry["path"]) for entry in report["findings"]]) == (1, [("swap", "/swapfile")])


def test_files_below_a_mount_are_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = folder / "disk"
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/fstab", f"UUID={ROOT_UUID} / ext4 defaults 1 1\nUUID={BOOT_UUID} /var/log ext4 defaults 1 2\n")
    trees.put(tree, "var/log/below", "written before /var/log was mounted\n")
    (folder / "log").mkdir()
    blank(disk, 36)
    table(disk, "start=1MiB, size=8MiB, type=linux", "start=9MiB, size=24MiB, type=linux")
    ext(folder / "log", disk, 1, 8, BOOT_UUID)
    ext(tree, disk, 9, 24)
    code, report = look(capsys, disk)
    assert (code, report["problems"]) == (1, [])
    assert ("hidden-files", "/var/log/below") in [(entry["identity"], entry["path"]) for entry in report["findings"]]


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_forbidden_text_is_found_in_files_in_free_space_and_between_partitions(
    disk: Path, folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    shutil.rmtree(folder / "split")
    trees.put(folder / "tree", "usr/share/x", f"{'-' * 3000}{CANARY}")
    disk = uefi(folder / "tree", folder)
    at = removed(disk, CANARY.encode())
    gap = 26 * MIB + 24 * MIB - 64
    write(disk, gap, CANARY.encode())
    # Over the edge of two pieces that are read.
    write(disk, 4 * MIB - 7, CANARY.encode())
    (folder / "canaries").write_text(f"not-in-this-image-at-all\n\n{CANARY}\n")
    image = disk
    if kind == "qcow2":
        image = folder / "disk.qcow2"
        run("qemu-img", "convert", "-O", "qcow2", disk, image)
    code, report = look(capsys, image, "--forbid-file", folder / "canaries")
    assert (code, named(report["findings"])) == (1, {"forbidden-text"})
    paths = {entry["path"] for entry in report["findings"]}
    assert paths == {"/usr/share/x", f"{image.name}, byte {at}", f"{image.name}, byte {gap}", f"{image.name}, byte {4 * MIB - 7}"}
    assert all("line 3 of canaries" in entry["what"] for entry in report["findings"])
    assert CANARY not in json.dumps(report)
    assert look(capsys, image, "--forbid", "not-in-this-image-at-all")[0] == 0
    assert look(capsys, image, "--forbid", CANARY)[0] == 1


def test_what_a_qcow2_file_holds_beside_its_disk(disk: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    removed(disk, CANARY.encode() + SECRET.encode())
    image = folder / "disk.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", disk, image)
    run("qemu-img", "snapshot", "-c", "before", image)
    run("qemu-io", "-c", f"write -z {45 * MIB} {MIB}", image)
    code, report = look(capsys, image, "--forbid", CANARY)
    assert (code, named(report["findings"]), named(report["notes"])) == (2, {"forbidden-text"}, set())
    assert "beside the disk it presents" in report["findings"][0]["what"]
    assert "1 internal snapshot(s)" in report["problems"][0]["why"]


def test_secrets_of_removed_files_are_noted_and_under_strict_found(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = removed(disk, SECRET.encode())
    code, report = look(capsys, disk)
    assert (code, named(report["notes"])) == (0, {"remains"})
    notes = [entry for entry in report["notes"] if entry["identity"] == "remains"]
    assert [entry["path"] for entry in notes] == [f"disk.raw, byte {at + SECRET.index(mark)}" for mark in ("-----BEGIN", ":$6$", "K10")]
    assert [entry["what"].rsplit(": ")[-1] for entry in notes] == ["private key", "line of a shadow file", "k3s token"]
    code, report = look(capsys, disk, "--strict")
    assert (code, named(report["findings"])) == (1, {"remains"})


def test_a_text_that_is_too_short_or_a_missing_list_is_refused(disk: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").write_text("\n")
    for words, said in (
        (["--forbid", "abc"], "--forbid number 1 is shorter than four bytes"),
        (["--forbid-file", str(folder / "none")], "none: No such file or directory"),
        (["--forbid-file", str(folder / "empty")], "empty names no text"),
    ):
        assert command.main([str(disk), *words]) == 2
        assert said in capsys.readouterr().err


def unread(capsys: pytest.CaptureFixture[str], disk: Path) -> str:
    code, report = look(capsys, disk)
    assert (code, report["verdict"]) == (2, "unread")
    return " ".join(f"{problem['where']}: {problem['why']}" for problem in report["problems"])


def test_what_cannot_be_read_is_said(folder: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(folder / "none.raw")]) == 2
    assert "none.raw: No such file or directory" in capsys.readouterr().err
    # /boot in a format of others.
    write(disk, 9 * MIB, bytes(4096))
    for at, mark, said in ((0, b"LUKS\xba\xbe", "encrypted with LUKS"), (0x10040, b"_BHRfS_M", "btrfs"), (0, b"x" * 512, "in no format that is known here")):
        other = folder / "other"
        shutil.copy(disk, other)
        write(other, 9 * MIB + at, mark)
        assert f"gpt2: it {'is' if 'no format' not in said else 'holds data'} {said}" in unread(capsys, other)
    empty = folder / "empty"
    blank(empty, 8)
    assert "no root file system was found" in unread(capsys, empty)


def test_changes_in_a_journal_are_not_overlooked(folder: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The marks of a file system that was in use when its machine stopped: ext's in the superblock, XFS's in the log."""
    write(disk, 25 * MIB + 1024 + 96, bytes([0x46]))
    assert "gpt3: not unmounted cleanly (its journal holds changes" in unread(capsys, disk)
    other = folder / "xfs"
    blank(other, 300)
    tree = trees.clean(folder / "tree2")
    trees.put(tree, "etc/fstab", "")
    xfs(tree, other)
    assert look(capsys, other)[0] == 0
    log = int(run("xfs_db", "-r", "-c", "sb 0", "-c", "print logstart", other).split()[-1])
    start = int(run("xfs_db", "-r", "-c", f"convert fsblock {log} byte", other).split("(")[1].split(")")[0])
    # The one record that mkfs wrote says "unmounted": flags of its operation, at byte 9 behind the header.
    content = other.read_bytes()
    assert content[start + 512 + 9] == 0x20
    write(other, start + 512 + 9, b"\x01")
    assert "not unmounted cleanly (its log holds changes" in unread(capsys, other)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_no_damage_ends_in_a_crash_or_in_clean(folder: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """Blocks of the tables are overwritten at random; the identity is found, or the report says that something is unread."""
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/ssh/ssh_host_rsa_key", trees.KEY)
    disk = uefi(tree, folder, kind)
    with disk.open("rb") as file:
        file.seek(25 * MIB)
        whole = file.read(4 * MIB)
    used = [at for at in range(0, len(whole), 512) if whole[at : at + 512] != bytes(512)]
    chance = random.Random(1)
    for _ in range(15):
        damaged = bytearray(whole)
        for at in chance.sample(used, max(1, len(used) // 20)):
            offset, noise = at + chance.randrange(448), chance.randbytes(chance.choice((1, 4, 64)))
            damaged[offset : offset + len(noise)] = noise
        write(disk, 25 * MIB, bytes(damaged))
        code = command.main([str(disk), "--json"])
        report = json.loads(capsys.readouterr().out)
        assert code in (1, 2), "a host key was there"
        assert report["problems"] or "host-keys" in named(report["findings"])


def test_the_list_names_what_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert all(f"{identity.name:<18}" in out for identity in CATALOGUE)
    assert "remains           note  secret of a file that was removed" in out
