"""JSON as values of a type, and what is said where it does not fit."""

from __future__ import annotations

import json
import sys
import unittest
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Dict, List, Literal, NewType, Optional, Tuple, TypedDict, Union

from pelton import NewEvent, Permanent, mock


@dataclass
class Customer:
    name: str
    email: Optional[str] = None


@dataclass
class Line:
    price: float
    tags: List[str] = field(default_factory=list)


@dataclass
class Order:
    customer: Customer
    lines: List[Line]
    rates: Dict[str, int] = field(default_factory=dict)
    state: Literal["new", "paid"] = "new"


@dataclass
class Tree:
    value: int
    children: List[Tree] = field(default_factory=list)


@dataclass
class Chain:
    next: Optional[Chain] = None


def nested(levels: int) -> bytes:
    """Trees within each other: two levels of JSON each."""
    return b'{"value":1,"children":[' * (levels - 1) + b'{"value":1}' + b"]}" * (levels - 1)


def json_tree(levels: int) -> Tree:
    return Tree(1, [json_tree(levels - 1)] if levels > 1 else [])


class Address(TypedDict):
    city: str


class Person(Address, total=False):
    age: int


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Booking:
    class_: str = field(metadata={"json": "class"})
    seats: int = 1

    def __post_init__(self) -> None:
        if self.seats < 1:
            raise ValueError("seats: at least one")


Cents = NewType("Cents", int)


def read(document: Any, shape: Any) -> Any:
    return mock.event("k", json=document).json(shape)


class Fits(unittest.TestCase):
    def test_values_of_all_kinds(self) -> None:
        for document, shape, value in (
            ("a", str, "a"),
            (1, int, 1),
            (1, float, 1.0),
            (1.5, float, 1.5),
            (True, bool, True),
            (None, None, None),
            (None, Optional[int], None),
            (2, Optional[int], 2),
            ("a", Union[int, str], "a"),
            ([1, 2], List[int], [1, 2]),
            ([1, "a"], Tuple[int, str], (1, "a")),
            ([1, 2], Tuple[int, ...], (1, 2)),
            ({"a": 1}, Dict[str, int], {"a": 1}),
            ({"a": [1]}, dict, {"a": [1]}),
            ([{}], list, [{}]),
            ("red", Colour, Colour.RED),
            (7, Cents, 7),
            ({"any": [None]}, Any, {"any": [None]}),
        ):
            with self.subTest(shape=shape):
                found = read(document, shape)
                self.assertEqual(found, value)
                self.assertIs(type(found), type(value))

    def test_objects_within_objects(self) -> None:
        order = read({"customer": {"name": "Ada"}, "lines": [{"price": 3}], "rates": {"a": 1}}, Order)
        self.assertEqual(order, Order(Customer("Ada"), [Line(3.0)], {"a": 1}))

    def test_fields_that_are_not_known_are_left_out(self) -> None:
        self.assertEqual(read({"name": "Ada", "colour": 1}, Customer), Customer("Ada"))
        self.assertEqual(read({"city": "Oslo", "colour": 1}, Person), {"city": "Oslo"})

    def test_a_type_may_hold_itself(self) -> None:
        self.assertEqual(read({"value": 1, "children": [{"value": 2}]}, Tree), Tree(1, [Tree(2)]))

    def test_a_field_may_be_called_otherwise_in_json(self) -> None:
        self.assertEqual(read({"class": "second"}, Booking), Booking("second"))

    def test_much_and_deep_is_read(self) -> None:
        for document in (
            b"[" * 500 + b"]" * 500,
            b'"' + b"[" * 1000 + b'"',
            b"[" + b"[{}]," * 1000 + b"[]]",
            b"[" + rb'"[[ \\" , "\"{", {"]": "}"},' * 1000 + b"[]]",
        ):
            with self.subTest(document=document[:30]):
                self.assertEqual(mock.event("k", document).json(), json.loads(document))
        self.assertEqual(mock.event("k", rb'"\ud83d\udc4b"').json(), "\U0001f44b")

    def test_what_is_too_deep_for_its_type_does_not_fit(self) -> None:
        self.assertEqual(mock.event("k", nested(50)).json(Tree), json_tree(50))
        beginning = 'payload of kind "k": nested too deeply for its type'
        for kind in (Tree, Chain):
            with self.subTest(kind=kind), self.assertRaises(Permanent) as raised:
                mock.event("k", nested(250) if kind is Tree else b'{"next":' * 499 + b"{}" + b"}" * 499).json(kind)
            self.assertEqual(raised.exception.reason, beginning)

    def test_a_payload_is_bytes(self) -> None:
        for payload in (b"ab", bytearray(b"ab"), memoryview(b"ab")):
            self.assertEqual(NewEvent("k", payload).payload, b"ab")  # type: ignore[arg-type]
        self.assertEqual(NewEvent("k").payload, b"")
        for wrong, name in ((5, "int"), (0, "int"), (10**12, "int"), ("", "str"), ([1], "list")):
            with self.subTest(wrong=wrong), self.assertRaises(TypeError) as raised:
                NewEvent("k", wrong)  # type: ignore[arg-type]
            self.assertEqual(str(raised.exception), f"payload of new event: expected bytes, got {name}")

    def test_without_a_type_it_is_plain_data(self) -> None:
        self.assertEqual(mock.event("k", b'{"a":[1,null]}').json(), {"a": [1, None]})


class DoesNotFit(unittest.TestCase):
    def test_the_place_is_named(self) -> None:
        ada = {"name": "Ada"}
        for document, shape, problem in (
            ({}, Customer, "name: missing"),
            ({"customer": {}, "lines": []}, Order, "customer.name: missing"),
            ({"customer": {"name": 1}, "lines": []}, Order, "customer.name: expected text, found a whole number"),
            ({"customer": ada, "lines": [{"price": 1}, {"price": "1"}]}, Order, "lines[1].price: expected a number, found text"),
            ({"customer": ada, "lines": [{"price": 1, "tags": [None]}]}, Order, "lines[0].tags[0]: expected text, found null"),
            ({"customer": ada, "lines": [], "rates": {"a": 1.5}}, Order, "rates.a: expected a whole number, found a number"),
            ({"customer": ada, "lines": [], "state": "old"}, Order, 'state: expected "new" or "paid", found "old"'),
            ({"value": 1, "children": [{}]}, Tree, "children[0].value: missing"),
            ({"age": 3}, Person, "city: missing"),
            ({"city": "Oslo", "age": "3"}, Person, "age: expected a whole number, found text"),
            ({"class": "first", "seats": 0}, Booking, "seats: at least one"),
            ([], Customer, "expected an object, found a list"),
            ({}, List[int], "expected a list, found an object"),
            ([1], Tuple[int, int], "expected a list of 2, found a list"),
            (True, int, "expected a whole number, found true"),
            (1, bool, "expected true or false, found a whole number"),
            (1, Literal[True], "expected true, found 1"),
            ("green", Colour, 'expected "red" or "blue", found "green"'),
            (1.5, Union[int, str], "expected a whole number or text, found a number"),
            ("a", Optional[int], "expected a whole number, found text"),
            ({"name": 1}, Union[str, Customer], "name: expected text, found a whole number"),
        ):
            with self.subTest(shape=shape, document=document), self.assertRaises(Permanent) as raised:
                read(document, shape)
            self.assertEqual(raised.exception.reason, f'payload of kind "k": {problem}')

    def test_documents_that_are_none(self) -> None:
        for payload, beginning in (
            (b"", "not JSON: Expecting value"),
            (b"{", "not JSON: "),
            (b"NaN", "not JSON: NaN is not a number in JSON"),
            (b"1e999", "a number in it is too large: 1e999"),
            (b'{"a":[-1E+400]}', "a number in it is too large: -1E+400"),
            (b"9" * 400 + b".0", "a number in it is too large: " + "9" * 40 + "…"),
            (b"\xff", "not UTF-8: "),
            (b'"a\\ud800"', "a text in it has half a surrogate pair"),
            (b"[" * 501 + b"]" * 501, "not JSON that can be read: nested more than 500 deep"),
            (b"[" * 200_000, "not JSON that can be read: nested more than 500 deep"),
            (b'{"a":' * 1000 + b"1" + b"}" * 1000, "not JSON that can be read: nested more than 500 deep"),
            ('"a"'.encode("utf-16"), "not UTF-8: "),
        ):
            with self.subTest(payload=payload[:9]), self.assertRaises(Permanent) as raised:
                mock.event("k", payload).json()
            self.assertTrue(raised.exception.reason.startswith(f'payload of kind "k": {beginning}'), raised.exception.reason)

    def test_a_number_that_is_too_large_fits_no_float(self) -> None:
        for shape in (float, Any):
            with self.subTest(shape=shape), self.assertRaisesRegex(Permanent, "a number in it is too large: 1e999"):
                mock.event("k", b"1e999").json(shape)
        self.assertEqual(mock.event("k", b"[1e308,1e-999]").json(List[float]), [1e308, 0.0])

    def test_what_could_not_be_read_again_is_not_written(self) -> None:
        nested: List[Any] = []
        for _ in range(499):
            nested = [nested]
        self.assertEqual(NewEvent("k", json=nested).payload, b"[" * 500 + b"]" * 500)
        problem = '^payload of new event of kind "k": no JSON form that could be read again: nested more than 500 deep$'
        with self.assertRaisesRegex(Permanent, problem):
            NewEvent("k", json=[nested])

    @unittest.skipIf(sys.version_info < (3, 12), "the statement `type` is of Python 3.12")
    def test_names_of_types(self) -> None:
        names: Dict[str, Any] = {"__name__": __name__, "dataclass": dataclass}
        source = (
            "type Money = int\n"
            "type Many[T] = list[T]\n"
            "type Swapped[A, B] = tuple[B, A]\n"
            "type Json = int | list[Json]\n"
            "@dataclass\n"
            "class Bill:\n"
            "    total: Money\n"
            "    parts: Many[Money]\n"
        )
        exec(compile(source, "names", "exec", dont_inherit=True), names)
        self.assertEqual(read({"total": 5, "parts": [2, 3]}, names["Bill"]), names["Bill"](5, [2, 3]))
        self.assertEqual(read(["a", 1], names["Swapped"][int, str]), ("a", 1))
        self.assertEqual(read([1, [2]], names["Json"]), [1, [2]])
        with self.assertRaises(Permanent) as raised:
            read({"total": 5, "parts": [2, "3"]}, names["Bill"])
        self.assertEqual(raised.exception.reason, 'payload of kind "k": parts[1]: expected a whole number, found text')

    def test_a_type_that_json_cannot_be_read_as_is_a_mistake(self) -> None:
        with self.assertRaisesRegex(TypeError, "no type that JSON can be read as"):
            read(1, complex)


if __name__ == "__main__":
    unittest.main()
