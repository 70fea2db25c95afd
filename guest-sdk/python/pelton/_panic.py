"""What is told of a mistake in the program: what happened and where."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType
from typing import List, Optional

FRAMES_MAX = 4
"""Of the handler's own code, from the innermost on."""

_SDK = os.path.dirname(__file__)
_LIBRARY = os.path.dirname(traceback.__file__)


def told(mistake: BaseException) -> str:
    """As ``KeyError: 'price' (at handler.py:12 in total, handler.py:7 in handle)``."""
    lines = [_named(mistake)]
    places = _places(mistake.__traceback__)
    if places:
        lines.append(f"(at {', '.join(places)})")
    cause = mistake.__cause__ or (None if mistake.__suppress_context__ else mistake.__context__)
    if cause is not None:
        lines.append(f"from {_named(cause)}")
    return " ".join(lines)


def _named(mistake: BaseException) -> str:
    name = type(mistake).__name__
    try:
        message = str(mistake)
    except Exception:  # the mistake may lie in how it is told
        message = "its message cannot be told"
    return f"{name}: {message}" if message else name


def _places(trace: Optional[TracebackType]) -> List[str]:
    places: List[str] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith((_SDK, _LIBRARY, "<frozen")):
            places.insert(0, f"{_within_project(code.co_filename)}:{trace.tb_lineno} in {code.co_name}")
        trace = trace.tb_next
    return places[:FRAMES_MAX]


def _within_project(path: str) -> str:
    """Leaves out the folder that modules are imported from: where it was while the component was built says nothing."""
    folders = [folder for folder in sys.path if folder and path.startswith(folder.rstrip("/") + "/")]
    return path[len(max(folders, key=len).rstrip("/")) + 1 :] if folders else path
