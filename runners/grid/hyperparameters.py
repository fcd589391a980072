"""Hyperparameters of a method from text and TOML: checked strictly against its Config dataclass."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, Union

from benchmarks import untrusted
from benchmarks.types import UserError, suggestion

PLAIN = (
    "permitted are true and false, finite numbers, whole ones of at most 63 bits, texts without control characters, "
    "None, members of an Enum, and lists or tuples of them"
)
"""Values of hyperparameters."""


def configure(method: str, config_class: type, values: Mapping[str, object], where: str = "") -> Any:
    """Build `config_class` from `values`; texts are converted, other values must have the right type.

    Raises UserError with the place `where`, the method, the key, the value and the permitted values.
    """
    prefix = f"{where}: " if where else ""
    hints = _hints(method, config_class)
    names = [item.name for item in dataclasses.fields(config_class)]
    converted = {}
    for key, value in values.items():
        if key not in names:
            if later := getattr(config_class, "replaced", {}).get(key):
                raise UserError(f"{prefix}{method}.{key} is now {method}.{later}")
            hint = suggestion(key, names, most=1)
            raise UserError(
                f"{prefix}{method} has no hyperparameter {key!r}.{hint} Permitted: {', '.join(names) or 'none'}"
            )
        try:
            converted[key] = convert(hints[key], value)
        except ValueError as error:
            raise UserError(f"{prefix}{method}.{key} = {value!r}: permitted is {describe(hints[key])}") from error
        if (key == "lr" or key.endswith("_lr")) and isinstance(converted[key], float | int) and converted[key] < 0:
            raise UserError(f"{prefix}{method}.{key} = {value!r}: a learning rate is not negative")
    try:
        return config_class(**converted)
    except (UserError, ValueError, TypeError) as error:
        raise UserError(f"{prefix}{method}: {error}") from error
    except Exception as error:  # of a method's own code, which may raise anything
        raise UserError(f"{prefix}{method}: its Config raises {type(error).__name__}: {error}") from error


def check_defaults(method: str, config_class: type) -> None:
    """Check the types of a method's Config and its default values. Raises UserError with the field."""
    if not hasattr(config_class, "__dataclass_fields__"):
        raise UserError(f"{method}: its Config is no dataclass; write @dataclass(frozen=True) above it")
    _hints(method, config_class)
    try:
        config = config_class()
    except Exception:  # a field without a default: `configure` tells what is missing where no suite gives it
        return
    recorded(method, config, "defaults of its Config")


def _hints(method: str, config_class: type) -> dict[str, Any]:
    """Types of the fields of a Config. Raises UserError for an annotation that cannot be evaluated."""
    try:
        return typing.get_type_hints(config_class)
    except Exception as error:  # of a method's own code, which may raise anything
        name = getattr(error, "name", None) or ""
        written = [f"{item.name}: {item.type}" for item in dataclasses.fields(config_class) if name in str(item.type)]
        raise UserError(
            f"{method}: a type in its Config cannot be read ({error}), of {', '.join(written)}; permitted are bool, "
            "int, float, str, None, Literal, an Enum, and lists or tuples of them"
        ) from error


def recorded(method: str, config: Any, where: str) -> dict[str, Any]:
    """`as_json` of a configuration that a record can hold and that is read back the same.

    Raises UserError with the place `where`, the method and the field.
    """
    hints, found = _hints(method, type(config)), as_json(config)
    for name, value in found.items():
        try:
            read = untrusted.parse(json.dumps(value))
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{where}: {method}.{name}: {error}; {PLAIN}") from error
        try:
            again = _plain(convert(hints[name], read))
        except ValueError as error:
            wanted = describe(hints[name])
            raise UserError(f"{where}: {method}.{name} = {value!r} is not {wanted}, its type; {PLAIN}") from error
        if again != value:
            raise UserError(f"{where}: {method}.{name} = {value!r} is read as {again!r} by its type; {PLAIN}")
    return found


def as_json(config: Any) -> dict[str, Any]:
    """All fields of a configuration as JSON values."""
    return {item.name: _plain(getattr(config, item.name)) for item in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value


def parse_assignment(text: str, labels: Iterable[str] = ()) -> tuple[str, str, str]:
    """`method.key=value` -> (method, key, value). Raises UserError for another shape.

    `labels` may hold dots and equals signs themselves: `EWC, strength=1.5.lr=0.1`.
    """
    label = max((label for label in labels if text.startswith(f"{label}.")), key=len, default="")
    name, equals, value = text[len(label) :].partition("=")
    method, dot, key = name.strip().partition(".")
    method = label or method
    if not (equals and dot and method and key):
        raise UserError(f"--set {text}: write it as method.key=value, for example --set ewc.lr=0.001")
    return method, key, value.strip()


def convert(expected: Any, value: object) -> Any:
    """`value` as the type `expected`. Raises ValueError where it is not one."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if expected is Any:
        return value
    if origin in (Union, types.UnionType):
        return _first_of(arguments, value)
    if origin is Literal:
        return _member(arguments, value)
    if origin in (tuple, list):
        return _sequence(origin, arguments, value)
    if expected is type(None):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        raise ValueError(value)
    if isinstance(expected, type) and issubclass(expected, Enum):
        return expected(value)
    return _scalar(expected, value)


def _first_of(options: tuple[Any, ...], value: object) -> Any:
    # None before str, so that the text "none" means None where both are permitted.
    for option in sorted(options, key=lambda o: (o is not type(None), o is str)):
        try:
            return convert(option, value)
        except ValueError:
            continue
    raise ValueError(value)


def _member(options: tuple[Any, ...], value: object) -> Any:
    for option in options:
        if type(option) is type(value) and option == value:
            return option
        if isinstance(value, str) and str(option) == value:
            return option
    raise ValueError(value)


def _sequence(origin: type, arguments: tuple[Any, ...], value: object) -> Any:
    parts = _split(value) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError(value)
    if not arguments:
        return origin(parts)
    repeated = origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis)
    if not repeated and len(parts) != len(arguments):
        raise ValueError(value)
    wanted = [arguments[0]] * len(parts) if repeated else list(arguments)
    return origin(convert(kind, part) for kind, part in zip(wanted, parts, strict=True))


def _split(text: str) -> list[str]:
    """The parts of a list as text; `(5,)` has one. Raises ValueError for an empty part, as in `50,,60`."""
    text = text.strip()
    if text.lower() in ("[]", "()", "none"):
        return []
    if text.endswith(",)"):
        text = text.removesuffix(",)")
    parts = [part.strip() for part in text.strip("()[] ").split(",")]
    if not all(parts):
        raise ValueError(text)
    return parts


def _scalar(expected: Any, value: object) -> Any:
    if expected is bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if isinstance(value, bool):
            return value
        raise ValueError(value)
    if isinstance(value, bool):
        raise ValueError(value)
    if expected is int and isinstance(value, int | str):
        return int(value)
    if expected is float and isinstance(value, int | float | str) and math.isfinite(number := _float(value)):
        return number
    if expected is str and isinstance(value, str):
        return value
    raise ValueError(value)


def _float(value: float | str) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number
        return math.inf


def describe(expected: Any) -> str:
    """A type in words, for error messages."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (tuple, list):
        inner = [describe(a) for a in arguments if a is not Ellipsis]
        return "a list of " + (inner[0] if Ellipsis in arguments or origin is list else ", ".join(inner))
    if isinstance(expected, type) and issubclass(expected, Enum):
        return "one of " + ", ".join(repr(member.value) for member in expected)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
    return names.get(expected, str(expected))
