from __future__ import annotations

from datetime import timedelta
from typing import Union


class Error(Exception):
    """Why an event was not handled. Its class decides what the group's failure policy does next.

    No other exception is taken for one of these, on purpose: whether trying again can help is the handler's to say. The
    reason may be anything that ``str`` can show, so another exception fits::

        try:
            amount = Decimal(text)
        except InvalidOperation as problem:
            raise Permanent(problem)
    """

    def __init__(self, reason: object) -> None:
        self.reason = str(reason)
        super().__init__(self.reason)


class Transient(Error):
    """A failure that may be gone the next time, as an unreachable service."""


class Permanent(Error):
    """A failure that will stay, as a payload that cannot be read."""


class RetryAfter(Error):
    """A failure that will stay for at least ``delay``, as a service that said when to come back.

    The delay is a number of seconds or a ``timedelta``, and is sent to the host in whole milliseconds.
    """

    def __init__(self, delay: Union[float, timedelta], reason: object) -> None:
        super().__init__(reason)
        self.delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)

    @property
    def delay_ms(self) -> int:
        return max(0, self.delay // timedelta(milliseconds=1))
