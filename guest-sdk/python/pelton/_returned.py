"""What a handler returns is let go, unless it says that the event is not handled."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator

from ._errors import Error


def check(returned: object) -> None:
    """Raises an error of the SDK that is returned: it was to be raised. A coroutine, a generator and the like have something
    left to do, and nobody does it, which is a mistake."""
    # A list is what `[… for event in events]` makes.
    for value in returned if isinstance(returned, list) else (returned,):
        if isinstance(value, Error):
            raise value
        if inspect.isawaitable(value) or isinstance(value, (Iterator, AsyncIterator)):
            if inspect.iscoroutine(value):
                value.close()  # or Python would complain once more that it was never awaited
            raise TypeError(
                f"the handler returned a value of type {type(value).__name__}, and nothing awaits it or steps through it; a "
                "handler is a plain function: leave out async, await and yield, and step through what is lazy with a loop"
            )
