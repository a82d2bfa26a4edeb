"""Building."""

import datetime
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

from typing_extensions import Unpack

from ._client import Client
from ._event import Event
from ._spec import ImageSpec, Keywords, Seconds, StrPath, Variables

OnEvent = Callable[[Event], object]

@final
class Artifact:
    @property
    def name(self) -> str: ...
    @property
    def vmid(self) -> int: ...
    @property
    def node(self) -> str: ...
    @property
    def build_id(self) -> str: ...
    @property
    def spec_hash(self) -> str: ...
    @property
    def pve_version(self) -> str: ...
    @property
    def finished(self) -> datetime.datetime: ...
    @property
    def tags(self) -> list[str]: ...
    @property
    def timings(self) -> list[tuple[str, float]]: ...
    @property
    def replaced_vmid(self) -> int | None: ...
    @property
    def retired_name(self) -> str | None: ...
    @property
    def api_requests(self) -> int: ...
    def to_dict(self) -> dict[str, Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def build(
    folder: StrPath | None = None,
    *,
    spec: ImageSpec | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    on_event: OnEvent | None = None,
    manifest: StrPath | None = None,
    lease: Seconds = 300.0,
    replace: Literal["retire", "delete"] | None = None,
    verify: bool | None = None,
    ip_configs: tuple[str, str] | None = None,
    verify_timeout: Seconds | None = None,
    screen: StrPath | None = None,
    **keywords: Unpack[Keywords],
) -> Artifact: ...
async def build_async(
    folder: StrPath | None = None,
    *,
    spec: ImageSpec | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    on_event: OnEvent | None = None,
    manifest: StrPath | None = None,
    lease: Seconds = 300.0,
    replace: Literal["retire", "delete"] | None = None,
    verify: bool | None = None,
    ip_configs: tuple[str, str] | None = None,
    verify_timeout: Seconds | None = None,
    screen: StrPath | None = None,
    **keywords: Unpack[Keywords],
) -> Artifact: ...
def init(folder: StrPath) -> list[pathlib.Path]: ...
