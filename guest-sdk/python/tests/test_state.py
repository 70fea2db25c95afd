"""State, and values that outlive versions of the code."""

from __future__ import annotations

import json
import unittest
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

from pelton import Permanent, Transient, mock, state


@dataclass
class One:
    count: int


@dataclass
class Two:
    count: int
    unit: str


@dataclass
class Chain:
    next: Optional[Chain] = None


@dataclass
class Three:
    counts: List[int]


def with_unit(old: Dict[str, Any]) -> Dict[str, Any]:
    return {**old, "unit": "pieces"}


ones = state.versioned(One, version=1)
twos = state.versioned(Two, version=2, readable_from=1)
twos.upgrade(1)(with_unit)
threes = state.versioned(Three, version=3)
threes.upgrade(1)(with_unit)


@threes.upgrade(2)
def in_a_list(old: Dict[str, Any]) -> Dict[str, Any]:
    return {"counts": [old["count"]]}


class Versions(unittest.TestCase):
    def setUp(self) -> None:
        host = mock.host()
        self.host = host.__enter__()
        self.addCleanup(host.__exit__, None, None, None)

    def test_a_value_stands_in_an_envelope(self) -> None:
        twos.set("p", Two(3, "kg"))
        self.assertEqual(self.host.state["p"], b'{"version":2,"readable_from":1,"value":{"count":3,"unit":"kg"}}')

    def test_own_older_and_newer_values(self) -> None:
        self.assertIsNone(ones.get("p"))
        ones.set("p", One(3))
        self.assertEqual(twos.get("p"), Two(3, "pieces"))
        self.assertEqual(threes.get("p"), Three([3]))
        twos.set("p", Two(4, "kg"))
        self.assertEqual(twos.get("p"), Two(4, "kg"))
        self.assertEqual(ones.get("p"), One(4))

    def test_what_only_newer_code_can_read_is_waited_for(self) -> None:
        threes.set("p", Three([1]))
        with self.assertRaises(Transient) as raised:
            twos.get("p")
        self.assertEqual(
            raised.exception.reason,
            'state "p": written by version 3 of its format, which code before version 3 cannot read; this code has version 2: '
            "go forward to the newer handler, or reset the state",
        )

    def test_a_step_that_is_not_declared(self) -> None:
        ones.set("p", One(3))
        lonely = state.versioned(Two, version=2)
        with self.assertRaisesRegex(Permanent, '^state "p": written by version 1 of its format, and no step leads to version 2$'):
            lonely.get("p")

    def test_a_value_from_before_there_were_envelopes(self) -> None:
        state.set_json("p", 3)
        with self.assertRaisesRegex(Permanent, '^state "p": not a versioned value, and no step leads from version 0$'):
            ones.get("p")
        counts = state.versioned(One, version=1)
        counts.upgrade(0)(lambda bare: {"count": bare})
        self.assertEqual(counts.get("p"), One(3))

    def test_what_breaks_the_rule_of_envelopes_is_none(self) -> None:
        from_0 = state.versioned(list, version=1)
        from_0.upgrade(0)(lambda plain: [plain])
        for plain in (
            {"version": 1, "readable_from": 0, "value": {"count": 3}},
            {"version": 0, "readable_from": 0, "value": {"count": 3}},
            {"version": 1, "readable_from": 2, "value": {"count": 3}},
            {"version": 2**32, "readable_from": 1, "value": {"count": 3}},
            {"version": 1.5, "readable_from": 1, "value": {"count": 3}},
            {"version": True, "readable_from": True, "value": {"count": 3}},
            {"version": "1", "readable_from": "1", "value": {"count": 3}},
            {"version": 1, "value": {"count": 3}},
            {"version": 1, "readable_from": 1},
            [1, 1, {"count": 3}],
            None,
        ):
            with self.subTest(plain=plain):
                state.set_json("p", plain)
                with self.assertRaises(Permanent) as raised:
                    ones.get("p")
                self.assertEqual(
                    raised.exception.reason, 'state "p": not a versioned value, and no step leads from version 0'
                )
                self.assertEqual(from_0.get("p"), [plain])
        for version in (2**32 - 1, 1.0):
            state.set_json("p", {"version": version, "readable_from": 1, "value": {"count": 3}})
            self.assertEqual(ones.get("p"), One(3))

    def test_what_a_step_raises_stays_what_it_is(self) -> None:
        ones.set("p", One(3))
        for problem in (KeyError("unit"), RecursionError("step"), Transient("not now"), Permanent("no")):
            failing = state.versioned(Two, version=2)

            @failing.upgrade(1)
            def fail(old: Any, problem: Exception = problem) -> None:
                raise problem

            with self.subTest(problem=problem), self.assertRaises(type(problem)) as raised:
                failing.get("p")
            self.assertIs(raised.exception, problem)

    def test_a_value_that_is_too_deep_for_its_type_does_not_fit(self) -> None:
        chains = state.versioned(Chain, version=1)
        state.set("p", b'{"version":1,"readable_from":1,"value":' + b'{"next":' * 498 + b"{}" + b"}" * 499)
        with self.assertRaisesRegex(Permanent, '^state "p": nested too deeply for its type$'):
            chains.get("p")

    def test_a_value_that_does_not_fit_names_key_and_place(self) -> None:
        self.host.state["p"] = json.dumps({"version": 1, "readable_from": 1, "value": {"count": "3"}}).encode()
        with self.assertRaisesRegex(Permanent, '^state "p": count: expected a whole number, found text$'):
            ones.get("p")

    def test_versions_that_make_no_sense_are_mistakes(self) -> None:
        for version, readable_from in ((0, 0), (1, 2), (2, 0), (2**32, 1), (True, True), (1.0, 1.0), ("1", "1")):
            with self.subTest(version=version), self.assertRaises(ValueError):
                state.versioned(One, version=version, readable_from=readable_from)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            twos.upgrade(2)


class Plain(unittest.TestCase):
    def test_bytes_text_and_json(self) -> None:
        with mock.host() as host:
            state.set("a", b"1")
            state.set("b", "ø")
            state.set_json("c", One(1))
            self.assertEqual(host.state, {"a": b"1", "b": "ø".encode(), "c": b'{"count":1}'})
            self.assertEqual(state.get_json("c", One), One(1))
            self.assertEqual(state.get_json("c"), {"count": 1})
            self.assertIsNone(state.get_json("d", One))
            state.delete("a")
            self.assertIsNone(state.get("a"))

    def test_a_value_is_bytes_or_text(self) -> None:
        with mock.host() as host:
            for value in (b"ab", bytearray(b"ab"), memoryview(b"ab"), "ab"):
                state.set("k", value)  # type: ignore[arg-type]
                self.assertEqual(host.state, {"k": b"ab"})
            for wrong, name in ((5, "int"), (10**12, "int"), (None, "NoneType"), ([1, 2], "list")):
                with self.subTest(wrong=wrong), self.assertRaises(TypeError) as raised:
                    state.set("k", wrong)  # type: ignore[arg-type]
                self.assertEqual(str(raised.exception), f"state value: expected bytes or str, got {name}")
            self.assertEqual(host.state, {"k": b"ab"})

    def test_what_is_refused_or_does_not_fit_is_permanent(self) -> None:
        with mock.host():
            for key in ("", "k" * 1025, "a\0b"):
                with self.subTest(key=key[:3]), self.assertRaises(Permanent):
                    state.set(key, b"")
            state.set("k", b"{")
            with self.assertRaisesRegex(Permanent, '^state "k": not JSON: '):
                state.get_json("k")
            with self.assertRaisesRegex(Permanent, '^state "k": no JSON form: set is no JSON type$'):
                state.set_json("k", {1, 2})


if __name__ == "__main__":
    unittest.main()
