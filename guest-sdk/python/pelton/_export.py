"""Makes a function the component's handler, and, in plain Python, one that a test can call."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Callable, List, TypeVar

from . import _returned
from ._event import Event

try:
    # Generated while a component is built. There is none in plain Python.
    import wit_world as _  # noqa: F401
except ModuleNotFoundError:
    IN_COMPONENT = False
else:
    IN_COMPONENT = True

A = TypeVar("A")

_NEVER_RUN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


def handler(function: Callable[[Event], None]) -> Callable[[Event], None]:
    """Makes ``function`` the handler: it is called with one event at a time, and the host knows exactly which one failed. The
    place to start. Stands in the project's entry module, once."""
    return _export(function, "Handler")


def batch_handler(function: Callable[[List[Event]], None]) -> Callable[[List[Event]], None]:
    """Makes ``function`` the handler of whole batches, for bulk work: it is called with the next events of one partition, in
    order and at least one. ``progress.handled`` says how far it got. An error is the failure of the first event that was not
    told as handled. Stands in the project's entry module, once."""
    return _export(function, "BatchHandler")


def _export(function: Callable[[A], None], interface: str) -> Callable[[A], None]:
    if any(is_kind(function) for is_kind in _NEVER_RUN):
        raise TypeError(f"{function.__name__}: a handler is a plain function; one with async or yield would never run")
    if not IN_COMPONENT:
        return _callable_in_tests(function)

    from . import _component

    # A component exports what its entry module has under the name of the interface.
    module = vars(sys.modules[function.__module__])
    if interface in module:
        raise TypeError(f"{function.__name__}: the module has a {interface} already; it exports one")
    module[interface] = _component.exporting(function)
    return function


def _callable_in_tests(function: Callable[[A], None]) -> Callable[[A], None]:
    from . import mock

    @functools.wraps(function)
    def call(argument: A) -> None:
        with mock.call(1 if isinstance(argument, Event) else len(argument)):  # type: ignore[arg-type]
            _returned.check(function(argument))  # type: ignore[func-returns-value]

    return call
