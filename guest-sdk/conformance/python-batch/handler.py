"""The batch handler of the guest conformance suite: each event's kind says what to do."""

from datetime import timedelta
from typing import List

from pelton import Event, NewEvent, Permanent, RetryAfter, Transient, batch_handler, emit, progress, state


@batch_handler
def handle(events: List[Event]) -> None:
    tells = events[0].header("progress") != "no"
    for count, event in enumerate(events, start=1):
        act(event)
        if tells:
            progress.handled(count)


def act(event: Event) -> None:
    if event.kind == "echo":
        emit("out", NewEvent("echo", event.payload, key=event.key, headers=event.headers))
    elif event.kind == "state":
        keep_state(event)
    elif event.kind in FAILURES:
        emit("out", NewEvent("lost"))
        state.set("lost", "lost")
        raise FAILURES[event.kind](event)
    else:
        raise Permanent(f'unknown kind "{event.kind}"')


def keep_state(event: Event) -> None:
    for _, step in event.headers:
        verb, _, rest = step.partition(" ")
        if verb == "set":
            key, _, value = rest.partition(" ")
            state.set(key, value)
        elif verb == "delete":
            state.delete(rest)
        elif verb == "get":
            stored = state.get(rest)
            emit("out", NewEvent("state-absent" if stored is None else "state", stored, key=rest))


FAILURES = {
    "transient": lambda event: Transient(event.header("reason")),
    "permanent": lambda event: Permanent(event.header("reason")),
    "retry-after": lambda event: RetryAfter(timedelta(milliseconds=int(event.header("ms") or 0)), event.header("reason")),
    "trap": lambda event: RuntimeError(event.header("reason")),
}
