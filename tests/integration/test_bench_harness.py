"""A bench that is ended leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.stack import until

ROOT = Path(__file__).resolve().parents[2]
BENCH = """
import time
from harness.stack import fake_provider, scratch
with scratch() as folder, fake_provider(0, folder / "ledger.jsonl") as provider:
    print(folder, provider.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_bench_that_is_ended_ends_what_it_started_and_takes_its_folder_away(number: signal.Signals):
    with subprocess.Popen(
        [sys.executable, "-c", BENCH],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'bench'}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - the suite may ignore it
    ) as bench:
        try:
            assert bench.stdout is not None
            folder, provider = bench.stdout.readline().split()
            assert Path(folder).is_dir()
            bench.send_signal(number)
            assert bench.wait(60) != 0
        finally:
            bench.kill()
    assert not Path(folder).exists()
    until(lambda: not Path(f"/proc/{provider}").exists(), 10, "the fake provider has not ended")
