from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import pytest

from benchmarks.types import UserError
from runners.grid.hyperparameters import as_json, configure, describe, parse_assignment


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
        ("widths", "[]", ()),
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
        ("widths", "1,b"),
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
    with pytest.raises(UserError, match=r"m: lr = -1\.0 must be positive"):
        configure("m", Config, {"lr": -1})


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
