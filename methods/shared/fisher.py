"""Fisher information and other sums of squared (or absolute) gradients over samples or batches.

All results are flat (P,) vectors over `trainable(network)`, computed in evaluation mode. Sums over samples
use each sample's own gradient, so they do not depend on the batch size; sums over batches use the gradient of the
batch's mean, as several official codes do, and do depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from benchmarks.samples import Samples
from benchmarks.types import UserError
from methods.shared.anchor import flatten, trainable

Fisher = Literal["exact", "sampled", "empirical", "batched", "intercontinet"]
"""Estimators of the Fisher information's diagonal; see `fisher`."""

Answer = Callable[[Tensor], Tensor]
"""Function from all logits (b, n_outputs) to the admissible ones (b, C)."""
Objectives = Callable[[Tensor, Tensor], Tensor]
"""Function (all logits (b, n_outputs), labels (b,)) -> k objectives of each sample (k, b), to be differentiated."""
Power = Callable[[Tensor], Tensor]
"""Function applied to each gradient before the sum, torch.square or torch.abs; must be multiplicative."""

SAMPLES_AT_ONCE = 1024
SCALARS_AT_ONCE = 1 << 26
"""Bound on samples x parameters held as explicit per-sample gradients (256 MiB of float32)."""


def fisher(
    network: nn.Module, samples: Samples, answer: Answer, variant: Fisher, batch_size: int, limit: int | None = None
) -> Tensor:
    """Diagonal of the Fisher information of the network's predictions on `samples`, (P,).

    With p = softmax(answers) and g_c(x) the gradient of log p_c(x):
    exact: mean over x of sum_c p_c g_c^2, the definition;
    sampled: mean over x of g_c^2 for one c drawn from p, an unbiased estimate of it;
    empirical: mean over x of g_y^2 at the label y, which is not the Fisher information but often used for it;
    batched: mean over batches of (mean of g_y)^2, as in Avalanche 0.6; about 1 / batch_size of the empirical one;
    intercontinet: sum over batches of (mean of g_c)^2 at the most probable c, as in InterContiNet's code.

    limit: number of samples drawn at random (first three variants). batch_size: for the last two;
    the last partial batch counts as one. Raises UserError for an unknown variant.
    """
    if variant not in get_args(Fisher):
        raise UserError(f"fisher = {variant!r}: permitted are {', '.join(get_args(Fisher))}")
    if variant in ("batched", "intercontinet"):
        most_probable = variant == "intercontinet"

        def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
            answers = answer(logits)
            return cross_entropy(answers, answers.argmax(1) if most_probable else labels)

        total = sum_over_batches(network, samples, batch_size, mean_loss, torch.square)
        return total if most_probable else total / -(-len(samples) // batch_size)

    def all_classes(logits: Tensor, labels: Tensor) -> Tensor:
        log_p = answer(logits).log_softmax(1)
        # The square of sqrt(p_c) g_c is the term p_c g_c^2 of the expectation.
        return ((log_p.detach() / 2).exp() * log_p).t()

    def one_class(logits: Tensor, labels: Tensor) -> Tensor:
        return -cross_entropy(answer(logits), labels, reduction="none")[None]

    samples = draw(samples, limit)
    if variant == "sampled":
        samples = replace(samples, labels=_sampled_labels(network, samples, answer))
    objectives = all_classes if variant == "exact" else one_class
    return sum_over_samples(network, samples, objectives, torch.square) / len(samples)


def draw(samples: Samples, limit: int | None) -> Samples:
    """Draw at most `limit` of the samples without replacement, by torch's generator; all if None."""
    if limit is None or limit >= len(samples):
        return samples
    chosen = torch.randperm(len(samples))[:limit].to(samples.device)
    task = samples.task if isinstance(samples.task, int) else samples.task[chosen]
    return replace(samples, rows=samples.rows[chosen], labels=samples.labels[chosen], task=task)


def sum_over_samples(network: nn.Module, samples: Samples, objectives: Objectives, power: Power) -> Tensor:
    """Sum over samples and objectives of power(gradient of the objective at the sample), (P,)."""
    parameters = trainable(network)
    totals = [torch.zeros_like(p) for p in parameters]
    layers = _linear_layers(network, parameters)
    with evaluating(network):
        for batch in samples.batches(SAMPLES_AT_ONCE):
            parts = _by_layers(network, layers, batch.x, batch.y, objectives, power) if layers else None
            if parts is None:
                parts = _by_vmap(network, batch.x, batch.y, objectives, power)
            for total, part in zip(totals, parts, strict=True):
                total += part
    return flatten(totals)


def sum_over_batches(
    network: nn.Module,
    samples: Samples,
    batch_size: int,
    objective: Callable[[Tensor, Tensor], Tensor],
    power: Power,
) -> Tensor:
    """Sum over batches, in order, of power(gradient of the 0-d `objective(all logits, labels)`), (P,)."""
    parameters = trainable(network)
    total = torch.zeros_like(flatten(parameters))
    with evaluating(network):
        for batch in samples.batches(batch_size):
            value = objective(network(batch.x), batch.y)
            gradients = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
            total += power(flatten(gradients))
    return total


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Enter evaluation mode; restores the mode of every module on exit."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def _sampled_labels(network: nn.Module, samples: Samples, answer: Answer) -> Tensor:
    """Draw a label of each sample (n,), on the host because other devices would draw others for the same seed."""
    with evaluating(network):
        drawn = [answer(network(b.x)).softmax(1).cpu().multinomial(1) for b in samples.batches(SAMPLES_AT_ONCE)]
    return torch.cat(drawn).squeeze(1).to(samples.device)


def _by_vmap(network: nn.Module, x: Tensor, labels: Tensor, objectives: Objectives, power: Power) -> list[Tensor]:
    """Per-sample gradients of any network without batch statistics, held for a few samples at a time."""
    parameters = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with torch.no_grad():
        n_objectives = objectives(network(x[:1]), labels[:1]).shape[0]

    def value(named: dict[str, Tensor], index: int, x: Tensor, label: Tensor) -> Tensor:
        return objectives(functional_call(network, named, (x[None],)), label[None])[index, 0]

    gradients = vmap(grad(value), in_dims=(None, None, 0, 0))
    at_once = max(1, SCALARS_AT_ONCE // sum(p.numel() for p in parameters.values()))
    for part_x, part_labels in zip(x.split(at_once), labels.split(at_once), strict=True):
        for index in range(n_objectives):
            for name, gradient in gradients(parameters, index, part_x, part_labels).items():
                totals[name] += power(gradient).sum(0)
    return list(totals.values())


def _linear_layers(network: nn.Module, parameters: list[nn.Parameter]) -> list[nn.Linear]:
    """Linear layers that together own all parameters, each exactly once; empty if other layers own some."""
    layers = [module for module in network.modules() if type(module) is nn.Linear]
    owned = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    same = len(owned) == len(parameters) and {id(p) for p in owned} == {id(p) for p in parameters}
    return layers if same else []


def _by_layers(
    network: nn.Module, layers: list[nn.Linear], x: Tensor, labels: Tensor, objectives: Objectives, power: Power
) -> list[Tensor] | None:
    """Per-sample sums for linear layers, without per-sample gradients.

    A sample's gradient is the outer product of the output's gradient and the input, so the sum of its squares
    is one product of squares. None if a layer is called more than once or on more than one vector per sample,
    where this does not hold.
    """
    inputs: dict[nn.Module, Tensor] = {}
    outputs: dict[nn.Module, GradientEdge] = {}
    plain = True

    def record(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal plain
        plain = plain and layer not in inputs and output.dim() == 2 and output.shape[0] == len(x)
        inputs[layer] = arguments[0].detach()
        if output.requires_grad:
            outputs[layer] = get_gradient_edge(output)  # of this value, even if it is changed in place afterwards

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        values = objectives(network(x), labels)
    finally:
        for handle in handles:
            handle.remove()
    if not plain:
        return None
    powers: dict[nn.Module, Tensor] = {}
    for i, value in enumerate(values):
        deltas = torch.autograd.grad(
            value.sum(), list(outputs.values()), retain_graph=i + 1 < len(values), allow_unused=True
        )
        for layer, delta in zip(outputs, deltas, strict=True):
            if delta is not None:
                powers[layer] = powers[layer].add_(power(delta)) if layer in powers else power(delta)
    sums: dict[int, Tensor] = {}
    for layer, delta in powers.items():
        sums[id(layer.weight)] = delta.t() @ power(inputs[layer])
        sums[id(layer.bias)] = delta.sum(0)
    return [sums.get(id(p), torch.zeros_like(p)) for p in trainable(network)]
