"""`python in_cgroup.py FOLDER PROGRAM ARG…`: joins the control group, then becomes the program."""

import os
import sys
from pathlib import Path

Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
