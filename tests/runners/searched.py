"""Methods for tests of tuning: their fields have types that not every range fits."""

from dataclasses import dataclass, field

from methods.finetune import Finetune
from methods.search import Even, Log, OneOf, ranges


class Listed(Finetune):
    name = "listed"

    @dataclass(frozen=True)
    class Config(Finetune.Config):
        widths: list[int] = field(default_factory=lambda: [1])


class Depth(Finetune):
    name = "depth"

    @dataclass(frozen=True)
    class Config(Finetune.Config):
        depth: int = 3
        search = ranges(depth=Log(1, 100))


class Width(Finetune):
    name = "width"

    @dataclass(frozen=True)
    class Config(Finetune.Config):
        width: int | None = 3
        search = ranges(width=Even(1, 100))


class Wrong(Finetune):
    name = "wrong"

    @dataclass(frozen=True)
    class Config(Finetune.Config):
        depth: int = 3
        search = ranges(depth=OneOf((3, 4.5)))


class Right(Finetune):
    name = "right"

    @dataclass(frozen=True)
    class Config(Finetune.Config):
        depth: int | None = 3
        shares: tuple[float, ...] = (0.5,)
        rate: float | None = None
        search = ranges(depth=OneOf((3, None)), shares=OneOf(((0.5,), (0.5, 1))), rate=Even(0, 1))
