from __future__ import annotations

import math
from dataclasses import dataclass, make_dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from benchmarks.types import UserError
from methods import registry
from runners.grid.hyperparameters import as_json, check_defaults, configure, describe, parse_assignment, recorded


class Mode(StrEnum):
    SEPARATE = "separate"
    ONLINE = "online"


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    steps: int = 10
    nested: bool = False
    name: str = "x"
    limit: float | None = None
    variant: Literal["exact", "sampled"] = "exact"
    power: Literal[1, 2] = 1
    mode: Mode = Mode.SEPARATE
    widths: tuple[int, ...] = (1, 2)
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr = {self.lr} must be positive")


@pytest.mark.parametrize(
    "key, text, expected",
    [
        ("lr", "1e-3", 0.001),
        ("lr", "2", 2.0),
        ("steps", "7", 7),
        ("nested", "true", True),
        ("nested", "False", False),
        ("name", "none", "none"),
        ("limit", "none", None),
        ("limit", "0.5", 0.5),
        ("variant", "sampled", "sampled"),
        ("power", "2", 2),
        ("mode", "online", Mode.ONLINE),
        ("widths", "3,4,5", (3, 4, 5)),
        *(("widths", text, ()) for text in ("[]", "()", "none")),
        ("widths", "(3,)", (3,)),
        ("span", "(1, 2)", (1.0, 2.0)),
    ],
)
def test_texts_of_the_command_line(key, text, expected):
    value = getattr(configure("m", Config, {key: text}), key)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    "key, value",
    [
        ("lr", "fast"),
        ("lr", True),
        ("steps", "1.5"),
        ("steps", 1.5),
        ("nested", "yes"),
        ("nested", 1),
        ("name", 3),
        ("limit", "much"),
        ("variant", "batched"),
        ("power", "3"),
        ("mode", "both"),
        *(("widths", text) for text in ("1,b", "1,,2", "1,", ",1", "", ",", "(,)")),
        ("span", "1"),
        ("span", [1.0, 2.0, 3.0]),
    ],
)
def test_a_wrong_value_names_place_method_key_value_and_what_is_permitted(key, value):
    with pytest.raises(UserError) as caught:
        configure("m", Config, {key: value}, "suite s")
    assert str(caught.value).startswith(f"suite s: m.{key} = {value!r}: permitted is ")


def test_an_unknown_key_is_answered_with_the_nearest_and_all():
    with pytest.raises(UserError, match=r"m has no hyperparameter 'step'\. Did you mean steps\? Permitted: lr, steps"):
        configure("m", Config, {"step": 1})


def test_what_the_config_itself_refuses_is_a_user_error():
    with pytest.raises(UserError, match=r"m: lr = 0\.0 must be positive"):
        configure("m", Config, {"lr": 0})


def test_json_and_back_is_the_same_configuration():
    config = Config(lr=0.5, limit=None, mode=Mode.ONLINE, widths=(9,))
    assert as_json(config)["widths"] == [9] and as_json(config)["mode"] == "online"
    assert configure("m", Config, as_json(config)) == config


def test_a_whole_number_for_a_real_one_gives_the_same_configuration():
    assert as_json(configure("m", Config, {"lr": 2})) == as_json(configure("m", Config, {"lr": 2.0}))
    assert isinstance(configure("m", Config, {"lr": 2}).lr, float)


def test_types_in_words():
    assert describe(float | None) == "a number or none"
    assert describe(Literal["a", "b"]) == "one of 'a', 'b'"


@pytest.mark.parametrize("text", ["ewc.lr", "lr=1", "=1", ".lr=1", "ewc.=1", ""])
def test_assignments_of_another_shape(text):
    with pytest.raises(UserError, match=r"method\.key=value"):
        parse_assignment(text)


def test_an_assignment_may_hold_dots_and_equals_signs():
    assert parse_assignment("ewc.name=a.b=c") == ("ewc", "name", "a.b=c")


@pytest.mark.parametrize("kind", [float, float | None])
def test_a_whole_number_beyond_all_floats_is_a_mistake(kind):
    with pytest.raises(UserError, match=r"m\.lr = 10+: permitted is a number"):
        configure("m", make_dataclass("Config", [("lr", kind, 0.1)]), {"lr": 10**400})


class Odd(Enum):
    PLACE = Path("x")


@pytest.mark.parametrize(
    "kind, value, answer",
    [
        (Path, Path("x"), "Object of type PosixPath is not JSON serializable"),
        (frozenset, frozenset({1}), "Object of type frozenset is not JSON serializable"),
        (Any, math.sin, "is not JSON serializable"),
        (Odd, Odd.PLACE, "is not JSON serializable"),
        (float, math.inf, "the number inf is not finite"),
        (float | None, math.nan, "the number nan is not finite"),
        (tuple[float, ...], (1.0, math.inf), "the number inf is not finite"),
        (int, 1 << 63, "the number 9223372036854775808 has more than 63 bits"),
        (str, "a\u2028b", r"the text 'a\\u2028b' holds the character U\+2028"),
        (float, None, " = None is not a number, its type"),
        (int | str, "5", " = '5' is read as 5 by its type"),
    ],
)
def test_a_default_that_no_record_holds_is_refused_by_its_name(kind, value, answer):
    config = make_dataclass("Config", [("field", kind, value)])
    with pytest.raises(UserError, match=rf"defaults of its Config: m\.field.*{answer}.*; permitted are true and false"):
        check_defaults("m", config)
    with pytest.raises(UserError, match=r"suite s: m\.field"):
        recorded("m", config(), "suite s")


def test_types_of_a_config_that_cannot_be_read_are_told():
    config = make_dataclass("Config", [("lr", float, 0.1), ("rate", "Nonsense", 1)])
    with pytest.raises(
        UserError, match=r"m: a type in its Config .*'Nonsense' is not defined.*, of rate: Nonsense; perm"
    ):
        check_defaults("m", config)
    with pytest.raises(UserError, match="m: its Config is no dataclass"):
        check_defaults("m", type("Config", (), {"lr": 0.1}))
    check_defaults("m", make_dataclass("Config", [("lr", float)]))  # for suites that give all values
    check_defaults("m", Config)


def test_a_config_may_raise_anything():
    def fail(self):
        raise KeyError("lr")

    config = make_dataclass("Config", [("lr", float, 0.1)], namespace={"__post_init__": fail})
    with pytest.raises(UserError, match="suite s: m: its Config raises KeyError: 'lr'"):
        configure("m", config, {}, "suite s")


@pytest.mark.parametrize(("method", "key"), [("ewc", "lr"), ("packnet", "retrain_lr"), ("lid", "search_lr")])
def test_a_negative_learning_rate_is_refused_before_anything_is_trained(method, key):
    cls = registry.load(method)
    with pytest.raises(UserError, match=f"{method}.{key} = '-0.1': a learning rate is not negative"):
        configure(method, cls.Config, {key: "-0.1"})
    assert getattr(configure(method, cls.Config, {key: "0.1"}), key) == 0.1
    if key != "lr":
        assert getattr(configure(method, cls.Config, {key: "none"}), key) is None
