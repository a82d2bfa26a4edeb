"""Reading kickstarts: what is carried out, and that nothing legal is passed over in silence."""

import pytest
from conftest import STAND_IN
from pykickstart.version import RHEL9, makeVersion

from standin import cmdline, kickstart, payload, source
from standin.errors import Fatal, Question

EXAMPLE = (STAND_IN.parent / "kickstart/alma9.ks.cfg").read_text()


def test_the_example_is_carried_out_whole() -> None:
    ks = kickstart.read(EXAMPLE)
    assert set(ks.used) <= kickstart.CARRIED_OUT
    assert [script.errorOnFail for script in ks.post] == [True]
    assert not ks.asks_nobody


def test_every_other_command_of_the_grammar_is_refused_by_name() -> None:
    """The list of what is carried out must be of commands that exist, and the rest must not be ignored."""
    grammar = {name for name, command in makeVersion(RHEL9).commands.items() if command is not None}
    assert grammar >= kickstart.CARRIED_OUT
    for text, name in (("vnc\n", "vnc"), ("nfs --server=a --dir=/b\n", "nfs"), ("module --name=x --stream=1\n", "module"), ("rhsm --organization=a --activation-key=b\n", "rhsm")):
        with pytest.raises(Fatal) as caught:
            kickstart.read("text\n" + text)
        assert str(caught.value) == f'The following problem occurred on line 2 of the kickstart file:\n\nthe stand-in does not carry out the command "{name}"'


REFUSED = {
    "a mistake": ("text\nxyzzy --a\n", "Unknown command: xyzzy"),
    "a section that does not end": ("%post\necho\n", "does not end with %end"),
    "another add-on": ("%addon org_fedora_oscap\n%end\n", 'the add-on "org_fedora_oscap"'),
    "a firewall": ("firewall --enabled --ssh\n", "firewall --enabled"),
    "encryption": ("part / --size=1 --encrypted --passphrase=x\n", "part --encrypted"),
    "a bond": ("network --device=bond0 --bondslaves=a,b\n", "network --bondslaves"),
    "kexec": ("reboot --kexec\n", "reboot --kexec"),
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(Fatal) as caught:
        kickstart.read(text)
    assert reason in str(caught.value)


def test_pre_scripts_are_read_before_the_rest() -> None:
    text = "%include /tmp/made-by-pre\n%pre --interpreter=/bin/bash --log=/tmp/pre.log\necho part / >/tmp/made-by-pre\n%end\n%post\nno\n%end\n"
    scripts = kickstart.pre_scripts(text)
    assert [(s.interp, s.logfile, s.script) for s in scripts] == [("/bin/bash", "/tmp/pre.log", "echo part / >/tmp/made-by-pre\n")]


def test_what_is_installed() -> None:
    chosen = payload.selection(kickstart.read(EXAMPLE), uefi=False)
    assert chosen.environment == "minimal-environment"
    assert chosen.groups == ["core"]
    assert chosen.packages == ["chrony", "cloud-init", "cloud-utils-growpart", "openssh-server", "qemu-guest-agent", "tar", "grub2-pc", "grub2-tools"]
    assert chosen.excluded == ["iwl*-firmware", "plymouth"]
    assert not chosen.weak and not chosen.ignore_missing
    assert payload.selection(kickstart.read("%packages --ignoremissing --nocore\nvim\n%end\n"), uefi=True).groups == []
    with pytest.raises(Question) as caught:
        payload.selection(kickstart.read("text\n"), uefi=False)
    assert caught.value.where == "Software selection"


def test_where_it_comes_from() -> None:
    def names(text: str, told: str | None = None) -> list[tuple[str, str]]:
        return [(r.name, r.baseurl or r.mirrorlist or r.metalink) for r in payload.repositories(kickstart.read(text), told)]

    medium = [("BaseOS", "file:///run/install/repo/BaseOS"), ("AppStream", "file:///run/install/repo/AppStream")]
    assert names("cdrom\n") == medium
    assert names("text\n") == medium
    assert names('url --url="http://a/b"\nrepo --name=AppStream --baseurl=http://a/c\n') == [("anaconda", "http://a/b"), ("AppStream", "http://a/c")]
    assert names("cdrom\nrepo --name=AppStream --mirrorlist=http://m\n") == [*medium, ("AppStream-1", "http://m")]
    assert names('url --url="http://a/b"\n', "http://told") == [("anaconda", "http://told")]


def test_the_kernel_line() -> None:
    line = cmdline.parse('BOOT_IMAGE=vmlinuz inst.stage2=hd:LABEL=A quiet inst.ks=http://h/a inst.ks="http://h/b c" ip=dhcp inst.cmdline')
    assert line.get("inst.ks") == "http://h/b c"
    assert line.asks_nobody and line.unknown == []
    assert cmdline.parse("inst.vnc inst.rescue inst.text").unknown == ["inst.rescue", "inst.vnc"]


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ("hd:LABEL=OEMDRV:/ks.cfg", ("LABEL=OEMDRV", "/ks.cfg")),
        ("hd:sr1:/a/b.cfg", ("sr1", "/a/b.cfg")),
        ("cdrom:/ks.cfg", ("", "/ks.cfg")),
        ("cdrom", ("", "/ks.cfg")),
        ("cdrom:sr0:/ks.cfg", ("sr0", "/ks.cfg")),
    ],
)
def test_kickstarts_on_volumes(told: str, place: tuple[str, str]) -> None:
    assert source.place(told) == place


def test_an_unknown_source_is_said_as_the_early_stage_says_it() -> None:
    with pytest.raises(Fatal) as caught:
        source.place("nfs:host:/ks.cfg")
    assert "failed to fetch kickstart from nfs:host:/ks.cfg" in str(caught.value)
