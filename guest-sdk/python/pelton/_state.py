from __future__ import annotations

from typing import Any, Optional, Type, TypeVar, Union, overload

from . import _host, _json, _text
from ._errors import Permanent

T = TypeVar("T")


def get(key: str) -> Optional[bytes]:
    """The value of ``key``, if there is one."""
    _text.check("state key", key)
    return _host.current().state_get(key)


def set(key: str, value: Union[bytes, str]) -> None:
    """Sets the value of ``key``.

    Raises ``Permanent`` with the host's reason if the key is empty, longer than 1024 bytes, or holds a NUL character.
    """
    _text.check("state key", key)
    document = value.encode() if isinstance(value, str) else _text.as_bytes("state value", value, "bytes or str")
    refusal = _host.current().state_set(key, document)
    if refusal is not None:
        raise Permanent(refusal)


def delete(key: str) -> None:
    """Removes ``key``; nothing happens if there is none."""
    _text.check("state key", key)
    _host.current().state_delete(key)


@overload
def get_json(key: str) -> Any: ...
@overload
def get_json(key: str, shape: Type[T]) -> Optional[T]: ...
@overload
def get_json(key: str, shape: object) -> Any: ...


def get_json(key: str, shape: object = Any) -> Any:
    """The value of ``key``, read as JSON, if there is one: plain data, or a value of the type ``shape`` (see ``Event.json``).

    Raises ``Permanent``, which names the key and the problem, if the value is not JSON or does not fit.
    """
    value = get(key)
    if value is None:
        return None
    try:
        return _json.read(value, shape)
    except _json.Unfit as problem:
        raise Permanent(f"state {_json.quoted(key)}: {problem}") from None


def set_json(key: str, value: object) -> None:
    """Sets the value of ``key`` as JSON. Raises ``Permanent`` as ``set`` does, and if ``value`` has no JSON form."""
    try:
        document = _json.write(value)
    except _json.Unfit as problem:
        raise Permanent(f"state {_json.quoted(key)}: {problem}") from None
    set(key, document)
