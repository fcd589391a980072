"""What a checkout of hypercl has in the modules that a step calls, as small as can be; it notes its calls."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import cross_entropy

NOTES: list[str] = []


class MLP:
    """mnets/mlp.py; the logits are the numbers of their classes."""

    def __init__(self, n_in, n_out, hidden_layers, use_bias, no_weights, verbose):
        sizes = [n_in, *hidden_layers, n_out]
        self.param_shapes = [shape for a, b in pairwise(sizes) for shape in ([b, a], [b])]
        self.n_out = n_out
        assert use_bias and no_weights and not verbose

    def to(self, device):
        return self

    def forward(self, x, weights):
        assert [list(weight.shape) for weight in weights] == self.param_shapes
        return torch.arange(float(self.n_out)).expand(len(x), -1) + 1e-6 * sum(weight.mean() for weight in weights)


class ChunkedHyperNetworkHandler(nn.Module):
    """mnist/chunked_hyper_model.py; all weights are one number, whatever the task."""

    def __init__(self, shapes, num_tasks, chunk_dim, layers, te_dim, activation_fn, use_bias, ce_dim):
        super().__init__()
        NOTES.append(f"built {num_tasks} tasks, chunk {chunk_dim}, layers {layers}, embeddings {te_dim} and {ce_dim}")
        self.shapes, self.theta = shapes, nn.ParameterList([nn.Parameter(torch.zeros(()))])
        self.embeddings = nn.ParameterList(nn.Parameter(torch.zeros(te_dim)) for _ in range(num_tasks))

    def get_task_emb(self, task):
        return self.embeddings[task]

    def forward(self, task):
        NOTES.append(f"generated {task}")
        return [(self.theta[0] + self.embeddings[task].sum()).expand(shape) for shape in self.shapes]


class Classifier:
    """mnets/classifier_interface.py."""

    @staticmethod
    def softmax_and_cross_entropy(logits, wanted):
        assert wanted.dtype == torch.float32 and (wanted.sum(1) == 1).all()
        NOTES.append(f"classes {logits[0].detach().round().int().tolist()}")
        return cross_entropy(logits, wanted)


def calc_delta_theta(optimizer, use_sgd_change, lr, detach_dt):
    """utils/optim_step.py; the task's gradient must be there."""
    assert not use_sgd_change and detach_dt
    NOTES.append(f"ahead by {lr}")
    return [-lr * p.grad for group in optimizer.param_groups for p in group["params"]]


def get_current_targets(task_id, hnet):
    """utils/hnet_regularizer.py."""
    NOTES.append(f"targets of {task_id}")
    return [hnet.theta[0].detach() - 1] * task_id


def calc_fix_target_reg(hnet, task_id, targets, mnet, dTheta):
    """utils/hnet_regularizer.py."""
    NOTES.append(f"drift of {len(targets)}{'' if dTheta is None else ' ahead'}")
    return sum((hnet.theta[0] - target).square() for target in targets) / task_id
