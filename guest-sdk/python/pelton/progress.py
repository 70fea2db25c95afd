"""How far a batch handler got."""

from __future__ import annotations

from . import _host


def handled(count: int) -> None:
    """Says that the first ``count`` events of this batch are handled, and that the effects made so far are theirs.

    They are kept even if the call fails or breaks down later; the event after them is the one that failed. A handler that
    never says so is taken as a whole, and a failing batch is split until the event is found.

    For a ``@batch_handler`` only: the world of a ``@handler`` does not have it.
    """
    if count < 0:
        raise ValueError(f"{count} events cannot be handled")
    _host.current().handled(int(count))
