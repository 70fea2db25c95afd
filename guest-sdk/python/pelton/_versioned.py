from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Generic, Optional, Type, TypeVar, cast

from . import _json, _state
from ._errors import Permanent, Transient

T = TypeVar("T")
Step = TypeVar("Step", bound=Callable[[Any], Any])

BEFORE_ENVELOPES = 0
"""The version of a value that stands in no envelope."""

VERSION_MAX = 2**32 - 1
"""In every language."""


@dataclass
class Envelope:
    """How a value stands in the state, in every language."""

    version: int
    readable_from: int
    value: Any


class Versioned(Generic[T]):
    """Values of one format, made by ``versioned``."""

    def __init__(self, shape: Type[T], version: int, readable_from: int) -> None:
        if not _are_versions(version, readable_from):
            raise ValueError(
                f"versioned: expected whole numbers, 1 <= readable_from ({readable_from!r}) <= version ({version!r}) "
                f"<= {VERSION_MAX}"
            )
        self._shape = shape
        self._version = version
        self._readable_from = readable_from
        self._steps: Dict[int, Callable[[Any], Any]] = {}

    def upgrade(self, version: int) -> Callable[[Step], Step]:
        """Declares the step that makes plain data of the format ``version`` into that of the next one. A step from 0 takes
        values from before there was an envelope; without one they are refused.

        ``Error``s that the step raises are the handler's; any other exception is a mistake in the program."""
        if type(version) is not int or not BEFORE_ENVELOPES <= version < self._version:
            raise ValueError(f"versioned: a step from version {version} does not lead to version {self._version}")

        def declare(step: Step) -> Step:
            self._steps[version] = step
            return step

        return declare

    def get(self, key: str) -> Optional[T]:
        """The value of ``key``, in the format of this code, if there is one.

        Raises ``Transient`` if newer code wrote what this code cannot read, so that the event waits and nothing is lost, and
        ``Permanent`` if it is no such value, or if a step to this code's format is not declared.
        """
        document = _state.get(key)
        if document is None:
            return None
        try:
            envelope = self._open(_json.parse(document))
            if self._version < envelope.readable_from:
                raise Transient(
                    f"state {_json.quoted(key)}: written by version {envelope.version} of its format, which code before "
                    f"version {envelope.readable_from} cannot read; this code has version {self._version}: go forward to the newer "
                    "handler, or reset the state"
                )
            return cast(T, _json.fit(self._brought_up(envelope), self._shape))
        except _json.Unfit as problem:
            raise Permanent(f"state {_json.quoted(key)}: {problem}") from None

    def set(self, key: str, value: T) -> None:
        """Sets the value of ``key``, in the format of this code. Raises ``Permanent`` as ``set_json`` does."""
        _state.set_json(key, Envelope(self._version, self._readable_from, value))

    def _open(self, data: Any) -> Envelope:
        envelope = _envelope(data)
        if envelope is not None:
            return envelope
        if BEFORE_ENVELOPES in self._steps:
            return Envelope(BEFORE_ENVELOPES, BEFORE_ENVELOPES, data)
        raise _json.Unfit("not a versioned value, and no step leads from version 0")

    def _brought_up(self, envelope: Envelope) -> Any:
        value = envelope.value
        for version in range(envelope.version, self._version):
            step = self._steps.get(version)
            if step is None:
                raise _json.Unfit(
                    f"written by version {envelope.version} of its format, and no step leads to version {version + 1}"
                )
            value = step(value)
        return value


def _envelope(data: Any) -> Optional[Envelope]:
    """What keeps to the rule of ``docs/state.md``, in the SDKs of all languages."""
    if type(data) is not dict or "value" not in data:
        return None
    version, readable_from = _whole(data.get("version")), _whole(data.get("readable_from"))
    return Envelope(version, readable_from, data["value"]) if _are_versions(version, readable_from) else None


def _whole(number: Any) -> Any:
    """In JSON there is one kind of number: 1.0 is 1."""
    return int(number) if type(number) is float and number.is_integer() else number


def _are_versions(version: Any, readable_from: Any) -> bool:
    # In Python `True == 1`, in JSON it is not.
    return type(version) is int and type(readable_from) is int and 1 <= readable_from <= version <= VERSION_MAX


def versioned(shape: Type[T], *, version: int, readable_from: Optional[int] = None) -> Versioned[T]:
    """The format of values that outlive versions of the handler: a rollback makes old code read what new code wrote.

    ``version`` is what this code writes, and ``readable_from`` the oldest version of code that can still read it: its own,
    unless told otherwise. Older formats are brought up step by step::

        profiles = state.versioned(Profile, version=2, readable_from=1)

        @profiles.upgrade(1)
        def with_unit(old):
            return {**old, "unit": "pieces"}

        profile = profiles.get("profile") or Profile(count=0, unit="pieces")
        profile.count += 1
        profiles.set("profile", profile)

    ``docs/state.md`` of Pelton tells how to change a format without losing the way back.
    """
    return Versioned(shape, version, version if readable_from is None else readable_from)
