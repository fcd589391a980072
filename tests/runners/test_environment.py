"""What a record says of how training ran: what did run, not what would run for one task."""

from benchmarks.types import TIL
from methods.nets import blockwise, compiled, fused
from runners import environment
from tests.methods.helpers import learn, made, opened


def test_every_module_that_computed_the_output_layer_is_named(monkeypatch):
    """The first task has one box at a time; the second has more, which other passes serve here."""
    one_box = compiled if compiled.library() else blockwise
    monkeypatch.setattr(fused, "passes_for", lambda weight, boxes: one_box if boxes < 2 else blockwise)
    stream = opened(TIL)
    method = made("hyperinterval", stream, chunk=0)
    assert "output_layer" not in environment.of_training(method)
    name = one_box.__name__.rpartition(".")[2]
    learn(method, stream, [0])
    assert environment.of_training(method)["output_layer"] == name
    learn(method, stream, [1])
    assert environment.of_training(method)["output_layer"] == ", ".join(sorted({"blockwise", name}))
