"""Warns of accounts that somebody tries to get into: more than so many failed logins within a sliding window.

Time is the payload's, else that of the event, and never that of the clock: the same events come to the same alerts however late
they are handled, and in a replay too.
"""

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import List, Optional

from pelton import Event, NewEvent, Permanent, config, emit, handler, log, state


@dataclass
class FailedLogin:
    at: Optional[str] = None
    address: Optional[str] = field(default=None, metadata={"json": "from"})


@dataclass
class Window:
    """What is remembered of an account: as little as decides, however many failures there are."""

    failures_ms: List[int] = field(default_factory=list)
    """In order. The newest ones within the window, and no more than make an alert."""
    quiet_until_ms: int = 0
    """There was an alert: the next one is not before."""


windows = state.versioned(Window, version=1)


@handler
def watch(event: Event) -> None:
    if event.key is None:
        raise Permanent("a failed login needs the account as its key")
    login = event.json(FailedLogin)
    at = time_ms(login, event)
    span = 1000 * int(config.get("window_seconds", "300"))
    allowed = int(config.get("allowed", "5"))

    key = f"window/{event.key}"
    window = windows.get(key) or Window()
    now = max([at, *window.failures_ms])
    begin = now - span
    if at <= begin:
        log.info(f"{event.key}: a failed login came too late to matter")
        return

    window.failures_ms = [ms for ms in sorted([*window.failures_ms, at]) if ms > begin][-(allowed + 1) :]
    if len(window.failures_ms) > allowed and now >= window.quiet_until_ms:
        window.quiet_until_ms = now + span
        log.warn(f"{event.key}: more than {allowed} failed logins")
        emit("alerts", alert(event.key, window, login))
    windows.set(key, window)


def alert(account: str, window: Window, login: FailedLogin) -> NewEvent:
    first, last = window.failures_ms[0], window.failures_ms[-1]
    details = {"account": account, "failures": len(window.failures_ms), "first": shown(first), "last": shown(last)}
    return NewEvent("login.suspicious", json={**details, "from": login.address}, key=account)


def time_ms(login: FailedLogin, event: Event) -> int:
    if login.at is None:
        return event.time_ms
    try:
        at = datetime.fromisoformat(login.at)
    except ValueError:
        raise Permanent(f"at: {login.at!r} is no time as 2026-11-22T10:00:00Z") from None
    return round(1000 * (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp())


def shown(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
