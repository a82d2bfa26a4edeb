"""Makes the checker and the maker of images importable."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: the makers of file systems wait for the disk after each step."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)
