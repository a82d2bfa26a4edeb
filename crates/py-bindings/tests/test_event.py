"""`Event` as an object: frozen, readable, comparable."""

from __future__ import annotations

import datetime
from pathlib import Path

import k3simage
import pytest


@pytest.fixture
def events(pve: k3simage.Emulator, folder: Path) -> list[k3simage.Event]:
    """All events of one build."""
    told: list[k3simage.Event] = []
    k3simage.build(folder, variables=pve.variables, on_event=told.append)
    return told


def test_attributes_and_fields_agree(events: list[k3simage.Event]) -> None:
    for event in events:
        fields = event.to_dict()
        assert (event.kind, event.version, event.build) == (fields["event"], 1, fields["build"])
        for name in ["step", "done", "total", "unit", "source", "stream", "ok", "seconds", "image", "node"]:
            assert getattr(event, name) == fields.get(name), (event, name)
        assert event.time.tzinfo is datetime.timezone.utc
        assert event.kind in str(event)
        assert repr(event).startswith("<k3simage.Event ")
    assert [event.time for event in events] == sorted(event.time for event in events)
    assert len({event.build for event in events}) == 1


def test_messages(events: list[k3simage.Event]) -> None:
    for event in events:
        if event.kind in {"log", "step_finished", "warning"}:
            assert event.message is not None, event
    assert events[-1].message is None, "a good end needs no words"


def test_frozen_and_comparable(events: list[k3simage.Event]) -> None:
    first, second = events[:2]
    with pytest.raises(AttributeError):
        first.kind = "other"  # type: ignore[misc]
    assert first == first
    assert first != second
    assert first != "build_started"
    assert len({first, second}) == 2
