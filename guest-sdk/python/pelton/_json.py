"""JSON in and out, with whole sentences for what is wrong with it."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import accumulate
from math import isinf
from typing import Any, NoReturn

from . import _shape
from ._shape import Unfit

__all__ = ["Unfit", "fit", "parse", "quoted", "read", "write"]

DEPTH_MAX = 500
"""Of objects and lists within each other."""

_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in _STEP)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def quoted(text: str) -> str:
    """A name in a message, told apart from the message whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


def read(document: bytes, shape: object = Any) -> Any:
    """What ``document`` holds, as a value of the type ``shape``. Raises ``Unfit``."""
    return fit(parse(document), shape)


def fit(data: Any, shape: object) -> Any:
    """The value of type ``shape`` that ``data`` stands for. Raises ``Unfit``."""
    try:
        return _shape.fit(data, shape)
    except RecursionError:
        # A type takes more of the stack than plain data does: how much, is up to the type.
        raise Unfit("nested too deeply for its type") from None


def parse(document: bytes) -> Any:
    """What ``document`` holds, as plain data. Raises ``Unfit``."""
    if _is_too_deep(document):
        raise Unfit(f"not JSON that can be read: nested more than {DEPTH_MAX} deep")
    try:
        # Decoded here because `loads` guesses at the encoding of bytes, and takes UTF-16 too.
        value = _decoder.decode(document.decode())
        if _SURROGATE.search(document):
            _encoder.encode(value).encode()
        return value
    except UnicodeDecodeError as problem:
        raise Unfit(f"not UTF-8: {problem}") from None
    except UnicodeEncodeError:
        raise Unfit("a text in it has half a surrogate pair, which is no character") from None
    except ValueError as problem:
        raise Unfit(f"not JSON: {problem}") from None


def write(value: object) -> bytes:
    """``value`` as a document. Raises ``Unfit`` if it has no JSON form."""
    try:
        document = _encoder.encode(value).encode()
    except RecursionError:
        raise Unfit("no JSON form: nested too deeply") from None
    except (TypeError, ValueError) as problem:
        raise Unfit(f"no JSON form: {problem}") from None
    if _is_too_deep(document):
        raise Unfit(f"no JSON form that could be read again: nested more than {DEPTH_MAX} deep")
    return document


def _is_too_deep(document: bytes) -> bool:
    """Whether it is nested so deeply that reading it would use up the stack, which no `except` could catch."""
    if document.count(b"[") + document.count(b"{") <= DEPTH_MAX:
        return False
    # At the speed of C: texts go, then all but the brackets, and how deep each bracket lies is the sum of those before it.
    brackets = _TEXT.sub(b"", document).translate(None, delete=_NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > DEPTH_MAX


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _number(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise Unfit(f"a number in it is too large: {text if len(text) <= 40 else text[:40] + '…'}")
    return number


def _plain(value: Any) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {_shape.name_in_json(field): getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is no JSON type")


_decoder = json.JSONDecoder(parse_constant=_no_number, parse_float=_number)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
