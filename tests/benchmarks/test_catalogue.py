"""The catalogue: which benchmarks there are, in which scenarios, and what is said about a wrong name."""

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks.catalogue import BENCHMARKS, Augmentation, ClassOrder, Kind, find
from benchmarks.files import ARCHIVES, FILES
from benchmarks.numbers import check_budget
from benchmarks.stream import open_stream
from benchmarks.types import CIL, DIL, TIL, Budget, Scenario, UserError, ValidatedBudget

NAMES = {
    "split-digits",
    "permuted-digits",
    "split-mnist",
    "split-fashion-mnist",
    "permuted-mnist-10",
    "permuted-mnist-100",
    "rotated-mnist",
    "split-cifar-10",
    "split-cifar-100",
    "split-cifar-100-20x5",
    "split-cifar-100-5x20",
    "split-cifar-100-5x20-fecam",
    "split-cifar-100-20x5-fecam",
    "split-tiny-imagenet",
    "split-tiny-imagenet-20x10",
    "split-tiny-imagenet-10x20",
    "permuted-mnist-10-wsn",
    "split-cifar-100-wsn",
    "split-cifar-100-superclass",
    "split-tiny-imagenet-wsn",
    "cifar-mini",
}


def test_names() -> None:
    assert set(BENCHMARKS) == NAMES
    assert all(name == benchmark.name for name, benchmark in BENCHMARKS.items())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_scenario_is_defined_or_has_a_reason(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert benchmark.dataset in {**FILES, **ARCHIVES}
    assert {TIL, DIL} <= set(benchmark.scenarios)
    for scenario in Scenario:
        if scenario in benchmark.scenarios:
            assert benchmark.spec(scenario).scenario is scenario
        else:
            with pytest.raises(UserError, match=benchmark.undefined[scenario][:20]):
                benchmark.spec(scenario)


def test_rotated_mnist_has_no_cil() -> None:
    assert BENCHMARKS["rotated-mnist"].scenarios == (TIL, DIL)


@pytest.mark.parametrize(
    ("name", "n_tasks", "classes", "shape", "steps", "batch", "validation", "network"),
    [
        ("split-mnist", 5, 2, (1, 28, 28), 2000, 128, 1000, "mlp-400-400"),
        ("split-fashion-mnist", 5, 2, (1, 28, 28), 2000, 128, 1000, "mlp-400-400"),
        ("permuted-mnist-10", 10, 10, (1024,), 5000, 128, 500, "mlp-1000-1000"),
        ("permuted-mnist-100", 100, 10, (1024,), 5000, 128, 500, "mlp-1000-1000"),
    ],
)
def test_settings_are_those_of_the_papers(
    name: str, n_tasks: int, classes: int, shape: tuple[int, ...], steps: int, batch: int, validation: int, network: str
) -> None:
    benchmark = BENCHMARKS[name]
    spec = benchmark.spec(TIL)
    assert (spec.n_tasks, spec.classes_per_task, spec.input_shape, spec.network) == (n_tasks, classes, shape, network)
    assert (benchmark.budget.steps, benchmark.budget.batch_size, benchmark.validation) == (steps, batch, validation)


def test_outputs_by_scenario() -> None:
    benchmark = BENCHMARKS["permuted-mnist-10"]
    assert [benchmark.spec(scenario).n_outputs for scenario in (TIL, DIL, CIL)] == [100, 10, 100]


def test_spec_takes_another_network_and_a_plain_string() -> None:
    assert find("split-digits").spec("dil", network="mlp-30").network == "mlp-30"


@pytest.mark.parametrize(
    ("name", "tasks", "budget", "validation", "augmented", "constants"),
    [
        ("split-cifar-10", (5, 2), Budget(128, steps=2000), 1000, False, None),
        ("split-cifar-100", (10, 10), Budget(32, epochs=200), 500, True, 0.485),
        ("split-cifar-100-20x5-fecam", (20, 5), Budget(32, epochs=200), 250, True, 0.5071),
        ("split-tiny-imagenet", (40, 5), Budget(32, epochs=10), 250, False, 0.485),
    ],
)
def test_image_benchmarks_are_those_of_the_papers(name, tasks, budget, validation, augmented, constants) -> None:
    benchmark = find(name)
    assert ((benchmark.n_tasks, benchmark.classes_per_task), benchmark.budget) == (tasks, budget)
    assert benchmark.validation == validation
    assert (benchmark.augmentation is Augmentation.FLIP_CROP) == augmented
    assert (benchmark.normalisation and benchmark.normalisation.mean[0]) == constants


@pytest.mark.parametrize(
    ("name", "tasks", "shape", "budget", "validation", "network", "mean"),
    [
        ("permuted-mnist-10-wsn", (10, 10), (784,), Budget(10, epochs=5), 6000, "mlp-100-100-nobias", 0.1307),
        ("split-cifar-100-wsn", (10, 10), (3, 32, 32), ValidatedBudget(64, epochs=200, lowest_rate=1e-6), 250,
         "alexnet-hat-norm", 125.3 / 255),
        ("split-cifar-100-superclass", (20, 5), (3, 32, 32), ValidatedBudget(64, epochs=50, lowest_rate=1e-5), 125,
         "lenet-20-50", None),
        ("split-tiny-imagenet-wsn", (40, 5), (3, 64, 64), ValidatedBudget(10, epochs=10, lowest_rate=1e-6), 250,
         "tinynet", 0.485),
    ],
)  # fmt: skip
def test_settings_are_those_of_wsn(name, tasks, shape, budget, validation, network, mean) -> None:
    benchmark = find(name)
    assert ((benchmark.n_tasks, benchmark.classes_per_task), benchmark.budget) == (tasks, budget)
    assert (benchmark.input_shape, benchmark.validation, benchmark.network) == (shape, validation, network)
    assert (benchmark.normalisation and benchmark.normalisation.mean[0]) == mean
    assert (benchmark.augmentation, benchmark.padding) == (Augmentation.NONE, 0)


def test_constants_of_images_are_the_published_ones_in_every_channel() -> None:
    """Those of torchvision's networks for ImageNet; FeCAM's for CIFAR-100; HAT's, of pixels from 0 to 255."""
    for name in ("split-cifar-100", "split-cifar-100-5x20", "cifar-mini", "split-tiny-imagenet", "images-birds-5x2"):
        assert constants_of(name) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for name in ("split-cifar-100-5x20-fecam", "split-cifar-100-20x5-fecam"):
        assert constants_of(name) == ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761])
    mean, std = constants_of("split-cifar-100-wsn")
    assert [255 * value for value in mean] == pytest.approx([125.3, 123.0, 113.9], rel=1e-12)
    assert [255 * value for value in std] == pytest.approx([63.0, 62.1, 66.7], rel=1e-12)
    assert constants_of("permuted-mnist-10-wsn") == ([0.1307], [0.3081])


def constants_of(name: str) -> tuple[list[float], list[float]]:
    constants = find(name).normalisation
    assert constants is not None
    return list(constants.mean), list(constants.std)


def test_a_budget_by_validation_scales_and_comes_back_from_a_record_and_a_plain_one_is_as_ever() -> None:
    budget = ValidatedBudget(64, epochs=50, patience=3, divisor=4.0, lowest_rate=1e-5)
    assert budget.scaled(0.1) == ValidatedBudget(64, epochs=5, patience=3, divisor=4.0, lowest_rate=1e-5)
    assert Budget.of(vars(budget)) == budget
    plain = Budget(64, epochs=50)
    assert vars(plain) == {"batch_size": 64, "steps": None, "epochs": 50}
    assert type(Budget.of(vars(plain))) is Budget and plain != ValidatedBudget(64, epochs=50)
    for wrong in ({"patience": 0}, {"divisor": 1.0}, {"lowest_rate": 0.0}, {"batch_size": 0}):
        with pytest.raises(UserError, match=f"budget: {next(iter(wrong))} = "):
            ValidatedBudget(**{"batch_size": 64, "epochs": 5, **wrong})


def test_a_scaled_budget_is_the_nearest_whole_number_and_at_least_one() -> None:
    for n, factor, expected in ((9, 0.3, 3), (11, 0.3, 3), (3, 0.1, 1)):
        assert Budget(8, steps=n).scaled(factor) == Budget(8, steps=expected)
        assert Budget(8, epochs=n).scaled(factor) == Budget(8, epochs=expected)


@pytest.mark.parametrize("value", [2.5, 16.0, True, np.int64(16), float("nan")])
def test_a_budget_is_of_whole_numbers(value: Any) -> None:
    benchmark = find("split-digits")
    for name in ("batch_size", "steps", "patience"):
        budget = ValidatedBudget(**{"batch_size": 64, "steps": 5, name: value})
        with pytest.raises(UserError, match=f"budget: {name} = .* must be an int, at least 1"):
            dataclasses.replace(benchmark, budget=budget)
    with pytest.raises(UserError, match=r"budget: epochs = .* must be an int"):
        open_stream(benchmark, TIL, 0, budget=Budget(64, epochs=value))


@pytest.mark.parametrize("value", [True, float("inf")])
def test_rates_of_a_budget_are_finite_numbers(value: Any) -> None:
    for name in ("divisor", "lowest_rate"):
        with pytest.raises(UserError, match=f"budget: {name} = .* must be"):
            check_budget(ValidatedBudget(64, epochs=5, **{name: value}))


def test_any_folder_of_images_is_a_benchmark_by_its_name() -> None:
    benchmark = find("images-imagenet-100-5x20")
    assert (benchmark.dataset, benchmark.stored_shape) == ("folder/imagenet-100/64", (3, 64, 64))
    assert (benchmark.n_tasks, benchmark.classes_per_task, benchmark.validation) == (5, 20, 200)
    assert benchmark.augmentation is Augmentation.FLIP_CROP
    small = find("images-birds-3x4-32px-shuffled")
    assert (small.stored_shape, small.class_order) == ((3, 32, 32), ClassOrder.SHUFFLED)
    with pytest.raises(UserError, match=r"benchmark 'images-birds-3': write images-FOLDER-TASKSxCLASSES"):
        find("images-birds-3")


def test_unknown_scenario() -> None:
    with pytest.raises(UserError, match=r"unknown scenario 'online'; write one of til, dil, cil"):
        find("split-digits").spec("online")


def test_unknown_name_answers_with_the_nearest_and_the_list() -> None:
    with pytest.raises(UserError, match=r"'split-mnits'\. Did you mean split-mnist.*Available: .*rotated-mnist"):
        find("split-mnits")


def test_shuffled_variant_of_a_split_benchmark_only() -> None:
    shuffled = find("split-mnist-shuffled")
    assert (shuffled.name, shuffled.class_order, shuffled.kind) == (
        "split-mnist-shuffled",
        ClassOrder.SHUFFLED,
        Kind.SPLIT,
    )
    with pytest.raises(UserError, match="unknown benchmark 'rotated-mnist-shuffled'"):
        find("rotated-mnist-shuffled")


def test_catalogue_and_data_check_import_no_torch() -> None:
    code = (
        "import sys, benchmarks.catalogue, benchmarks.data; benchmarks.data.check('mnist'); "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
