from __future__ import annotations

from . import _host, _text
from ._errors import Permanent
from ._event import NewEvent


def emit(stream: str, event: NewEvent) -> None:
    """Emits an event to a stream. It becomes visible when, and only when, the position of the event in hand is committed.

    Raises ``Permanent`` with the host's reason: a stream that the handler's ``allow.emit`` does not name, a payload over the
    stream's limit, a NUL character in a text. Nothing was emitted then, and the call may go on.
    """
    _text.check("stream", stream)
    _text.check("kind of new event", event.kind)
    if event.key is not None:
        _text.check("key of new event", event.key)
    if event.id is not None:
        _text.check("id of new event", event.id)
    # Made anew, which checks what was assigned since: and what is emitted is the host's own.
    payload = _text.as_bytes("payload of new event", event.payload)
    own = NewEvent(event.kind, payload, key=event.key, id=event.id, headers=event.headers)
    refusal = _host.current().emit(stream, own)
    if refusal is not None:
        raise Permanent(refusal)
