"""The SDK's side inside a component: the imports and the export of the contract.

Imported only there, and only while the component is built: what is there then is kept as it is, and every instance starts from
that picture.
"""

from __future__ import annotations

import gc
import logging
import os
from typing import Any, Callable, Dict, List, NoReturn, Optional, Type, TypeVar

from componentize_py_types import Err
from wit_world.imports import outbox, state, store, types
from wit_world.imports import logging as console

from . import _ahead as _ahead
from . import _chance, _host, _panic, _returned, _text
from ._errors import Error, Permanent, RetryAfter, Transient
from ._event import Event, NewEvent
from .log import ToHost

# Each world has one of these.
try:
    from wit_world.imports import checkpoint
except ImportError:
    checkpoint = None  # type: ignore[assignment]
try:
    from wit_world.imports import progress
except ImportError:
    progress = None  # type: ignore[assignment]

A = TypeVar("A")

_LEVELS: Dict[_host.Level, console.Level] = {
    "trace": console.Level.TRACE,
    "debug": console.Level.DEBUG,
    "info": console.Level.INFO,
    "warn": console.Level.WARN,
    "error": console.Level.ERROR,
    "critical": console.Level.CRITICAL,
}


class Component:
    """The host, through the component's imports."""

    def emit(self, stream: str, event: NewEvent) -> Optional[str]:
        try:
            outbox.emit(stream, outbox.NewEvent(event.id, event.key, event.kind, event.headers, event.payload))
        except Err as refused:
            return str(refused.value)
        return None

    def state_get(self, key: str) -> Optional[bytes]:
        return state.get(key)

    def state_set(self, key: str, value: bytes) -> Optional[str]:
        try:
            state.set(key, value)
        except Err as refused:
            return str(refused.value)
        return None

    def state_delete(self, key: str) -> None:
        state.delete(key)

    def config_get(self, key: str) -> Optional[str]:
        try:
            return store.get(key)
        except Err as failed:
            raise Transient(f'config "{key}": {failed.value.value}') from None

    def log(self, level: _host.Level, context: str, message: str) -> None:
        console.log(_LEVELS[level], _text.readable(context), _text.readable(message))

    def commit(self) -> None:
        if checkpoint is None:
            raise RuntimeError("checkpoint is for a handler of one event; a batch handler has progress")
        checkpoint.commit()

    def handled(self, count: int) -> None:
        if progress is None:
            raise RuntimeError("progress is for a batch handler; a handler of one event has checkpoint")
        progress.handled(count)
        _chance.turn()


def exporting(function: Callable[[Any], None]) -> Type[object]:
    """The class that exports ``function``. It is made once, at the end of the build."""

    class Exported:
        def __init__(self) -> None:
            _prepare()

        def handle(self, event: types.Event) -> None:
            _run(function, _event(event))

        def handle_batch(self, events: List[types.Event]) -> None:
            _run(function, [_event(event) for event in events])

    return Exported


def _event(event: types.Event) -> Event:
    return Event(
        event.id,
        event.stream,
        event.partition,
        event.offset,
        event.key,
        event.kind,
        event.time,
        event.headers,
        event.payload,
        event.attempt,
    )


def _run(function: Callable[[A], None], argument: A) -> None:
    _chance.turn()
    try:
        _returned.check(function(argument))  # type: ignore[func-returns-value]
    except Error as error:
        raise Err(_error(error)) from None
    except BaseException as mistake:
        _break_down(mistake)


def _error(error: Error) -> types.Error:
    reason = _text.readable(error.reason)
    if isinstance(error, RetryAfter):
        return types.Error_RetryAfter((error.delay_ms, reason))
    if isinstance(error, Permanent):
        return types.Error_Permanent(reason)
    return types.Error_Transient(reason)


def _break_down(mistake: BaseException) -> NoReturn:
    """Ends the instance. The host takes the line of level critical and context panic for the reason."""
    _host.current().log("critical", "panic", _panic.told(mistake))
    os.abort()


def _prepare() -> None:
    """The last that is done while the component is built, after the handler's own modules were imported."""
    _host.use(Component())
    root = logging.getLogger()
    if not root.handlers:
        # Which levels are worth keeping is the host's to say.
        root.addHandler(ToHost())
        root.setLevel(logging.NOTSET + 1)

    _chance.prepare()

    # What is there now stays for good: no collection has to look at it again.
    gc.collect()
    gc.freeze()

