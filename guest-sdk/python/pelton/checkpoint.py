"""Commits at the handler's own word, for groups with ``commit = "manual"``."""

from __future__ import annotations

from . import _host


def commit() -> None:
    """Lets everything up to and including the event in hand be committed once the handler returned. Without effect under any
    other commit strategy.

    For a ``@handler`` only: the world of a ``@batch_handler`` does not have it.
    """
    _host.current().commit()
