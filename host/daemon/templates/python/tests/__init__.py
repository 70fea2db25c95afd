"""Tests of the handler in plain Python. The SDK lies in the project itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "vendor/pelton/guest-sdk/python"))
