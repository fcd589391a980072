"""Samples in the usual form of Avalanche: PIL images, converted to tensors one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_tensor

from benchmarks import avalanche
from benchmarks.types import UserError

if TYPE_CHECKING:
    from avalanche.benchmarks.utils import AvalancheDataset

    from benchmarks.samples import Samples


class Pictures(Dataset):
    """Dataset of (input, label): a PIL image through `ToTensor`, flattened if the network needs it."""

    def __init__(self, samples: Samples) -> None:
        if samples.pixels.dtype is not torch.uint8 or samples.transform or samples.normalise:
            raise UserError("only a benchmark of plain 8-bit images can be timed from PIL images")
        self.targets = samples.labels.tolist()
        self.images = samples.pixels[samples.rows].movedim(1, -1).squeeze(-1).cpu().numpy()
        self.shape = samples.batch(slice(1)).x.shape[1:]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_tensor(Image.fromarray(self.images[index])).reshape(self.shape), self.targets[index]


def data_set(samples: Samples, task_label: int) -> AvalancheDataset:
    """Samples as a data set of Avalanche that holds PIL images."""
    return avalanche.labelled(Pictures(samples), task_label)
