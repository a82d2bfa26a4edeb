#!/usr/bin/env python3
"""Writes the first inputs of every target into fuzz/corpus, from the recordings in pve/ and the files of the repository.

python3 fuzz/seeds.py; then `cargo +nightly fuzz cmin --sanitizer none TARGET` leaves those that reach something new.
"""

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"


def put(target: str, *inputs: str | bytes) -> None:
    """Adds inputs under the names that libFuzzer gives them."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for given in inputs:
        data = given.encode() if isinstance(given, str) else given
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def texts(value: object) -> list[str]:
    """Every string within a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts(inner)]
    return []


def multipart(parts: list[dict[str, object]]) -> bytes:
    """A body with the boundary that the target uses; files are cut short."""
    body = b"\x07"
    for part in parts:
        name = f'; filename="{part["filename"]}"' if "filename" in part else ""
        body += f'--B\r\nContent-Disposition: form-data; name="{part["name"]}"{name}\r\n\r\n'.encode()
        body += str(part.get("value", "content of the file\r\n--B")).encode() + b"\r\n"
    return body + b"--B--\r\n"


def recordings() -> None:
    """Property strings, UPIDs, volumes and uploads of the scenarios."""
    for file in sorted((ROOT / "pve" / "scenarios").glob("[0-9]*.json")):
        for step in json.loads(file.read_text())["steps"]:
            request = step["request"]
            if "multipart" in request:
                put("multipart", multipart(request["multipart"]))
            for _, value in request.get("form", []):
                if isinstance(value, str) and ("=" in value or "," in value) and len(value) < 200:
                    put("property_string", value, bytes([len(value)]) + value.encode())
            for text in texts([request, step["response"].get("body")]):
                if text.startswith("UPID:") and len(text) < 200:
                    put("upid", text)
                if ":" in text and "/" in text and " " not in text and len(text) < 80:
                    put("volid", text)


def files() -> None:
    """Kickstarts, scripts and variable files of the repository, and boot commands of its documentation."""
    for file in [*ROOT.glob("examples/**/*.cfg"), *ROOT.glob("kickstart/*"), *ROOT.glob("**/snapshots/*kickstart*.snap")]:
        if file.is_file() and "target" not in file.parts:
            put("kickstart", file.read_text())
    for file in ROOT.glob("scripts/*.sh"):
        text = file.read_text()
        put("shell", text[:3000])
        for start in range(0, len(text), 400):
            put("shell", text[start : start + 400])
    for file in [*ROOT.glob("examples/**/*.hcl"), *ROOT.glob("examples/**/*.pkrvars*")]:
        put("hcl", file.read_text())


def by_hand() -> None:
    """What no file of the repository shows."""
    put(
        "boot_command",
        "<up><wait500ms>e<leftCtrlOn>x<leftCtrlOff>",
        "<tab> inst.text inst.ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg<enter><wait1m30s>",
        "<leftAltOn><rightShiftOn>a<rightShiftOff><leftAltOff>{{.Name}}{{- .Name -}}<<>{}",
        "<esc><f12><spacebar><bs><del><pageUp><leftSuper>",
    )
    put("property_string", "\x00local:32,ssd=1", "\x10virtio,bridge=vmbr0,tag=7", "base64=1,serial=QUFB")
    put("property_string", '{"name":"a","memory":"512","scsi0":"local-lvm:4"}', "name=a&net0=virtio&net0=e1000&tags=a%3Bb")
    put("volid", "local:iso/a.iso", "220/base-220-disk-1.qcow2/221/vm-221-disk-1.qcow2", "local-lvm:vm-100-disk-0")
    put("iso", b"", bytes([0, 0, 1, 2]), bytes([0xA0, 0x18, 4, 1, 0, 0, 0]))
    put("kickstart", "text\nlang en_US\n%packages\n-a\n@b\n%end\nuser --name=x --groups wheel # c\n%include /tmp/x\n")
    put("shell", "a* b?\nabba", "s/\\(a\\)b*/[\\1]/g\nabba\n", "/x/!d;$p\nx\ny\n", "for i in 1 2; do echo $((i+1)) >f; done <<E\n$i\nE\n")
    put("shell", 'case "$x" in [!a-c]*) : ;; *) f() { return 1; };; esac; if ! test -n "${a:-b}"; then `c`; fi | d && e || g &')
    put("hcl", '{ "vm_memory": 4096, "//": "x", "list": [1, true, null] }', 'a = env("HOME")\nb = [for x in ["c"] : upper(x)]\n')
    put("hcl", 'variable "x" {\n  type = list(string)\n  default = ["a"]\n  validation {\n    condition = length(var.x) > 0\n    error_message = "e"\n  }\n}\nlocals {\n  y = "${var.x[0]}-z"\n}\n')


if __name__ == "__main__":
    recordings()
    files()
    by_hand()
    for folder in sorted(CORPUS.iterdir()):
        sizes = [file.stat().st_size for file in folder.iterdir()]
        print(f"{folder.name:16} {len(sizes):4} files {sum(sizes):7} bytes")
