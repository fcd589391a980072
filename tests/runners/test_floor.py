"""Floor of a chunked hypernetwork's step, and the order of the authors' step in the same run."""

import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import catalogue
from benchmarks.types import DIL, TIL, UserError
from methods import registry
from runners.timing import official
from runners.timing.floor import Layer, of_method
from runners.timing.measure import opened
from runners.timing.rounds import Order

OFFICIAL = Path(__file__).with_name("official_hnet.py")
MODULES = ("utils/optim_step", "utils/hnet_regularizer", "mnets/classifier_interface", "mnets/mlp")
HANDLER = "mnist/chunked_hyper_model"


def layer_of(method, **settings):
    cls = registry.load(method)
    spec = catalogue.find("split-digits").spec(TIL)
    return of_method(cls(spec, cls.Config(**settings), "cpu", 0))


def test_a_chunked_layer_has_a_row_for_each_output_of_a_chunk():
    chunked = layer_of("hnet", chunk=5000, hidden=(7,))
    weights = 64 * 100 + 100 + 100 * 100 + 100 + 100 * 10 + 10  # the target's, in four chunks, the last one cut
    assert 3 * 5000 < weights < 4 * 5000
    assert chunked == Layer(5000 * 7, 4 * 5000, True)
    assert layer_of("hnet", chunk=5000, hidden=(7,), look_ahead=False) == Layer(5000 * 7, 4 * 5000, False)
    assert layer_of("hnet", chunk=0, hidden=(7,)) == Layer(weights * 7)
    assert layer_of("finetune") == Layer()


def test_traffic_does_not_grow_with_the_old_tasks():
    """W read forward; W and two moments read and written; a gradient written and read, W, moments and W0 read."""
    layer = Layer(1000, 300, True)
    assert layer.bytes(0) == 4 * (1000 * 7 + 300 * 2)
    assert layer.bytes(1) == layer.bytes(9) == layer.bytes(0) + 4 * 1000 * 6
    assert Layer(1000, 300).bytes(9) == layer.bytes(0)
    assert Layer().bytes(9) == 0


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of hypercl, whose modules are forgotten afterwards."""
    for module in (*MODULES, HANDLER):
        file = tmp_path / f"{module}.py"
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text("from official_hnet import *\n")
    shutil.copy(OFFICIAL, tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("utils", "mnets", "mnist", "official_hnet"):
            del sys.modules[name]


def trained(folder, scenario, seen, **settings):
    """Notes of the official steps at these tasks, two at each, and the layer that they were told to have."""
    config = registry.load("hnet").Config(**{"chunk": 5000, "hidden": (9, 7), "embedding": 3, **settings})
    order = Order("hnet", "split-digits", scenario, "cpu", 1, 1, None, None, seen=seen, official=folder)
    timings, layer = official.train(order, opened(order), config)
    assert [timing.task for timing in timings] == list(seen)
    return sys.modules["official_hnet"].NOTES, layer


def test_the_official_hnet_is_called_in_its_order(checkout):
    """The task's own loss; from the second task on the step ahead from its gradient, and the drift there."""
    assert official.method_of(checkout) == "hnet"
    (built, *notes), layer = trained(checkout, TIL, (0, 3), chunk_embedding=2, lr=0.25)
    assert built == "built 5 tasks, chunk 5000, layers [9, 7], embeddings 3 and 2"
    assert layer == Layer(7 * 5000, 4 * 5000, True)
    first, later = (
        ["generated 0", "classes [0, 1]"],
        ["generated 3", "classes [6, 7]", "ahead by 0.25", "drift of 3 ahead"],
    )
    steps = 3  # two to warm up
    assert notes == ["targets of 0", *first * steps, "targets of 3", *later * steps]


def test_the_official_hnet_has_one_head_in_dil_and_may_not_look_ahead(checkout):
    (_, *notes), layer = trained(checkout, DIL, (2,), look_ahead=False)
    assert notes[:4] == ["targets of 2", "generated 2", "classes [0, 1]", "drift of 2"]
    assert not layer.look_ahead


def test_a_full_hypernetwork_is_not_timed_against_the_authors_chunked_one(checkout):
    with pytest.raises(UserError, match=r"set hnet\.chunk"):
        trained(checkout, TIL, (0,), chunk=0)
