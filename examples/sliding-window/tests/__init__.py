"""Tests of the handler in plain Python: python3 -m unittest, in the example's folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "guest-sdk/python"))
