"""A record names what decides its numbers: which kernels could, and which passes did, compute them."""

import json
import subprocess
import sys
from importlib import metadata

import torch

from benchmarks.types import TIL
from methods.hypernetworks import compiled, output_layer, torch_passes
from runners.records import environment
from tests.methods.helpers import learn, made, opened
from tests.runners import helpers

CODE = """
import json, torch
from runners.records import environment
print(json.dumps(environment.of_worker(torch.device("cpu"))))
"""


def test_a_worker_tells_which_kernels_it_computes_with(monkeypatch):
    for name in environment._KERNEL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    found = environment.of_worker(torch.device("cpu"))
    assert set(environment.CPU_KERNELS) <= found.keys()
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["kernel_settings"] == "default"
    for name, there in (("mkl", torch.backends.mkl), ("onednn", torch.backends.mkldnn)):
        assert found[name][0].isdigit() if there.is_available() else found[name] is None


def test_a_worker_tells_what_its_user_made_of_the_choice():
    """In a process of its own, for libraries read these when they are loaded."""
    told = {
        "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OMP_NUM_THREADS": "2",
    }  # fmt: skip
    surroundings = helpers.environment(PYTHONPATH=str(helpers.ROOT), **told)
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=surroundings, check=True)
    found = json.loads(done.stdout)
    assert (found["cpu_capability"], found["threads"]) == ("DEFAULT", 2)
    assert "ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE" in found["kernel_settings"]
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in found["kernel_settings"]


def test_every_module_that_computed_the_output_layer_is_named(monkeypatch):
    """The first task has one box at a time; the second has more, which other passes serve here."""
    one_box = compiled if compiled.library() else torch_passes
    monkeypatch.setattr(output_layer, "passes_for", lambda weight, boxes: one_box if boxes < 2 else torch_passes)
    stream = opened(TIL)
    method = made("hyperinterval", stream, chunk=0)
    assert "output_layer" not in environment.of_training(method)
    name = one_box.__name__.rpartition(".")[2]
    learn(method, stream, [0])
    assert environment.of_training(method)["output_layer"] == name
    learn(method, stream, [1])
    assert environment.of_training(method)["output_layer"] == ", ".join(sorted({"torch_passes", name}))


def test_the_record_has_the_versions_of_what_a_methods_code_imports(tmp_path, monkeypatch):
    """Of the installed distributions alone, under their own names: also where a module beside the file imports it."""
    site = tmp_path / "site-packages"
    about = site / "oddly_named-3.2.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: oddly-named\nVersion: 3.2\n")
    (about / "top_level.txt").write_text("odd_module\n")
    (site / "odd_module.py").write_text("")
    (tmp_path / "mine.py").write_text("import json\nimport helper\nimport not_there_at_all\n")
    (tmp_path / "helper.py").write_text("def f():\n    import odd_module, numpy.linalg\n")
    monkeypatch.syspath_prepend(site)
    found = environment.of_code(tmp_path / "mine.py")
    assert found == {"numpy": metadata.version("numpy"), "oddly-named": "3.2"}
