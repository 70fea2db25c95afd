"""Write event handlers for Pelton in Python.

A handler is a function of one event (``@handler``, the place to start) or of many (``@batch_handler``, for bulk work)::

    from pelton import Event, NewEvent, emit, handler

    @handler
    def greet(event: Event) -> None:
        visit = event.json(Visit)
        emit("greetings", NewEvent("greeted", json={"text": f"Hello, {visit.name}!"}, key=event.key))

What a handler emits and stores is committed together with the position of the event, or not at all: raising one of the
errors ``Transient``, ``Permanent`` and ``RetryAfter`` throws it away, and the group's failure policy decides what happens to
the event. Any other exception is a mistake in the program: it is reported with its place and ends the instance.

``pelton.mock`` runs handlers in plain Python, for unit tests.
"""

from . import checkpoint, config, log, progress, state
from ._errors import Error, Permanent, RetryAfter, Transient
from ._event import Event, NewEvent
from ._export import batch_handler, handler
from ._outbox import emit

__all__ = [
    "Error",
    "Event",
    "NewEvent",
    "Permanent",
    "RetryAfter",
    "Transient",
    "batch_handler",
    "checkpoint",
    "config",
    "emit",
    "handler",
    "log",
    "progress",
    "state",
]
