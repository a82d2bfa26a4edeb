"""What becomes of builds and verifications whose process died."""

from collections.abc import Sequence
from typing import Any, Literal, final

from typing_extensions import Unpack

from ._client import Client
from ._pipeline import Artifact, OnEvent
from ._spec import ImageSpec, Keywords, Seconds, StrPath, Variables
from ._verify import Connection

@final
class Leftover:
    @property
    def id(self) -> str: ...
    @property
    def of(self) -> Literal["build", "verification"]: ...
    @property
    def image(self) -> str | None: ...
    @property
    def step(self) -> str | None: ...
    @property
    def state(self) -> Literal["dead", "alive", "unclear"]: ...
    @property
    def because(self) -> str: ...
    @property
    def things(self) -> list[str]: ...
    @property
    def removed(self) -> list[str]: ...
    def to_dict(self) -> dict[str, Any]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def resume(
    build_id: str,
    folder: StrPath | None = None,
    *,
    spec: ImageSpec | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    on_event: OnEvent | None = None,
    manifest: StrPath | None = None,
    lease: Seconds = 300.0,
    screen: StrPath | None = None,
    **keywords: Unpack[Keywords],
) -> Artifact: ...
async def resume_async(
    build_id: str,
    folder: StrPath | None = None,
    *,
    spec: ImageSpec | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    on_event: OnEvent | None = None,
    manifest: StrPath | None = None,
    lease: Seconds = 300.0,
    screen: StrPath | None = None,
    **keywords: Unpack[Keywords],
) -> Artifact: ...
def gc(
    *,
    folder: StrPath | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    remove: bool = False,
    volume_age: Seconds = 7200.0,
    **keywords: Unpack[Connection],
) -> list[Leftover]: ...
async def gc_async(
    *,
    folder: StrPath | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    remove: bool = False,
    volume_age: Seconds = 7200.0,
    **keywords: Unpack[Connection],
) -> list[Leftover]: ...
