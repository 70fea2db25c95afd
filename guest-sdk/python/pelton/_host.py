"""What the SDK asks of whoever runs the handler: Pelton, through the component's imports, or ``pelton.mock``.

What the host refuses it gives a reason for; the modules of the SDK make an error of it.
"""

from __future__ import annotations

from typing import Literal, Optional, Protocol

from ._event import NewEvent

Level = Literal["trace", "debug", "info", "warn", "error", "critical"]


class Host(Protocol):
    def emit(self, stream: str, event: NewEvent) -> Optional[str]:
        """The reason, if it is refused."""

    def state_get(self, key: str) -> Optional[bytes]: ...

    def state_set(self, key: str, value: bytes) -> Optional[str]:
        """The reason, if it is refused."""

    def state_delete(self, key: str) -> None: ...

    def config_get(self, key: str) -> Optional[str]: ...

    def log(self, level: Level, context: str, message: str) -> None: ...

    def commit(self) -> None: ...

    def handled(self, count: int) -> None: ...


_current: Optional[Host] = None


def current() -> Host:
    if _current is None:
        raise RuntimeError(
            "there is no host here: while modules are imported the component is still being built, so ask from within the "
            "handler; in a test, use `with pelton.mock.host():`"
        )
    return _current


def use(host: Optional[Host]) -> Optional[Host]:
    """Makes ``host`` the current one, and gives the one before it."""
    global _current
    before, _current = _current, host
    return before
