#!/usr/bin/env python3
"""Builds the stand-in's RPMs and their repositories: rpms.py DEBIAN MADE OUT.

DEBIAN holds debs/ and what bootstrap.sh left, MADE what was built before (loaders for UEFI). OUT becomes the mirror.
"""

import compileall
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PACKAGES = HERE / "packages"
RELEASE = "1.el9.standin"


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]


def version_of(text: str) -> str:
    """A Debian version as an RPM may bear it."""
    upstream = text.split(":")[-1].rsplit("-", 1)[0]
    return re.sub(r"[^A-Za-z0-9.]", "_", upstream)


class Debs:
    """The packages that are carved, unpacked when first asked for."""

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.work = folder, work

    def file(self, name: str) -> Path:
        found = sorted(self.folder.glob(f"{name}_*.deb"))
        if len(found) != 1:
            raise SystemExit(f"rpms.py: {len(found)} files for the Debian package {name} in {self.folder}, one is needed")
        return found[0]

    def tree(self, name: str) -> Path:
        tree = self.work / name
        if not tree.exists():
            subprocess.run(["dpkg-deb", "--extract", self.file(name), tree], check=True)
        return tree

    def version(self, name: str) -> str:
        done = subprocess.run(["dpkg-deb", "--field", self.file(name), "Version"], check=True, capture_output=True, text=True)
        return version_of(done.stdout.strip())


def copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise SystemExit(f"rpms.py: {source} is not in its Debian package any more")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def stage(name: str, about: dict, debs: Debs, made: Path, root: Path) -> None:
    """Lays the files of one package down."""
    if about.get("deb"):
        for source, target in about.get("files", {}).items():
            copy(debs.tree(about["deb"]) / source, root / target.lstrip("/"))
    for key, target in about.get("more", {}).items():
        package, source = key.split(":", 1)
        copy(debs.tree(package) / source, root / target.lstrip("/"))
    for source, target in about.get("made", {}).items():
        copy(made / source, root / target.lstrip("/"))
    if (PACKAGES / name / "root").is_dir():
        copy(PACKAGES / name / "root", root)
    for folder in about.get("directories", []):
        (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
    for folder in about.get("bytecompile", []):
        # The paths that go into the files are those of the installed system.
        compileall.compile_dir(root / folder.lstrip("/"), quiet=2, ddir=folder, force=True)
    note = root / "usr/share/stand-in/packages" / name
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{about['summary']}\n")


def files(root: Path, about: dict) -> str:
    """The %files list: every file, and the folders that were asked for."""
    modes = about.get("modes", {})
    wanted = []
    for path in sorted(root.rglob("*")):
        name = f"/{path.relative_to(root)}"
        if path.is_dir() and not path.is_symlink():
            if name in about.get("directories", []):
                wanted.append(f"%dir {name}")
            continue
        config = "%config(noreplace) " if name.startswith("/etc/") else ""
        mode = modes.get(name) or f"{path.lstat().st_mode & 0o7777:04o}"
        wanted.append(f'%attr({mode},root,root) {config}"{name}"')
    return "\n".join(wanted) + "\n"


def package(name: str, version: str, about: dict, root: Path, lists: Path, release: str = RELEASE) -> str:
    """This package's part of the spec."""
    (lists / name).write_text(files(root, about))
    text = f"%package -n {name}\nSummary: {about['summary']}\nVersion: {version}\nRelease: {release}\n"
    text += "".join(f"Requires: {need}\n" for need in about.get("requires", []))
    text += "".join(f"Provides: {given}\n" for given in about.get("provides", []))
    text += f"%description -n {name}\n{about['summary']}. Part of k3simage's stand-in; not a package of AlmaLinux.\n"
    if about.get("pre"):
        text += f"%pre -n {name}\n{about['pre']}\n"
    units = " ".join(about.get("units", []))
    if units:
        text += f"%post -n {name}\nif [ $1 -eq 1 ]; then systemctl --no-reload preset {units} || :; fi\n"
        text += f"%preun -n {name}\nif [ $1 -eq 0 ]; then systemctl --no-reload disable --now {units} || :; fi\n"
    return text + f"%files -n {name} -f {lists / name}\n"


def build(specs: dict[str, str], roots: dict[str, Path], work: Path, out: Path, name: str) -> None:
    """One spec for all: each package's files are put together by %install."""
    install = "\n".join(f"cp -a {root}/. %{{buildroot}}/" for root in roots.values())
    head = f"""Name: {name}
Version: 1
Release: 1
Summary: Source of the stand-in's packages
License: See each Debian package
AutoReqProv: no
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%define _build_id_links none
%description
Source of the stand-in's packages.
%install
mkdir -p %{{buildroot}}
{install}
"""
    # AutoReqProv is a matter of each package.
    body = "".join(text.replace("\n%description", "\nAutoReqProv: no\n%description", 1) for text in specs.values())
    spec = work / f"{name}.spec"
    spec.write_text(head + body)
    done = subprocess.run(
        ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {work / 'rpmbuild'}", "--define", f"_rpmdir {out}", "--define", "_binary_payload w3.zstdio",
         "--define", "_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm", "--define", "_unpackaged_files_terminate_build 0",
         "--target", "x86_64", spec],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"rpms.py: rpmbuild of {spec} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def main() -> None:
    debian, made, out = (Path(word).resolve() for word in sys.argv[1:4])
    work = out.parent / "rpms"
    for folder in (work, out):
        shutil.rmtree(folder, ignore_errors=True)
    (work / "lists").mkdir(parents=True)
    (work / "debs").mkdir()
    debs = Debs(debian / "debs", work / "debs")
    system = dict(line.split() for line in (debian / "debs/system-packages.txt").read_text().splitlines())
    specs, roots, places = {}, {}, {}

    def add(name: str, version: str, about: dict) -> None:
        root = work / "roots" / name
        root.mkdir(parents=True)
        stage(name, about, debs, made, root)
        specs[name] = package(name, version, about, root, work / "lists")
        roots[name], places[name] = root, about["repository"]

    for path in sorted(PACKAGES.glob("*/package.toml")):
        about = tomllib.loads(path.read_text())
        name = path.parent.name
        add(name, debs.version(about["deb"]) if about.get("deb") else "9.4" if name == "stand-in-release" else "1", about)
    kernel = next((debian / "debs").glob("linux-image-*.deb")).name.split("_")[1]
    markers = lines(PACKAGES / "markers.txt")
    for name, deb, repository in markers:
        # What scriptlets ask for.
        given = ["/bin/sh", "/usr/bin/sh", "/bin/bash", "/usr/bin/bash"] if name == "bash" else []
        add(name, version_of(system[deb]), {"summary": f"{name}: comes with the Debian package {deb}", "repository": repository, "provides": given})
    add("kernel", version_of(kernel), {"summary": "kernel: Debian's, with the modules that the stand-in needs", "repository": "BaseOS", "provides": [f"kernel-core = {version_of(kernel)}"]})
    build(specs, roots, work, work / "out", "stand-in")

    # The update that waits on the mirror and is not on the medium's own repositories.
    about = tomllib.loads((PACKAGES / "stand-in-errata/package.toml").read_text())
    root = work / "roots" / "errata-2"
    (root / "usr/share/stand-in/packages").mkdir(parents=True)
    (root / "usr/share/stand-in/errata").write_text("This file is of the second version.\n")
    (root / "usr/share/stand-in/packages/stand-in-errata").write_text(f"{about['summary']}\n")
    build({"errata": package("stand-in-errata", "2", about, root, work / "lists")}, {"errata": root}, work, work / "updates", "stand-in-updates")

    core = [row[0] for row in lines(PACKAGES / "core.txt")] + [row[0] for row in markers] + ["kernel"]
    comps = work / "comps.xml"
    entries = "\n".join(f'      <packagereq type="mandatory">{name}</packagereq>' for name in core)
    comps.write_text((PACKAGES / "comps.xml").read_text().replace("@CORE@", entries))
    for kind, updates in (("medium", False), ("mirror", True)):
        for repository in ("BaseOS", "AppStream"):
            folder = out / kind / repository / ("x86_64/os" if updates else "")
            (folder / "Packages").mkdir(parents=True)
            for file in sorted((work / "out").glob("*.rpm")):
                if places.get(file.name.rsplit("-", 2)[0]) == repository:
                    shutil.copy2(file, folder / "Packages" / file.name)
            if updates and repository == "BaseOS":
                for file in (work / "updates").glob("*.rpm"):
                    shutil.copy2(file, folder / "Packages" / file.name)
            group = ["--groupfile", comps] if repository == "BaseOS" else []
            subprocess.run(["createrepo_c", "--quiet", "--no-database", "--general-compress-type=gz", *group, folder], check=True)


main()
