"""`paperlog up` with its services, not its broker, under a control group: `python capped_up.py FOLDER DATA EMBEDDING`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from paperlog.up.command import up

IN_CGROUP = str(Path(__file__).with_name("in_cgroup.py"))


def argv_of(module: str) -> Sequence[str]:
    return (sys.executable, IN_CGROUP, sys.argv[1], sys.executable, "-m", f"{module}.app")


if __name__ == "__main__":
    sys.exit(up(Path(sys.argv[2]), 0, sys.argv[3], argv_of=argv_of))
