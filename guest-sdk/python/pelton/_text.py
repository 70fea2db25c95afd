"""What may be sent to the host. Anything else would bring the component down in the middle of a call to the host, with words
that name neither the handler nor its mistake."""

from __future__ import annotations


def check(what: str, text: object) -> None:
    """Raises unless ``text`` is one, in Unicode: half a surrogate pair has no form in UTF-8."""
    if not isinstance(text, str):
        raise TypeError(f"{what}: expected str, got {type(text).__name__}")
    if not text.isascii():
        text.encode()


def as_bytes(what: str, value: object, expected: str = "bytes") -> bytes:
    """``value`` as bytes, if it is made of them. ``bytes`` itself takes a number too, for as many zeros."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{what}: expected {expected}, got {type(value).__name__}")


def readable(text: str) -> str:
    """``text`` as it can be sent in any case. For messages, which are worth more in part than not at all."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
