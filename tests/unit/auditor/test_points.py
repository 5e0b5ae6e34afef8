"""The points at which a fault ends a service are found in the service as it is now."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.points import PATCHES

PATCH = """
import sys
from tests.faults.points import PATCHES, Armed, patch_clock, patch_polls
patch_clock(sys.argv[1]), patch_polls(sys.argv[1]), PATCHES[sys.argv[1]](Armed(sys.argv[1]))
"""


@pytest.mark.parametrize("module", PATCHES)
def test_every_point_is_there(module: str, tmp_path: Path):
    """In a process of its own, for what is patched stays patched."""
    done = subprocess.run(
        [sys.executable, "-c", PATCH, module],
        env={**os.environ, "FAULTS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
