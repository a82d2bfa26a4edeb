"""A sealed template is clean; each identity that is put into it is found under its name, and nothing else with it."""

import json
from pathlib import Path

import pytest
import trees
from images import uefi

from sealcheck import command
from sealcheck.catalogue import CATALOGUE


def look(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict]:
    code = command.main([*(str(word) for word in words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def named(entries: list[dict]) -> set[str]:
    return {entry["identity"] for entry in entries}


CASES = [(identity, path) for identity, files in trees.PLANTED.items() for path in files]
NOTES = [(identity, path) for identity, files in trees.NOTED.items() for path in files]


@pytest.mark.parametrize("root", ["ext4", "xfs"])
def test_a_sealed_template_is_clean(folder: Path, capsys: pytest.CaptureFixture[str], root: str) -> None:
    code, report = look(capsys, uefi(trees.clean(folder / "tree"), folder, root))
    assert (report["findings"], report["problems"]) == ([], [])
    assert (code, report["verdict"], named(report["notes"])) == (0, "clean", {"disk-names"})
    assert report["looked_at"] == ["gpt1: vfat, /boot/efi", "gpt2: ext4, /boot", f"gpt3: {root}, /"]


@pytest.mark.parametrize(("identity", "path"), CASES, ids=[f"{identity}:{path}" for identity, path in CASES])
def test_what_is_planted_is_found_by_name_and_nothing_else(folder: Path, capsys: pytest.CaptureFixture[str], identity: str, path: str) -> None:
    tree = trees.clean(folder / "tree")
    trees.put(tree, path, trees.PLANTED[identity][path])
    code, report = look(capsys, uefi(tree, folder))
    assert (code, report["problems"], named(report["findings"])) == (1, [], {identity})
    for finding in report["findings"]:
        # The file itself, or the folder that is the identity as a whole.
        assert f"/{path}".startswith(finding["path"])
        assert finding["why"] and finding["remove"] and finding["what"]


@pytest.mark.parametrize(("identity", "path"), NOTES, ids=[identity for identity, _ in NOTES])
def test_what_does_no_harm_is_noted(folder: Path, capsys: pytest.CaptureFixture[str], identity: str, path: str) -> None:
    tree = trees.clean(folder / "tree")
    trees.put(tree, path, trees.NOTED[identity][path])
    code, report = look(capsys, uefi(tree, folder))
    assert (code, report["findings"], named(report["notes"])) == (0, [], {identity, "disk-names"})


def test_all_at_once_on_xfs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = trees.clean(folder / "tree")
    for files in trees.PLANTED.values():
        for path, text in files.items():
            trees.put(tree, path, text)
    code, report = look(capsys, uefi(tree, folder, "xfs"))
    assert (code, report["problems"]) == (1, [])
    assert named(report["findings"]) == set(trees.PLANTED)
    found = [finding["path"] for finding in report["findings"]]
    assert [path for _, path in CASES if not any(f"/{path}".startswith(place) for place in found)] == []


@pytest.mark.parametrize("identity", [identity for identity in CATALOGUE if not identity.note], ids=lambda identity: identity.name)
def test_every_pattern_of_the_catalogue_finds(folder: Path, capsys: pytest.CaptureFixture[str], identity) -> None:
    paths = {pattern: pattern.replace("~", "home/packer").replace("**", "a/b").replace("*", "x").strip("/") for pattern in identity.patterns}
    tree = trees.clean(folder / "tree")
    for path in paths.values():
        trees.put(tree, path, "planted\n")
    _, report = look(capsys, uefi(tree, folder))
    found = {finding["path"].strip("/") for finding in report["findings"]}
    assert [pattern for pattern, path in paths.items() if not found & {path, path.removesuffix("/b")}] == []


def test_every_identity_is_planted_somewhere() -> None:
    # The rest is planted by the tests beside: they are in no single file.
    assert set(command.identities()) == {*trees.PLANTED, *trees.NOTED, "forbidden-text", "remains", "swap", "hidden-files", "disk-names"}


def test_what_is_allowed_becomes_a_note(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/hostname", "build\n")
    trees.put(tree, "root/.bash_history", "ls\n")
    disk = uefi(tree, folder)
    code, report = look(capsys, disk, "--allow", "hostname")
    assert (code, named(report["findings"]), named(report["notes"])) == (1, {"shell-history"}, {"hostname", "disk-names"})
    code, report = look(capsys, disk, "--allow", "hostname", "--allow", "shell-history")
    assert (code, report["verdict"]) == (0, "clean")
    with pytest.raises(SystemExit) as ended:
        command.main([str(disk), "--allow", "nonsense"])
    assert ended.value.code == 2
    assert "--allow names nonsense; the identities are: authorized-keys, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("AuthorizedKeysFile /etc/keys/%u", "etc/keys/packer"),
        ('AuthorizedKeysFile "%h/.keys" none', "home/packer/.keys"),
        ("authorizedkeysfile=keys/of-user", "srv/backup/keys/of-user"),
    ],
)
def test_keys_are_found_where_sshd_is_told_to_look(folder: Path, capsys: pytest.CaptureFixture[str], setting: str, path: str) -> None:
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/ssh/sshd_config.d/10-keys.conf", f"{setting}\n")
    trees.put(tree, path, "# ours\nssh-ed25519 AAAA build\n")
    _, report = look(capsys, uefi(tree, folder))
    assert [(finding["identity"], finding["path"]) for finding in report["findings"]] == [("authorized-keys", f"/{path}")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("packer::19700::::::", "packer has an empty one"),
        ("packer:!$6$salt$hash:19700::::::", "hash of packer, locked, which anybody with root undoes"),
        ("packer:$y$j9T$x$y:19700::::::", "hash of packer"),
    ],
)
def test_passwords_are_named_by_their_account(folder: Path, capsys: pytest.CaptureFixture[str], line: str, said: str) -> None:
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/shadow", f"root:*:19700::::::\n{line}\n")
    _, report = look(capsys, uefi(tree, folder))
    assert [finding["what"] for finding in report["findings"]] == [f"password: {said}"]


def test_the_table_tells_what_why_and_how_and_steers_no_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = trees.clean(folder / "tree")
    trees.put(tree, "etc/machine-id", f"{trees.ID}\n")
    trees.put(tree, "tmp/\x1b[2Jx", "x")
    assert command.main([str(uefi(tree, folder))]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "FOUND      machine-id\n           /etc/machine-id  machine-id\n           why:    clones would share DHCP leases" in out
    assert "           /tmp/\\x1b[2Jx  temporary file that was left\n" in out
    assert "           remove: seal.sh, operation machine-id\n" in out
    assert out.endswith("\n2 identities are left; each clone of this image would share them\n")
