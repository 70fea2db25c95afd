"""A host for unit tests: runs handlers in plain Python, without WebAssembly::

    from pelton import NewEvent, mock
    from handler import greet

    with mock.host(config={"greeting": "Good morning"}) as host:
        greet(mock.event("visit", json={"name": "Ada"}, key="ada"))

    assert host.emitted == [("greetings", NewEvent("greeted", json={"text": "Good morning, Ada!"}, key="ada"))]

Each call of a handler is one call of the host: what it emitted and stored is kept if it returns, and thrown away if it
raises. The exception goes on to the test. `pelton test` runs the component itself, on the events of a file.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Generator, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

from . import _host, _json, _limits
from ._event import ABSENT, Event, NewEvent
from .log import ToHost


class Emitted(NamedTuple):
    """An event, and the stream it went to."""

    stream: str
    event: NewEvent


class Line(NamedTuple):
    """A log line."""

    level: _host.Level
    context: str
    message: str


@dataclass
class _Effects:
    """All that a failed call must not leave behind."""

    emitted: List[Emitted]
    state: Dict[str, bytes]
    checkpoints: int

    def copy(self) -> _Effects:
        return _Effects(list(self.emitted), dict(self.state), self.checkpoints)


class Host:
    """What a handler was given and what it did, from within ``with mock.host() as host``."""

    def __init__(self, config: Mapping[str, str], state: Mapping[str, bytes], allow_emit: Optional[Iterable[str]]) -> None:
        self.config = dict(config)
        self.logs: List[Line] = []
        """All lines: they stay, whatever comes of the call."""
        self.progress = 0
        """How many events of the last batch were told as handled."""
        self._allow_emit = None if allow_emit is None else list(allow_emit)
        self._effects = _Effects([], dict(state), 0)
        self._kept = self._effects.copy()
        self._batch = 0

    @property
    def emitted(self) -> List[Emitted]:
        return self._effects.emitted

    @property
    def state(self) -> Dict[str, bytes]:
        return self._effects.state

    @property
    def checkpoints(self) -> int:
        """How often a commit was asked for, in calls that returned."""
        return self._effects.checkpoints

    def state_json(self, key: str) -> Any:
        """The value of ``key`` as plain data, None if there is none."""
        return _json.parse(self.state[key]) if key in self.state else None

    # What the SDK asks for.

    def emit(self, stream: str, event: NewEvent) -> Optional[str]:
        if self._allow_emit is not None and stream not in self._allow_emit:
            return f"may not emit to stream {_json.quoted(stream)}: allow_emit names {self._allow_emit}"
        refusal = _limits.of_emit(event)
        if refusal is None:
            self.emitted.append(Emitted(stream, event))
        return refusal

    def state_get(self, key: str) -> Optional[bytes]:
        return self.state.get(key)

    def state_set(self, key: str, value: bytes) -> Optional[str]:
        refusal = _limits.of_state_key(key)
        if refusal is None:
            self.state[key] = value
        return refusal

    def state_delete(self, key: str) -> None:
        self.state.pop(key, None)

    def config_get(self, key: str) -> Optional[str]:
        return self.config.get(key)

    def log(self, level: _host.Level, context: str, message: str) -> None:
        self.logs.append(Line(level, context, message))

    def commit(self) -> None:
        self._effects.checkpoints += 1

    def handled(self, count: int) -> None:
        count = min(count, self._batch)
        if count < self.progress:
            return  # fewer than before is no news
        self.progress = count
        if count > 0:
            self._kept = self._effects.copy()

    # The bounds of a call.

    def _begin(self, batch: int) -> None:
        self.progress = 0
        self._batch = batch
        self._kept = self._effects.copy()

    def _throw_away(self) -> None:
        self._effects = self._kept


@contextmanager
def host(
    *,
    config: Optional[Mapping[str, str]] = None,
    state: Optional[Mapping[str, bytes]] = None,
    allow_emit: Optional[Iterable[str]] = None,
) -> Generator[Host, None, None]:
    """Serves handlers with this configuration and state until the block ends. Any stream may be emitted to unless
    ``allow_emit`` names some."""
    served = Host(config or {}, state or {}, allow_emit)
    before = _host.use(served)
    root, lines = logging.getLogger(), ToHost()
    level = root.level
    root.addHandler(lines)
    root.setLevel(1)
    try:
        yield served
    finally:
        root.setLevel(level)
        root.removeHandler(lines)
        _host.use(before)


@contextmanager
def call(batch: int) -> Generator[None, None, None]:
    """One call of a handler, with so many events. The decorators see to it."""
    served = _host.current()
    assert isinstance(served, Host), "only a component has another host"
    served._begin(batch)
    try:
        yield
    except BaseException:
        served._throw_away()
        raise


def event(
    kind: str = "test",
    payload: Optional[bytes] = None,
    *,
    json: Any = ABSENT,
    text: Optional[str] = None,
    id: str = "event-0",
    key: Optional[str] = None,
    headers: Union[Mapping[str, str], Iterable[Tuple[str, str]]] = (),
    stream: str = "test",
    partition: int = 0,
    offset: int = 0,
    time_ms: int = 0,
    attempt: int = 1,
) -> Event:
    """An event to call a handler with. The payload is given as bytes, as ``json`` or as ``text``."""
    given = NewEvent(kind, payload, json=json, text=text, key=key, headers=headers)
    return Event(id, stream, partition, offset, key, kind, time_ms, given.headers, given.payload, attempt)
