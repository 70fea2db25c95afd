"""Handlers under the mock, and what the SDK makes of them."""

from __future__ import annotations

import logging
import unittest
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, AsyncIterator, Callable, Iterator, List

from pelton import (
    Event,
    NewEvent,
    Permanent,
    RetryAfter,
    Transient,
    _panic,
    _returned,
    batch_handler,
    checkpoint,
    config,
    emit,
    handler,
    log,
    mock,
    progress,
    state,
)


@handler
def store_and_emit(event: Event) -> None:
    state.set("last", event.payload)
    emit("out", NewEvent("seen", text=event.text()))
    checkpoint.commit()
    log.info(f"saw {event.id}")
    if event.kind == "bad":
        raise Transient("not now")


@batch_handler
def store_all(events: List[Event]) -> None:
    for count, event in enumerate(events, start=1):
        emit("out", NewEvent("seen", event.payload))
        if event.kind == "bad":
            raise Permanent("never")
        progress.handled(count)


class UnderTheMock(unittest.TestCase):
    def test_effects_of_a_call_that_returns_are_kept(self) -> None:
        with mock.host() as host:
            store_and_emit(mock.event(text="a"))
        self.assertEqual(host.emitted, [("out", NewEvent("seen", b"a"))])
        self.assertEqual(host.state, {"last": b"a"})
        self.assertEqual(host.checkpoints, 1)
        self.assertEqual(host.logs, [("info", __name__, "saw event-0")])

    def test_effects_of_a_call_that_fails_are_thrown_away_and_logs_stay(self) -> None:
        with mock.host(state={"last": b"before"}) as host:
            with self.assertRaisesRegex(Transient, "^not now$"):
                store_and_emit(mock.event("bad", text="a"))
        self.assertEqual(host.emitted, [])
        self.assertEqual(host.state, {"last": b"before"})
        self.assertEqual(host.checkpoints, 0)
        self.assertEqual(len(host.logs), 1)

    def test_a_batch_keeps_what_was_told_as_handled(self) -> None:
        with mock.host() as host:
            with self.assertRaises(Permanent):
                store_all([mock.event(text="a"), mock.event(text="b"), mock.event("bad", text="c")])
        self.assertEqual([emitted.event.payload for emitted in host.emitted], [b"a", b"b"])
        self.assertEqual(host.progress, 2)

    def test_progress_neither_goes_back_nor_past_the_end(self) -> None:
        for counts, kept in (
            ((1,), (1, 1)),
            ((2, 1), (2, 1)),
            ((2, 2), (2, 2)),
            ((99,), (3, 1)),
            ((99, 2), (3, 1)),
            ((0,), (0, 0)),
            ((1, 0), (1, 1)),
        ):

            @batch_handler
            def tell(events: List[Event], counts: Any = counts) -> None:
                for count in counts:
                    emit("out", NewEvent("a"))
                    progress.handled(count)
                emit("out", NewEvent("a"))
                raise Permanent("no")

            with self.subTest(counts=counts), mock.host() as host:
                with self.assertRaisesRegex(Permanent, "^no$"):
                    tell([mock.event(), mock.event(), mock.event()])
                self.assertEqual((host.progress, len(host.emitted)), kept)

    def test_what_was_emitted_is_the_hosts_own(self) -> None:
        with mock.host() as host:
            event = NewEvent("a", headers={"b": "1"})
            emit("out", event)
            event.kind = "changed"
            event.headers.append(("c", "2"))
        self.assertEqual(host.emitted, [("out", NewEvent("a", headers={"b": "1"}))])

    def test_what_the_host_refuses_is_refused_in_its_words(self) -> None:
        nul = "holds a NUL character, which no store can keep as text; remove it"
        for event, reason in (
            (NewEvent("k", id=""), "id is empty; expected 1 to 1024 bytes"),
            (NewEvent("k", id="a\0"), f"id {nul}"),
            (NewEvent("k", key="a\0"), f"key {nul}"),
            (NewEvent("a\0"), f"kind {nul}"),
            (NewEvent("k", headers={"a": "\0"}), f"headers {nul}"),
            (NewEvent("k", headers={"\0": "a"}), f"headers {nul}"),
            (NewEvent("k", key="ü" * 513), "key has 1026 bytes; expected at most 1024"),
            (NewEvent("k" * 1025), "kind has 1025 bytes; expected at most 1024"),
            (NewEvent("k", id="i" * 1025), "id has 1025 bytes; expected at most 1024"),
            (NewEvent("k", headers={"a": "x" * 40_000, "b": "x" * 40_000}), "headers has 80002 bytes; expected at most 65536"),
            (
                NewEvent("k", b"x" * 1_048_577),
                "payload has 1048577 bytes, over the stream's payload_max of 1048576; send less, or raise payload_max",
            ),
        ):
            with self.subTest(reason=reason), mock.host() as host:
                with self.assertRaises(Permanent) as raised:
                    emit("out", event)
                self.assertEqual(raised.exception.reason, reason)
                self.assertEqual(host.emitted, [])
        with mock.host():
            emit("out", NewEvent("k" * 1024, b"x" * 1_048_576, key="k" * 1024, id="i" * 1024))
            for key in ("", "ü" * 513):
                with self.assertRaisesRegex(Permanent, rf"^state key has {len(key.encode())} bytes; expected 1 to 1024$"):
                    state.set(key, b"")

    def test_refusals(self) -> None:
        with mock.host(allow_emit=["out"]) as host:
            with self.assertRaisesRegex(Permanent, "allow_emit"):
                emit("elsewhere", NewEvent("seen"))
            with self.assertRaisesRegex(Permanent, "NUL"):
                emit("out", NewEvent("seen", key="a\0"))
        self.assertEqual(host.emitted, [])

    def test_without_a_host_it_says_what_to_do(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "with pelton.mock.host"):
            store_and_emit(mock.event())

    def test_configuration(self) -> None:
        with mock.host(config={"a": "1"}):
            self.assertEqual(config.get("a"), "1")
            self.assertIsNone(config.get("b"))
            self.assertEqual(config.get("b", "2"), "2")

    def test_levels_of_both_ways_to_log(self) -> None:
        with mock.host() as host:
            for write in (log.trace, log.debug, log.info, log.warn, log.error, log.critical):
                write("m")
            logger = logging.getLogger("lib")
            for level in (log.TRACE, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
                logger.log(level, "m %s", 1)
        levels = ["trace", "debug", "info", "warn", "error", "critical"]
        self.assertEqual([line.level for line in host.logs], levels * 2)
        self.assertEqual(host.logs[-1], ("critical", "lib", "m 1"))


@dataclass
class Payload:
    text: str


class Events(unittest.TestCase):
    def test_one_payload_in_one_of_three_ways(self) -> None:
        self.assertEqual(NewEvent("k").payload, b"")
        self.assertEqual(NewEvent("k", b"\xff").payload, b"\xff")
        self.assertEqual(NewEvent("k", text="ø").payload, "ø".encode())
        self.assertEqual(NewEvent("k", json=Payload("ø")).payload, '{"text":"ø"}'.encode())
        self.assertEqual(NewEvent("k", json=None).payload, b"null")
        with self.assertRaisesRegex(TypeError, "one payload"):
            NewEvent("k", b"", text="")

    def test_what_has_no_json_form(self) -> None:
        for value, problem in (({1}, "set is no JSON type"), (float("nan"), ""), ("\ud800", "surrogates")):
            with self.subTest(value=value), self.assertRaisesRegex(Permanent, f"^payload of new event of kind \"k\": .*{problem}"):
                NewEvent("k", json=value)

    def test_texts_that_cannot_be_sent_are_mistakes(self) -> None:
        with mock.host():
            with self.assertRaisesRegex(TypeError, "key of new event: expected str, got int"):
                emit("out", NewEvent("k", key=3))  # type: ignore[arg-type]
            with self.assertRaisesRegex(TypeError, "state key: expected str, got NoneType"):
                state.get(None)  # type: ignore[arg-type]
            with self.assertRaisesRegex(UnicodeEncodeError, "surrogates"):
                state.set("\ud800", b"")

    def test_headers(self) -> None:
        event = mock.event(headers=[("a", "1"), ("a", "2")])
        self.assertEqual(event.header("a"), "1")
        self.assertIsNone(event.header("A"))
        self.assertEqual(NewEvent("k", headers={"b": "1"}).headers, [("b", "1")])
        wrong: Any
        for wrong, name in ((None, "NoneType"), (5, "int"), (b"1", "bytes")):
            problem = f'^header "b" of new event: expected str, got {name}$'
            with self.subTest(wrong=wrong), self.assertRaisesRegex(TypeError, problem):
                NewEvent("k", headers={"a": "1", "b": wrong})
            new = NewEvent("k")
            new.headers = [("b", wrong)]
            with self.subTest(assigned=wrong), mock.host(), self.assertRaisesRegex(TypeError, problem):
                emit("out", new)
        with self.assertRaisesRegex(TypeError, "^name of a header of new event: expected str, got NoneType$"):
            NewEvent("k", headers=[(None, "1")])  # type: ignore[list-item]

    def test_what_is_assigned_is_checked_too(self) -> None:
        event = NewEvent("k")
        event.headers = [["a", "b"]]  # type: ignore[list-item]
        with mock.host() as host:
            for wrong, name in (("text", "str"), (None, "NoneType"), (10**12, "int")):
                event.payload = wrong  # type: ignore[assignment]
                problem = f"^payload of new event: expected bytes, got {name}$"
                with self.subTest(wrong=wrong), self.assertRaisesRegex(TypeError, problem):
                    emit("out", event)
            event.payload = bytearray(b"ab")  # type: ignore[assignment]
            emit("out", event)
        self.assertEqual(host.emitted, [("out", NewEvent("k", b"ab", headers={"a": "b"}))])
        self.assertIs(type(host.emitted[0].event.payload), bytes)

    def test_text_that_is_not_utf_8(self) -> None:
        with self.assertRaisesRegex(Permanent, '^payload of kind "k": not UTF-8: '):
            mock.event("k", b"\xff").text()


class Errors(unittest.TestCase):
    def test_delays(self) -> None:
        self.assertEqual(RetryAfter(1.5, "r").delay_ms, 1500)
        self.assertEqual(RetryAfter(timedelta(minutes=1), "r").delay_ms, 60_000)
        self.assertEqual(RetryAfter(-1, "r").delay_ms, 0)

    def test_reasons_are_texts(self) -> None:
        self.assertEqual(Permanent(ValueError("no")).reason, "no")


class Mistakes(unittest.TestCase):
    def test_what_happened_and_where(self) -> None:
        def price(lines: List[str]) -> str:
            return {"a": "1"}[lines[0]]

        try:
            price(["b"])
        except KeyError as mistake:
            told = _panic.told(mistake)
        self.assertRegex(told, r"^KeyError: 'b' \(at \S*test_handler\.py:\d+ in price, \S*test_handler\.py:\d+ in test_")

    def test_what_it_came_from(self) -> None:
        try:
            try:
                int("x")
            except ValueError:
                raise RuntimeError
        except RuntimeError as mistake:
            told = _panic.told(mistake)
        self.assertRegex(told, r"^RuntimeError \(at .*\) from ValueError: invalid literal")

    def test_handlers_that_would_never_run_are_refused(self) -> None:
        async def sleepy(event: Event) -> None: ...

        def stepping(event: Event) -> Iterator[int]:
            yield 1

        async def both(event: Event) -> AsyncIterator[int]:
            yield 1

        for function in (sleepy, stepping, both):
            with self.subTest(function=function), self.assertRaisesRegex(TypeError, "plain function"):
                handler(function)  # type: ignore[arg-type]


class Sleepy:
    async def __call__(self, argument: object) -> None: ...


class Returned(unittest.TestCase):
    def test_an_error_counts_as_raised(self) -> None:
        for error in (Permanent("x"), Transient("x"), RetryAfter(1, "x")):

            @handler
            def give(event: Event, error: Any = error) -> None:
                emit("out", NewEvent("a"))
                return error  # type: ignore[no-any-return]

            with self.subTest(error=error), mock.host() as host:
                with self.assertRaises(type(error)) as raised:
                    give(mock.event())
                self.assertIs(raised.exception, error)
                self.assertEqual(host.emitted, [])

    def test_what_somebody_would_have_to_await_or_step_through_is_a_mistake(self) -> None:
        async def sleepy(argument: object) -> None: ...

        def stepping(argument: object) -> Iterator[int]:
            yield 1

        async def both(argument: object) -> AsyncIterator[int]:
            yield 1

        def wrapped(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            return lambda argument: function(argument)

        for function, kind in (
            (wrapped(sleepy), "coroutine"),
            (wrapped(stepping), "generator"),
            (wrapped(both), "async_generator"),
            (wrapped(lambda argument: map(str, [1])), "map"),
            (wrapped(lambda argument: [sleepy(argument)]), "coroutine"),
        ):
            problem = f"^the handler returned a value of type {kind}, and nothing awaits it"
            with self.subTest(kind=kind), mock.host():
                with self.assertRaisesRegex(TypeError, problem):
                    handler(function)(mock.event())
                with self.assertRaisesRegex(TypeError, problem):
                    batch_handler(function)([mock.event()])
        with self.assertRaisesRegex(TypeError, "returned a value of type coroutine"):
            _returned.check(Sleepy()(None))

    def test_whatever_else_is_returned_means_nothing(self) -> None:
        for value in (None, 1, "a", [], [1], {"a": 1}, range(3)):
            _returned.check(value)


if __name__ == "__main__":
    unittest.main()
