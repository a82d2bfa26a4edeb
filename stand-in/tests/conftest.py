"""Makes the installer importable: it lies in a folder of its own, as it does on the medium."""

import sys
from pathlib import Path

STAND_IN = Path(__file__).parents[1]
sys.path.insert(0, str(STAND_IN / "installer"))
