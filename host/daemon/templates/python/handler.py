"""Greets visitors, and counts how often each of them came."""

from dataclasses import dataclass

from pelton import Event, NewEvent, config, emit, handler, log, state


@dataclass
class Visit:
    name: str


@handler
def greet(event: Event) -> None:
    visit = event.json(Visit)

    key = f"visits/{event.key or visit.name}"
    visits = (state.get_json(key, int) or 0) + 1
    state.set_json(key, visits)

    log.info(f"{visit.name} was greeted {visits} times")
    text = f"{config.get('greeting', 'Hello')}, {visit.name}! Visit {visits}."
    emit("greetings", NewEvent("greeted", json={"text": text}, key=event.key))
