"""Makes ``random`` follow from the event in hand, as the host's random numbers do.

Python seeds its generator once in an instance and goes on from there, so that what an event gets would depend on those
before it. With real randomness granted, the seeds are real too.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable


def prepare() -> None:
    """Called when the handler's modules have been imported, so it is known whether one of them makes use of ``random``."""
    global turn
    is_used = "random" in sys.modules
    import random

    genuine = random.seed

    def skip_once(*_: Any) -> None:
        random.seed = genuine

    # The runtime takes this function now, and calls it at the first event of an instance, for a seed of 2,500 bytes. That
    # would shift all that the event draws, against the same event in an instance that is not new.
    random.seed = skip_once  # type: ignore[assignment]

    if is_used:

        def reseed() -> None:
            genuine(int.from_bytes(os.urandom(16), "little"))

        turn = reseed


def _nothing() -> None:
    pass


turn: Callable[[], None] = _nothing
"""Another event is in hand."""
