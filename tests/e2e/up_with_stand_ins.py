"""`paperlog up` with a real broker and stand-ins for the services: `python up_with_stand_ins.py DATA PORT EMBEDDING`."""

import sys
from pathlib import Path

from paperlog.up.command import up

STAND_IN = str(Path(__file__).with_name("stand_in.py"))

sys.exit(
    up(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        sys.argv[3],
        argv_of=lambda module: (sys.executable, STAND_IN, module),
    )
)
