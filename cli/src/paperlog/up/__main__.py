"""`python -m paperlog.up` is what `make run` runs."""

import sys

from paperlog.start import start

sys.exit(start("paperlog.up.demo"))
