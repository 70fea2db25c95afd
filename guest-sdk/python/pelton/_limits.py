"""What the host refuses, in its words. For ``mock``: inside a component the host says it itself."""

from __future__ import annotations

from typing import Optional

from ._event import NewEvent

_STATE_KEY_BYTES_MAX = 1024
_NAME_BYTES_MAX = 1024
_HEADERS_BYTES_MAX = 64 * 1024
_PAYLOAD_BYTES_MAX = 1024 * 1024
"""What ``payload_max`` of a stream is if nothing else is said."""


def of_state_key(key: str) -> Optional[str]:
    """The reason, if the key is refused."""
    found = len(key.encode())
    if not 1 <= found <= _STATE_KEY_BYTES_MAX:
        return f"state key has {found} bytes; expected 1 to {_STATE_KEY_BYTES_MAX}"
    return _of_text("state key", key, _STATE_KEY_BYTES_MAX)


def of_emit(event: NewEvent) -> Optional[str]:
    """The reason, if the event is refused."""
    if event.id == "":
        return f"id is empty; expected 1 to {_NAME_BYTES_MAX} bytes"
    headers = [text for pair in event.headers for text in pair]
    refusals = [
        _of_text("id", event.id or "", _NAME_BYTES_MAX),
        _of_text("key", event.key or "", _NAME_BYTES_MAX),
        _of_text("kind", event.kind, _NAME_BYTES_MAX),
        *(_of_text("headers", text, _HEADERS_BYTES_MAX) for text in headers),
        _of_bytes("headers", sum(len(text.encode()) for text in headers), _HEADERS_BYTES_MAX),
    ]
    found = len(event.payload)
    if found > _PAYLOAD_BYTES_MAX:
        refusals.append(
            f"payload has {found} bytes, over the stream's payload_max of {_PAYLOAD_BYTES_MAX}; send less, or raise payload_max"
        )
    return next((refusal for refusal in refusals if refusal is not None), None)


def _of_text(field: str, text: str, limit: int) -> Optional[str]:
    if "\0" in text:
        return f"{field} holds a NUL character, which no store can keep as text; remove it"
    return _of_bytes(field, len(text.encode()), limit)


def _of_bytes(field: str, found: int, limit: int) -> Optional[str]:
    return f"{field} has {found} bytes; expected at most {limit}" if found > limit else None
