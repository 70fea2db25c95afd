"""The handler of the guest conformance suite: the event's kind says what to do."""

from dataclasses import dataclass
from datetime import timedelta
from typing import List

from pelton import Event, NewEvent, Permanent, RetryAfter, Transient, checkpoint, config, emit, handler, log, state


@handler
def handle(event: Event) -> None:
    act = ACTS.get(event.kind)
    if act is None:
        raise Permanent(f'unknown kind "{event.kind}"')
    act(event)


def fields(event: Event) -> None:
    headers = {
        "id": event.id,
        "stream": event.stream,
        "kind": event.kind,
        "partition": str(event.partition),
        "offset": str(event.offset),
        "time": str(event.time_ms),
        "attempt": str(event.attempt),
        "has-key": "false" if event.key is None else "true",
    }
    emit("out", NewEvent("fields", event.payload, key=event.key, headers=headers))


def echo(event: Event) -> None:
    emit("out", NewEvent("echo", event.payload, key=event.key, headers=event.headers))


def emit_to(event: Event) -> None:
    emit(event.header("stream") or "", NewEvent("emit", event.payload, key=event.header("key"), id=event.header("id")))


def emit_refused(event: Event) -> None:
    try:
        emit("forbidden", NewEvent("emit"))
    except Permanent as refused:
        emit("out", NewEvent("refused", text=refused.reason))


def emit_many(event: Event) -> None:
    for number in range(int(event.header("count") or 0)):
        emit("out", NewEvent("many", text=str(number)))


def keep_state(event: Event) -> None:
    for _, step in event.headers:
        verb, _, rest = step.partition(" ")
        if verb == "set":
            key, _, value = rest.partition(" ")
            state.set(key, value)
        elif verb == "delete":
            state.delete(rest)
        else:
            stored = state.get(rest)
            emit("out", NewEvent("state-absent" if stored is None else "state", stored, key=rest))


@dataclass
class Count:
    count: int = 0


def count(event: Event) -> None:
    counted = state.get_json("count", Count) or Count()
    counted.count += 1
    state.set_json("count", counted)
    emit("out", NewEvent("count", json=counted))


def lose_effects() -> None:
    emit("out", NewEvent("lost"))
    state.set("lost", "lost")


def transient(event: Event) -> None:
    lose_effects()
    raise Transient(event.header("reason"))


def permanent(event: Event) -> None:
    lose_effects()
    raise Permanent(event.header("reason"))


def retry_after(event: Event) -> None:
    lose_effects()
    raise RetryAfter(timedelta(milliseconds=int(event.header("ms") or 0)), event.header("reason"))


def trap(event: Event) -> None:
    lose_effects()
    raise RuntimeError(event.header("reason"))


def loop(event: Event) -> None:
    while True:
        pass


def write_log(event: Event) -> None:
    for _, line in event.headers:
        level, _, message = line.partition(" ")
        getattr(log, level)(message)


def read_config(event: Event) -> None:
    for _, name in event.headers:
        setting = config.get(name)
        emit("out", NewEvent("config-absent" if setting is None else "config", text=setting, key=name))


def commit(event: Event) -> None:
    checkpoint.commit()


def call(event: Event) -> None:
    emit("out", NewEvent("call", id=f"call-{event.id}", headers={"idempotency-key": event.id}))


@dataclass
class Customer:
    name: str


@dataclass
class Order:
    customer: Customer
    amount: int


def typed(event: Event) -> None:
    order = event.json(Order)
    emit("out", NewEvent("typed", json={"amount": 2 * order.amount}, key=order.customer.name))


@dataclass
class Profile1:
    count: int


@dataclass
class Profile2:
    count: int
    unit: str


@dataclass
class Profile3:
    counts: List[int]


profiles1 = state.versioned(Profile1, version=1)
profiles2 = state.versioned(Profile2, version=2, readable_from=1)
profiles3 = state.versioned(Profile3, version=3)


@profiles2.upgrade(1)
@profiles3.upgrade(1)
def with_unit(old):
    return {**old, "unit": "pieces"}


@profiles3.upgrade(2)
def in_a_list(old):
    return {"counts": [old["count"]]}


def versioned(event: Event) -> None:
    version = event.header("as")
    if version == "3":
        profile3 = profiles3.get("profile") or Profile3([0])
        profile3.counts[0] += 1
        profiles3.set("profile", profile3)
        emit("out", NewEvent("versioned", json=profile3))
    elif version == "2":
        profile2 = profiles2.get("profile") or Profile2(0, "pieces")
        profile2.count += 1
        profiles2.set("profile", profile2)
        emit("out", NewEvent("versioned", json=profile2))
    else:
        profile1 = profiles1.get("profile") or Profile1(0)
        profile1.count += 1
        profiles1.set("profile", profile1)
        emit("out", NewEvent("versioned", json=profile1))


ACTS = {
    "fields": fields,
    "echo": echo,
    "emit": emit_to,
    "emit-refused": emit_refused,
    "emit-many": emit_many,
    "state": keep_state,
    "count": count,
    "transient": transient,
    "permanent": permanent,
    "retry-after": retry_after,
    "trap": trap,
    "loop": loop,
    "log": write_log,
    "config": read_config,
    "checkpoint": commit,
    "call": call,
    "typed": typed,
    "versioned": versioned,
}
