"""Every exception of the package; the native module raises them by name.

They are Python classes because the stable ABI of Python 3.10 cannot add fields to a native exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._k3simage import Leftover

__all__ = [
    "AgentError",
    "AlreadyExistsError",
    "AuthError",
    "BuildError",
    "ConflictError",
    "ConnectError",
    "EmulatorError",
    "Error",
    "FileError",
    "InvalidInputError",
    "NotFoundError",
    "ParameterError",
    "PermissionDeniedError",
    "PlanError",
    "ServerError",
    "StateError",
    "TaskError",
    "TlsError",
    "TransportError",
    "WaitTimeoutError",
]


class Error(Exception):
    """The base of all exceptions of this package.

    The text is one line about what was attempted and why it failed; what lies beneath is in ``__cause__``.

    Attributes:
        status: The HTTP status of Proxmox VE's answer.
        upid: The task that failed.
        step: The step of the build that failed.
        log_tail: The last lines of the task's or script's log; the cause is often there.
        help: What a person can do about it.
        params: What Proxmox VE said about single parameters.
        path: Where a privilege is missing in the access control list.
        privileges: The privileges of which one would do.
        findings: All problems that were found, one line each.
        console: The last lines of the guest's serial console when a build failed.
        screen: A picture of the guest's screen (PNG) at that moment; it stands beside the ``manifest`` or where
            ``screen`` said.
        kept: What stays on the cluster on purpose: the VM that ``on_error = "keep"`` leaves, or a complete image.
        left: What could not be removed, and why.
        leftovers: All that ``gc`` found, each with what was removed of it, when something could not be removed.
    """

    status: int | None = None
    upid: str | None = None
    step: str | None = None
    log_tail: Sequence[str] = ()
    help: str | None = None
    params: Mapping[str, str] = {}
    path: str | None = None
    privileges: Sequence[str] = ()
    findings: Sequence[str] = ()
    console: Sequence[str] = ()
    screen: Path | None = None
    kept: Sequence[str] = ()
    left: Sequence[str] = ()
    leftovers: Sequence[Leftover] = ()


class InvalidInputError(Error, ValueError):
    """A value that cannot be: a variable, a field of the spec, the kickstart, a folder. Nothing was created."""


class PlanError(Error):
    """The cluster cannot carry the build; ``findings`` names each reason. Nothing was created."""


class BuildError(Error):
    """A step of a build failed; ``step`` names it and ``__cause__`` says why. What was created is undone."""


class AuthError(Error):
    """Who the caller is was not accepted."""


class PermissionDeniedError(Error):
    """A privilege is missing: ``path`` and ``privileges`` say which where Proxmox VE does."""


class NotFoundError(Error):
    """What was named does not exist."""


class AlreadyExistsError(Error):
    """What was to be created exists."""


class ParameterError(Error):
    """Proxmox VE refused a parameter; ``params`` holds its words."""


class ConflictError(Error):
    """Someone else holds a lock or has changed it in the meantime."""


class StateError(Error):
    """It is not in the state that the request needs, for example not running."""


class AgentError(Error):
    """The guest agent is not there or refused."""


class ServerError(Error):
    """Proxmox VE failed in another way, or knows no such call."""


class TaskError(Error):
    """A task of Proxmox VE failed: ``upid`` and ``log_tail``."""


class ConnectError(Error):
    """No connection; the request was surely not sent."""


class TlsError(ConnectError):
    """The certificate is not trusted or not the pinned one; nothing was sent."""


class TransportError(Error):
    """The connection broke or the answer was unreadable; the request may have been carried out."""


class EmulatorError(Error):
    """The emulator could not start or take what it was given."""


class WaitTimeoutError(Error, TimeoutError):
    """Something took longer than it may."""


class FileError(Error):
    """A local file could not be read or written; ``__cause__`` is the ``OSError``'s text."""


# They are the package's, wherever they are written: a traceback says k3simage.TaskError.
for _name in __all__:
    globals()[_name].__module__ = "k3simage"
