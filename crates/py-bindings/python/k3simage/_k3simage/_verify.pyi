"""Verifying templates."""

import datetime
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, final

from typing_extensions import Unpack

from ._client import Client
from ._pipeline import OnEvent
from ._spec import Seconds, StrPath, Variables

class Connection(TypedDict, total=False):
    """Where Proxmox VE answers, and as whom."""

    url: str | None
    token: str | None
    username: str | None
    password: str | None
    fingerprint: str | None
    ca_file: StrPath | None
    insecure: bool | None

@final
class Check:
    @property
    def name(self) -> str: ...
    @property
    def outcome(self) -> Literal["ok", "shared", "failed", "not_checked"]: ...
    @property
    def first(self) -> str: ...
    @property
    def second(self) -> str: ...
    @property
    def message(self) -> str: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class VerifyReport:
    @property
    def ok(self) -> bool: ...
    @property
    def template(self) -> str: ...
    @property
    def vmid(self) -> int: ...
    @property
    def node(self) -> str: ...
    @property
    def pve_version(self) -> str: ...
    @property
    def verify_id(self) -> str: ...
    @property
    def finished(self) -> datetime.datetime: ...
    @property
    def checks(self) -> list[Check]: ...
    @property
    def shared(self) -> list[str]: ...
    @property
    def failed(self) -> list[str]: ...
    @property
    def ssh_seconds(self) -> list[float]: ...
    @property
    def k3s_seconds(self) -> list[float | None]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def verify(
    template: str,
    *,
    folder: StrPath | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    iso_storage: str = "local",
    full: bool = False,
    storage: str | None = None,
    pool: str | None = None,
    ip_configs: tuple[str, str] | None = None,
    ssh_port: int | None = None,
    timeout: Seconds = 600.0,
    report: StrPath | None = None,
    lease: Seconds = 300.0,
    on_event: OnEvent | None = None,
    **keywords: Unpack[Connection],
) -> VerifyReport: ...
async def verify_async(
    template: str,
    *,
    folder: StrPath | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    iso_storage: str = "local",
    full: bool = False,
    storage: str | None = None,
    pool: str | None = None,
    ip_configs: tuple[str, str] | None = None,
    ssh_port: int | None = None,
    timeout: Seconds = 600.0,
    report: StrPath | None = None,
    lease: Seconds = 300.0,
    on_event: OnEvent | None = None,
    **keywords: Unpack[Connection],
) -> VerifyReport: ...
