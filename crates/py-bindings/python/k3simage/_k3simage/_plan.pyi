"""What can be found before anything is created."""

from collections.abc import Sequence
from typing import Literal, final

from typing_extensions import Unpack

from ._client import Client
from ._spec import ImageSpec, Keywords, StrPath, Variables

@final
class Finding:
    @property
    def level(self) -> Literal["ok", "warning", "error"]: ...
    @property
    def subject(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def help(self) -> str | None: ...
    @property
    def file(self) -> str | None: ...
    @property
    def line(self) -> int | None: ...
    @property
    def text(self) -> str: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class PlanReport:
    @property
    def ok(self) -> bool: ...
    @property
    def image(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def pve_version(self) -> str: ...
    @property
    def vmid(self) -> int | None: ...
    @property
    def replaces(self) -> int | None: ...
    @property
    def findings(self) -> list[Finding]: ...

def validate(
    folder: StrPath, *, variables: Variables | None = None, var_files: Sequence[StrPath] = ()
) -> list[Finding]: ...
def plan(
    folder: StrPath | None = None,
    *,
    spec: ImageSpec | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    replace: Literal["retire", "delete"] | None = None,
    verify: bool | None = None,
    ip_configs: tuple[str, str] | None = None,
    **keywords: Unpack[Keywords],
) -> PlanReport: ...
async def plan_async(
    folder: StrPath | None = None,
    *,
    spec: ImageSpec | None = None,
    variables: Variables | None = None,
    var_files: Sequence[StrPath] = (),
    client: Client | None = None,
    replace: Literal["retire", "delete"] | None = None,
    verify: bool | None = None,
    ip_configs: tuple[str, str] | None = None,
    **keywords: Unpack[Keywords],
) -> PlanReport: ...
