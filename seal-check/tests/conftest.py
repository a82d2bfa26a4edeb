"""Makes the checker and the maker of images importable."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from images import memory  # noqa: E402


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for disks."""
    with tempfile.TemporaryDirectory(dir=memory()) as made:
        yield Path(made)
