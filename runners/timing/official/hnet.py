"""The authors' step of a chunked HNET: github.com/chrhenning/hypercl, `mnist/train_splitMNIST.py`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.types import DIL, UserError
from runners.timing.official.step import Step, checkout, stand_in


class OfficialStep(Step):
    """See `Step`. config: our HNET's. Raises UserError for one whose step is not the authors' step for MNIST."""

    def __init__(self, folder: Path, stream: Any, config: Any, device: str, widths: list[int]) -> None:
        import torch

        super().__init__(stream, device)
        if not config.chunk:
            raise UserError("--official times HNET with chunks; set hnet.chunk")
        stand_in("utils.misc", configure_matplotlib_params=lambda *_, **__: None)  # for plots, of an older Matplotlib
        with checkout(folder, "its packages"):
            self.step_ahead: Any = import_module("utils.optim_step")
            self.regulariser: Any = import_module("utils.hnet_regularizer")
            self.criterion: Any = import_module("mnets.classifier_interface").Classifier.softmax_and_cross_entropy
            target, generator = import_module("mnets.mlp").MLP, import_module("mnist.chunked_hyper_model")
        self.config, self.classes = config, stream.spec.classes_per_task
        heads = 1 if stream.spec.scenario == DIL else len(stream)
        self.target: Any = target(
            n_in=self.n_inputs, n_out=heads * self.classes, hidden_layers=widths, use_bias=True, no_weights=True,
            verbose=False,
        ).to(self.device)  # fmt: skip
        n = sum(torch.Size(shape).numel() for shape in self.target.param_shapes)
        chunk = min(config.chunk, n)
        self.hypernetwork: Any = generator.ChunkedHyperNetworkHandler(
            self.target.param_shapes, len(stream), chunk_dim=chunk, layers=list(config.hidden),
            te_dim=config.embedding, activation_fn=torch.nn.ReLU(), use_bias=True, ce_dim=config.chunk_embedding,
        ).to(self.device)  # fmt: skip
        self.output_weights, self.outputs = config.hidden[-1] * chunk, -(-n // chunk) * chunk

    def begin(self, t: int, task: Any) -> None:
        import torch

        super().begin(t, task)
        self.optimizer = torch.optim.Adam(self.hypernetwork.theta, lr=self.config.lr)
        self.of_embedding = torch.optim.Adam([self.hypernetwork.get_task_emb(t)], lr=self.config.lr)
        self.targets = self.regulariser.get_current_targets(t, self.hypernetwork)
        start = 0 if self.stream.spec.scenario == DIL else t * self.classes
        self.head = slice(start, start + self.classes)

    def step(self, x: Any, y: Any) -> None:
        import torch

        self.optimizer.zero_grad()
        self.of_embedding.zero_grad()
        logits = self.target.forward(x.flatten(1), self.hypernetwork.forward(self.t))[:, self.head]
        wanted = torch.nn.functional.one_hot(y % self.classes, self.classes).to(logits)  # as their data sets store it
        self.criterion(logits, wanted).backward(retain_graph=self.t > 0)
        if self.t:
            ahead = None
            if self.config.look_ahead:
                ahead = self.step_ahead.calc_delta_theta(self.optimizer, False, lr=self.config.lr, detach_dt=True)
            drift = self.regulariser.calc_fix_target_reg(
                self.hypernetwork, self.t, targets=self.targets, mnet=self.target, dTheta=ahead
            )
            (self.config.beta * drift).backward()
        self.optimizer.step()
        self.of_embedding.step()
