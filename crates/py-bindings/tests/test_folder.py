"""`init` and `validate`: a template folder without a cluster."""

from __future__ import annotations

from pathlib import Path

import k3simage
import pytest

TOKEN = {"proxmox_token": "5ec2e7c0-0000-4000-8000-c0ffee000001"}


def test_init_writes_a_valid_folder(tmp_path: Path) -> None:
    written = k3simage.init(tmp_path / "image")
    names = {path.name for path in written}
    assert {"variables.pkr.hcl", "variables.auto.pkrvars.hcl", "ks.cfg.j2", "k3s-install.sh", "seal.sh"} <= names
    assert all(finding.level == "warning" for finding in k3simage.validate(tmp_path / "image", variables=TOKEN))


def test_init_overwrites_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(k3simage.Error):
        k3simage.init(folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_validate_points_at_the_place(folder: Path) -> None:
    values = folder / "variables.auto.pkrvars.hcl"
    values.write_text(values.read_text().replace('"v1.29.0+k3s1"', '"v1.29.0"'))
    with pytest.raises(k3simage.InvalidInputError) as caught:
        k3simage.validate(folder, variables=TOKEN)
    told = "\n".join(caught.value.findings)
    for part in ["k3s_version", "v1.29.0", "variables.auto.pkrvars.hcl:", "^^^", "help: "]:
        assert part in told, part
    assert TOKEN["proxmox_token"] not in told


def test_unknown_variable_names_the_nearest(folder: Path) -> None:
    with pytest.raises(k3simage.InvalidInputError) as caught:
        k3simage.validate(folder, variables={**TOKEN, "k3s_verison": "v1.29.0+k3s1"})
    assert "k3s_version" in "\n".join(caught.value.findings)


def test_a_variable_of_a_wrong_type(folder: Path) -> None:
    with pytest.raises(TypeError, match="variable vm_cores is a object"):
        k3simage.validate(folder, variables={"vm_cores": object()})


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(k3simage.Error) as caught:
        k3simage.validate(tmp_path / "nowhere")
    assert "nowhere" in str(caught.value)


def test_warnings_are_findings(folder: Path) -> None:
    (folder / "extra.auto.pkrvars.hcl").write_text('no_such_variable = "x"\n')
    findings = k3simage.validate(folder, variables=TOKEN)
    about = [finding for finding in findings if "no_such_variable" in finding.text]
    assert about
    assert (about[0].level, about[0].line) == ("warning", 1)
    assert about[0].file is not None
    assert about[0].file.endswith("extra.auto.pkrvars.hcl")
