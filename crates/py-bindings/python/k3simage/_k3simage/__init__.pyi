"""The native module."""

from collections.abc import Sequence

from ._client import Client as Client
from ._emulator import Emulator as Emulator
from ._event import Event as Event
from ._inventory import Node as Node
from ._inventory import Version as Version
from ._inventory import Vm as Vm
from ._inventory import Volume as Volume
from ._leftovers import Leftover as Leftover
from ._leftovers import gc as gc
from ._leftovers import gc_async as gc_async
from ._leftovers import resume as resume
from ._leftovers import resume_async as resume_async
from ._pipeline import Artifact as Artifact
from ._pipeline import build as build
from ._pipeline import build_async as build_async
from ._pipeline import init as init
from ._plan import Finding as Finding
from ._plan import PlanReport as PlanReport
from ._plan import plan as plan
from ._plan import plan_async as plan_async
from ._plan import validate as validate
from ._spec import ImageSpec as ImageSpec
from ._verify import Check as Check
from ._verify import VerifyReport as VerifyReport
from ._verify import verify as verify
from ._verify import verify_async as verify_async

def run_command(arguments: Sequence[str]) -> int: ...
