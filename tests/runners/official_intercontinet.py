"""What a checkout of InterContiNet has at intervalnet/models/interval.py, as small as can be; it notes its calls."""

import os
from enum import Enum
from pathlib import Path

import torch
from torch import nn


class Mode(Enum):
    VANILLA = 0
    EXPANSION = 1
    CONTRACTION_SHIFT = 2
    CONTRACTION_SCALE = 3


def note(text: str) -> None:
    with Path(os.environ["NOTES"]).open("a") as file:
        file.write(text + "\n")


class IntervalMLP(nn.Module):
    def __init__(self, input_size, hidden_dim, output_classes, heads, **rest):
        super().__init__()
        self.mode, self.output_classes = Mode.VANILLA, output_classes
        self.heads = nn.ModuleList(nn.Linear(input_size, output_classes) for _ in range(heads))
        note(f"built {input_size} {hidden_dim} {output_classes} {heads} {sorted(rest)}")

    def switch_mode(self, mode):
        print("it says so in colours")
        self.mode = mode

    def freeze_task(self):
        note(f"froze in {self.mode.name}")

    def forward(self, x, task_labels):
        head = int(task_labels.unique())
        middle = self.heads[head](x.flatten(1))
        note(f"forward {self.mode.name} head {head}")
        return {"last": torch.stack([middle - 1, middle, middle + 1], 1).refine_names("N", "bounds", "features")}

    def clamp_radii(self):
        note("clamped")
