"""The authors' HyperMask step: github.com/gmum/HyperMask."""

from __future__ import annotations

from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runners.timing.official.step import Step, checkout, stand_in

LOADERS = ("set_hyperparameters", "prepare_split_cifar100_tasks", "prepare_split_cifar100_tasks_aka_FeCAM",
           "prepare_permuted_mnist_tasks", "prepare_split_mnist_tasks", "prepare_tinyimagenet_tasks")  # fmt: skip
"""What their main program imports from their data module, none of which a step needs."""


class _Percentile:
    """A percentile by sorting, as the package that they use takes it."""

    def __call__(self, values: Any, percentiles: list[float]) -> Any:
        ordered, at = values.sort()[0], (len(values) - 1) * percentiles[0] / 100
        low = int(at)
        return ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


class OfficialStep(Step):
    """See `Step`. config: our HyperMask's."""

    def __init__(self, folder: Path, stream: Any, config: Any, device: str, widths: list[int]) -> None:
        import torch

        super().__init__(stream, device)
        stand_in("datasets", **dict.fromkeys(LOADERS))
        if find_spec("torchpercentile") is None:
            stand_in("torchpercentile", Percentile=_Percentile)
        if find_spec("retry") is None:
            stand_in("retry", retry=lambda *_, **__: lambda function: function)
        with checkout(folder, "hypnettorch"):
            self.program: Any = import_module("main")
            self.regulariser: Any = import_module("hypnettorch.utils.hnet_regularizer")
        self.config = config
        self.target: Any = self.program.MLP(
            n_in=self.n_inputs, n_out=stream.spec.classes_per_task, hidden_layers=widths, use_bias=True,
            no_weights=False, verbose=False,
        ).to(self.device)  # fmt: skip
        self.hypernetwork: Any = self.program.HMLP(
            self.target.param_shapes, uncond_in_size=0, cond_in_size=config.embedding, activation_fn=torch.nn.ELU(),
            layers=list(config.hidden), num_cond_embs=len(stream), verbose=False,
        ).to(self.device)  # fmt: skip
        self.criterion = torch.nn.CrossEntropyLoss()
        self.output_weights = config.hidden[-1] * sum(torch.Size(s).numel() for s in self.target.param_shapes)

    def begin(self, t: int, task: Any) -> None:
        import torch

        super().begin(t, task)
        parameters = [*self.hypernetwork.parameters(), *self.target.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=self.config.lr)
        if t:
            self.targets = self.regulariser.get_current_targets(t, self.hypernetwork)
            self.before = deepcopy(self.target.weights)

    def step(self, x: Any, y: Any) -> None:
        import torch

        program, config = self.program, self.config
        self.optimizer.zero_grad()
        outputs = self.hypernetwork.forward(cond_id=self.t)
        masks = program.prepare_network_sparsity(outputs, config.sparsity)
        movement: Any = 0.0
        if self.t:
            first = program.get_number_of_batch_normalization_layer(self.target)
            for i, mask in enumerate(masks):
                moved = self.target.weights[i + first] - self.before[i + first]
                movement = movement + torch.norm(moved * mask if config.masked_norm else moved, p=config.norm)
        weights = program.apply_mask_to_weights_of_network(self.target, masks)
        error = self.criterion(self.target.forward(x.flatten(1), weights=weights), y)
        drift: Any = 0.0
        if self.t:
            drift = self.regulariser.calc_fix_target_reg(
                self.hypernetwork, self.t, targets=self.targets, mnet=self.target, prev_theta=None,
                prev_task_embs=None, inds_of_out_heads=None, batch_size=-1,
            )  # fmt: skip
        self.line = f"{self.t};{drift};{movement}"
        loss = error + config.beta * drift / max(1, self.t) + config.lam * movement
        loss.backward()
        self.optimizer.step()
