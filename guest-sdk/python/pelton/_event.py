from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar, Union, overload

from . import _json, _text
from ._errors import Permanent

T = TypeVar("T")
Headers = List[Tuple[str, str]]


@dataclass
class Event:
    """One event as it stands in its stream."""

    id: str
    """The same at every delivery: the idempotency key for calls outside."""
    stream: str
    """The stream it was read from."""
    partition: int
    """Its partition, which with ``offset`` is its place in the stream."""
    offset: int
    """Its place in the partition: dense, from 0, never reused."""
    key: Optional[str]
    """Events of one key arrive in order."""
    kind: str
    """What happened, as ``order.placed``."""
    time_ms: int
    """When it was appended, in milliseconds since the Unix epoch, UTC."""
    headers: Headers
    """In the order they were appended in. A name may occur more than once."""
    payload: bytes
    """The payload as it was appended, usually JSON."""
    attempt: int
    """1 at the first delivery; one more for each attempt that failed."""

    def header(self, name: str) -> Optional[str]:
        """The value of the first header of this name."""
        return next((value for header, value in self.headers if header == name), None)

    def text(self) -> str:
        """The payload as text. Raises ``Permanent`` if it is not UTF-8."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as problem:
            raise Permanent(f"payload of kind {_json.quoted(self.kind)}: not UTF-8: {problem}") from None

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, shape: Type[T]) -> T: ...
    @overload
    def json(self, shape: object) -> Any: ...

    def json(self, shape: object = Any) -> Any:
        """The payload, read as JSON: plain data, or a value of the type ``shape``.

        A type is a dataclass, a ``TypedDict``, or what ``typing`` makes of them and of ``str``, ``int``, ``float``, ``bool``,
        ``list``, ``dict``, ``tuple``, ``Optional``, ``Union``, ``Literal`` and enumerations. Fields that it does not know are
        ignored.

        Raises ``Permanent``, with the place in the payload, if it is not JSON or does not fit: no other attempt would read
        it differently.
        """
        try:
            return _json.read(self.payload, shape)
        except _json.Unfit as problem:
            raise Permanent(f"payload of kind {_json.quoted(self.kind)}: {problem}") from None


ABSENT = object()
"""Tells "no JSON was given" from the JSON value null."""


@dataclass(init=False)
class NewEvent:
    """An event to emit::

        NewEvent("invoice.drafted", json=invoice, key=order.customer, headers={"currency": "EUR"})

    The payload is given as bytes, as ``json`` or as ``text``, and is empty if none of them is. It is bounded by the
    ``payload_max`` of the stream it goes to.
    """

    kind: str
    """What happened, as ``invoice.drafted``."""
    payload: bytes
    key: Optional[str]
    """Events of one key keep their order. Without a key the id decides the partition."""
    id: Optional[str]
    """Unique within the handler's group: a second event of the same id is not appended again. The host makes one from the
    place of the event in hand if there is none, which suits all but effects that several events share."""
    headers: Headers

    def __init__(
        self,
        kind: str,
        payload: Optional[bytes] = None,
        *,
        json: Any = ABSENT,
        text: Optional[str] = None,
        key: Optional[str] = None,
        id: Optional[str] = None,
        headers: Union[Mapping[str, str], Iterable[Tuple[str, str]]] = (),
    ) -> None:
        given = (payload is not None) + (json is not ABSENT) + (text is not None)
        if given > 1:
            raise TypeError("a new event has one payload: give bytes, json or text")
        if json is not ABSENT:
            try:
                payload = _json.write(json)
            except _json.Unfit as problem:
                raise Permanent(f"payload of new event of kind {_json.quoted(kind)}: {problem}") from None
        elif text is not None:
            payload = text.encode()

        pairs = headers.items() if isinstance(headers, Mapping) else headers
        self.kind = kind
        self.payload = b"" if payload is None else _text.as_bytes("payload of new event", payload)
        self.key = key
        self.id = id
        self.headers = [(name, value) for name, value in pairs]
        for name, value in self.headers:
            _text.check("name of a header of new event", name)
            _text.check(f'header "{name}" of new event', value)
