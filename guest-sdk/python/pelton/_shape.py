"""Makes values of a type out of plain JSON data, or says where they do not fit.

A type becomes a *check* once: a function that takes plain data and gives the value. Fields that a type does not know are left
out, so that code reads what newer code wrote.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections import abc
from enum import Enum
from typing import Any, Callable, Dict, List, Literal, Optional, Tuple, Union

Check = Callable[[Any], Any]

_LISTS = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
_OBJECTS = (dict, abc.Mapping, abc.MutableMapping)
_MISSING = dataclasses.MISSING


class Unfit(Exception):
    """Data that is not of the type it is to be. Where it is, is put together on the way out, from within."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path: List[str] = []

    def below(self, step: Union[str, int]) -> Unfit:
        """This failure, seen from the object or list that it lies in."""
        self.path.insert(0, f"[{step}]" if isinstance(step, int) else f".{step}")
        return self

    def __str__(self) -> str:
        path = "".join(self.path).lstrip(".")
        return f"{path}: {self.problem}" if path else self.problem


def fit(data: Any, shape: object) -> Any:
    """The value of type ``shape`` that ``data`` stands for. Raises ``Unfit``."""
    return data if shape is Any else _check(shape)(data)


def name_in_json(field: dataclasses.Field[Any]) -> str:
    """A field that cannot be called in Python what it is called in JSON says so: ``field(metadata={"json": "class"})``."""
    return str(field.metadata.get("json", field.name))


_checks: Dict[Any, Check] = {}


def _check(shape: Any) -> Check:
    check = _checks.get(shape)
    if check is None:
        check = _checks[shape] = _make(shape)
    return check


def _make(shape: Any) -> Check:
    if shape in (Any, object):
        return lambda data: data
    if shape in _SCALARS:
        return _SCALARS[shape]
    if hasattr(shape, "__supertype__"):  # typing.NewType
        return _check(shape.__supertype__)
    if isinstance(shape, type):
        if dataclasses.is_dataclass(shape):
            return _dataclass(shape)
        if typing.is_typeddict(shape) if sys.version_info >= (3, 10) else hasattr(shape, "__total__"):
            return _typed_dict(shape)
        if issubclass(shape, Enum):
            return _enum(shape)
    return _generic(shape, typing.get_origin(shape) or shape, typing.get_args(shape))


def _alias(shape: Any, arguments: Tuple[Any, ...]) -> Check:
    """Of `type Money = int`, or with arguments, as `type Many[T] = list[T]`. It is looked into at the first use, because it may
    hold itself."""

    def check(data: Any) -> Any:
        value = shape.__value__
        if arguments:
            given = dict(zip(shape.__type_params__, arguments))
            value = value[tuple(given[parameter] for parameter in value.__parameters__)]
        return _check(value)(data)

    return check


def _generic(shape: Any, origin: Any, arguments: Tuple[Any, ...]) -> Check:
    if origin is typing.Annotated or str(origin) in ("typing.Required", "typing.NotRequired", "typing.ReadOnly"):
        return _check(arguments[0])
    if _ALIAS is not None and isinstance(origin, _ALIAS):
        return _alias(origin, arguments)
    if origin is Literal:
        return _literal(arguments)
    if origin is Union or (sys.version_info >= (3, 10) and origin is _UNION_TYPE):
        return _union(arguments)
    if origin in _LISTS:
        return _list(arguments[0] if arguments else Any)
    if origin is tuple:
        return _tuple(arguments)
    if origin in _OBJECTS:
        key, value = arguments or (str, Any)
        if key is str:
            return _dict(value)
    raise TypeError(f"{shape!r} is no type that JSON can be read as")


# Scalars


def _nothing(data: Any) -> None:
    if data is not None:
        raise _expected("null", data)


def _bool(data: Any) -> bool:
    if data is True or data is False:
        return bool(data)
    raise _expected("true or false", data)


def _int(data: Any) -> int:
    if type(data) is int:
        return data
    raise _expected("a whole number", data)


def _float(data: Any) -> float:
    if type(data) is float:
        return data
    if type(data) is int:
        try:
            return float(data)
        except OverflowError:
            raise Unfit("a number too large") from None
    raise _expected("a number", data)


def _str(data: Any) -> str:
    if type(data) is str:
        return data
    raise _expected("text", data)


_SCALARS: Dict[Any, Check] = {None: _nothing, type(None): _nothing, bool: _bool, int: _int, float: _float, str: _str}

if sys.version_info >= (3, 10):
    from types import UnionType as _UNION_TYPE

_ALIAS: Any = getattr(typing, "TypeAliasType", None)
"""What `type Money = int` makes, from Python 3.12 on."""


# One of several


def _literal(allowed: Tuple[Any, ...]) -> Check:
    # In Python `True == 1`, in JSON it is not.
    known = {(type(value), value): value for value in allowed}
    names = " or ".join(_shown(value) for value in allowed)

    def check(data: Any) -> Any:
        try:
            return known[type(data), data]
        except (KeyError, TypeError):
            raise Unfit(f"expected {names}, found {_shown(data)}") from None

    return check


def _enum(shape: Any) -> Check:
    allowed = _literal(tuple(member.value for member in shape))
    return lambda data: shape(allowed(data))


def _union(members: Tuple[Any, ...]) -> Check:
    is_optional = type(None) in members
    checks = [_check(member) for member in members if member is not type(None)]

    def check(data: Any) -> Any:
        if data is None and is_optional:
            return None
        deepest: Optional[Unfit] = None
        expected: List[str] = []
        for member in checks:
            try:
                return member(data)
            except Unfit as unfit:
                # What got furthest was most likely meant.
                if deepest is None or len(unfit.path) > len(deepest.path):
                    deepest = unfit
                if isinstance(unfit, _Expected):
                    expected.append(unfit.what)
        if len(expected) == len(checks) > 1 and deepest is not None and not deepest.path:
            raise _expected(" or ".join(expected), data)
        raise deepest or _expected("null", data)

    return check


# Many


def _list(element: Any) -> Check:
    check_element = _check(element)

    def check(data: Any) -> List[Any]:
        if type(data) is not list:
            raise _expected("a list", data)
        return _elements(data, [check_element] * len(data))

    return check


def _tuple(elements: Tuple[Any, ...]) -> Check:
    if not elements or elements[-1] is Ellipsis:
        as_list = _list(elements[0] if elements else Any)
        return lambda data: tuple(as_list(data))

    checks = [_check(element) for element in elements if element != ()]

    def check(data: Any) -> Tuple[Any, ...]:
        if type(data) is not list or len(data) != len(checks):
            raise _expected(f"a list of {len(checks)}", data)
        return tuple(_elements(data, checks))

    return check


def _elements(data: List[Any], checks: List[Check]) -> List[Any]:
    values: List[Any] = []
    try:
        for check, element in zip(checks, data):
            values.append(check(element))
    except Unfit as unfit:
        raise unfit.below(len(values))
    return values


def _dict(value: Any) -> Check:
    check_value = _check(value)

    def check(data: Any) -> Dict[str, Any]:
        if type(data) is not dict:
            raise _expected("an object", data)
        values: Dict[str, Any] = {}
        for name, element in data.items():
            try:
                values[name] = check_value(element)
            except Unfit as unfit:
                raise unfit.below(name)
        return values

    return check


# Objects


@dataclasses.dataclass
class _Field:
    name: str
    """In Python."""
    key: str
    """In JSON."""
    check: Check
    is_required: bool


class _Object:
    """The check of a type with fields. They are looked up at the first use, because a type may hold itself."""

    def __init__(self, make: Callable[..., Any], find_fields: Callable[[], List[_Field]]) -> None:
        self.make = make
        self.find_fields = find_fields
        self.fields: Optional[List[_Field]] = None

    def __call__(self, data: Any) -> Any:
        if type(data) is not dict:
            raise _expected("an object", data)
        if self.fields is None:
            self.fields = self.find_fields()
        values: Dict[str, Any] = {}
        for field in self.fields:
            value = data.get(field.key, _MISSING)
            if value is not _MISSING:
                try:
                    values[field.name] = field.check(value)
                except Unfit as unfit:
                    raise unfit.below(field.key)
            elif field.is_required:
                raise Unfit("missing").below(field.key)
        return self.make(**values)


def _dataclass(shape: Any) -> Check:
    def find_fields() -> List[_Field]:
        hints = typing.get_type_hints(shape, include_extras=True)
        return [
            _Field(
                name=field.name,
                key=name_in_json(field),
                check=_check(hints[field.name]),
                is_required=field.default is _MISSING and field.default_factory is _MISSING,
            )
            for field in dataclasses.fields(shape)
            if field.init
        ]

    def make(**values: Any) -> Any:
        try:
            return shape(**values)
        except ValueError as problem:  # a rule of the type's own, in its `__post_init__`
            raise Unfit(str(problem)) from None

    return _Object(make, find_fields)


def _typed_dict(shape: Any) -> Check:
    def find_fields() -> List[_Field]:
        hints = typing.get_type_hints(shape, include_extras=True)
        return [_Field(name, name, _check(hint), _is_required(shape, name, hint)) for name, hint in hints.items()]

    return _Object(dict, find_fields)


def _is_required(shape: Any, name: str, hint: Any) -> bool:
    # Where annotations are postponed, the class could not see these when it was made.
    origin = str(typing.get_origin(hint))
    if origin == "typing.Required":
        return True
    return origin != "typing.NotRequired" and name in shape.__required_keys__


# Messages


class _Expected(Unfit):
    """Data of another kind than what was expected."""

    def __init__(self, what: str, data: Any) -> None:
        super().__init__(f"expected {what}, found {_kind(data)}")
        self.what = what


def _expected(what: str, data: Any) -> Unfit:
    return _Expected(what, data)


def _kind(data: Any) -> str:
    if data is None:
        return "null"
    if isinstance(data, bool):
        return "true" if data else "false"
    for kind, name in ((int, "a whole number"), (float, "a number"), (str, "text"), (list, "a list")):
        if isinstance(data, kind):
            return name
    return "an object"


def _shown(data: Any) -> str:
    """A value in a message; one that would be long by its kind only."""
    if isinstance(data, str) and len(data) <= 40:
        return '"' + data + '"'
    return str(data) if type(data) is int and abs(data) < 10**18 else _kind(data)
