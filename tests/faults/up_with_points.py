"""`paperlog up` whose services are started by `points.py`, and come back at once however often they die.

`python -m tests.faults.up_with_points --data DIR --port N --embedding MODEL`; `FAULTS_DIR` is what `points.py` reads.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from paperlog.up import command
from paperlog.up.core import RestartPolicy
from paperlog.up.supervisor import Supervisor

POINTS = str(Path(__file__).with_name("points.py"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--embedding", required=True)
    told = parser.parse_args()
    # Who dies sixty times on purpose must not wait fifteen seconds for each return.
    command.Supervisor = partial(Supervisor, policy=RestartPolicy(backoff_s_max=0.2))  # type: ignore[attr-defined, assignment]  # where `up` finds it
    return command.up(
        told.data, told.port, told.embedding, argv_of=lambda module: (sys.executable, POINTS, module)
    )


if __name__ == "__main__":
    sys.exit(main())
