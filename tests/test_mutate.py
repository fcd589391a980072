"""The mutation run's changes, and that it tells those that a test notices from those that none does."""

from pathlib import Path

from tests import mutate

CODE = b"""
@keep(1)
def f(a: int, b: str, *, c: float = 0.5) -> int:
    \"\"\"1 + 1\"\"\"
    if TYPE_CHECKING:
        a = 1 + 1
    log.info("no", 1)
    self.x = f"{1 + 1}"
    assert a < 1
    return a < b and g(a, b, k=c)

class Config:
    rate: float = 0.1
"""


def test_every_change_is_one_of_its_own_and_leaves_texts_annotations_and_defaults_of_a_config_alone() -> None:
    found = [str(mutant).partition(": ")[2] for mutant in mutate.mutants(CODE)]
    assert sorted(found) == sorted([
        "0.5  ->  1.0",
        'self.x = f"{1 + 1}"  ->  pass',
        "a < b and g(a, b, k=c)  ->  (a < b or g(a, b, k=c))",
        "a < b  ->  (a <= b)",
        "a < b  ->  (a >= b)",
        "g(a, b, k=c)  ->  g(b, a, k=c)",
        "g(a, b, k=c)  ->  g(a, b)",
    ])  # fmt: skip
    for mutant in mutate.mutants(CODE):
        assert mutant.new.encode() in mutant.applied(CODE) and mutant.old.encode() in CODE


def test_a_copy_is_run_and_what_its_tests_say_is_noticed(tmp_path: Path) -> None:
    for text, told in (("True", False), ("False", True)):
        (tmp_path / "test_it.py").write_text(f"def test_it(): assert {text}\n")
        assert mutate.noticed(tmp_path, ["test_it.py"], None) is told
    (tmp_path / "test_it.py").write_text("import time\ndef test_it(): time.sleep(600)\n")
    assert mutate.noticed(tmp_path, ["test_it.py"], 0.2)


def test_the_tests_of_a_file_are_those_that_import_it_or_bear_its_name() -> None:
    found = mutate.tests_of(Path("methods/shared/selection.py"))
    assert "tests/methods/test_selection.py" in found and "tests/methods/test_masks.py" not in found
