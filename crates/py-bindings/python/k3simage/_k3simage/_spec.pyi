"""What to build, and on which cluster."""

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, final

from typing_extensions import Unpack

StrPath = str | os.PathLike[str]
Seconds = float | datetime.timedelta
Variables = Mapping[str, object]

class ImageFields(TypedDict, total=False):
    """The keyword arguments that describe an image."""

    k3s_version: str | None
    k3s_role: Literal["server", "agent", "none"] | None
    k3s_mirror_url: str | None
    hardening_oscap: bool | None
    name: str | None
    description: str | None
    tags: Sequence[str] | None
    node: str | None
    vmid: int | None
    pool: str | None
    cores: int | None
    memory_mib: int | None
    cpu_type: str | None
    bios: Literal["seabios", "ovmf"] | None
    storage: str | None
    disk_gib: int | None
    bridge: str | None
    iso: StrPath | None
    iso_checksum: str | None
    iso_storage: str | None
    kickstart: StrPath | None
    boot_command: str | None
    boot_wait: Seconds | None
    boot_key_interval: Seconds | None
    communicator: Literal["auto", "ssh", "agent"] | None
    ssh_username: str | None
    ssh_password: str | None
    ssh_host: str | None
    ssh_port: int | None
    ssh_timeout: Seconds | None
    on_error: Literal["cleanup", "keep"] | None

class Keywords(ImageFields, total=False):
    """The same, and those of the connection."""

    url: str | None
    token: str | None
    username: str | None
    password: str | None
    fingerprint: str | None
    ca_file: StrPath | None
    insecure: bool | None

@final
class ImageSpec:
    def __new__(cls, **fields: Unpack[ImageFields]) -> ImageSpec: ...
    @classmethod
    def from_folder(
        cls,
        folder: StrPath,
        *,
        variables: Variables | None = None,
        var_files: Sequence[StrPath] = (),
    ) -> ImageSpec: ...
    @property
    def name(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def vmid(self) -> int | None: ...
    @property
    def k3s_version(self) -> str | None: ...
    @property
    def tags(self) -> list[str]: ...
    @property
    def content_hash(self) -> str: ...
    def to_dict(self) -> dict[str, Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
