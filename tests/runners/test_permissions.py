"""Files written under temporary names have the permissions that the user's umask asks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
from pathlib import Path
from runners.records.folder import write_atomically
write_atomically(Path("record.json"), b"{}")
"""


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_record_has_the_permissions_that_the_umask_asks_for(tmp_path: Path, umask: int, mode: int) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, check=True, umask=umask,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == mode
