"""`python -m tests.faults.soak --hours H [--seed N]`: every kind of fault mixed, one every 3 s on average, then the auditor.

Imports go in all the while. At the end everything is healed and drained. Fails when an invariant is broken, when a kind
was never injected, or when fewer than half of the faults that the average calls for were.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Producer
from tests.faults.inputs import TOPICS, send_poison
from tests.faults.provider_answers import BROKEN_ANSWERS, WRONG_ANSWERS
from tests.faults.store_faults import copy_while_it_stands, has_opened, replace_store
from tests.faults.world import MODULES, SERVICES, TERMINAL, World

EVERY_S = 3.0
OPEN_MAX = 2
BAD_ANSWERS = ("rate_limit", *BROKEN_ANSWERS, *WRONG_ANSWERS)
KINDS_FROM_S = 300.0
"""A shorter run may miss a kind without anything being wrong."""


class Soak:
    def __init__(self, world: World) -> None:
        self.world = world
        self.imports: list[str] = []
        self._there: set[str] = set()
        self._older: Path | None = None
        self.faults: dict[str, tuple[int, Callable[[], None]]] = {
            "kill": (8, self._kill),
            "broker": (1, lambda: self._dies("kafka")),
            "frozen": (2, self._freeze),
            "answers": (8, self._answers),
            "member": (4, self._member),
            "older": (1, self._store),
            "poison": (3, self._poison),
            "commands": (3, self._commands),
        }

    def run(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        importing = threading.Thread(target=self._keep_importing, args=(ends,), daemon=True)
        importing.start()
        names, weights = list(self.faults), [weight for weight, _ in self.faults.values()]
        while time.monotonic() < ends:
            time.sleep(min(self.world.chance.expovariate(1 / EVERY_S), 4 * EVERY_S))
            name = self.world.chance.choices(names, weights)[0]
            self.faults[name][1]()
            self.world.injected[name] += 1
        importing.join(120)

    def heal(self) -> None:
        self.world.provider.tell(script=[], shares={})
        for name in list(self._there):
            self.world.died(name)
            self.world.end_other(f"{name}-2")
        self._continue()

    def _keep_importing(self, ends: float) -> None:
        number = 0
        while time.monotonic() < ends:
            try:
                open_ = [one for one in self.imports if self.world.stack.status(one)["state"] not in TERMINAL]
                if len(open_) < OPEN_MAX:
                    number += 1
                    library = self.world.library(f"texts-{number}", documents=40, chunks_each=30)
                    self.imports.append(self.world.import_(library, f"Texts {number % 5}"))
            except (AssertionError, OSError, subprocess.TimeoutExpired):
                continue  # asked again under another number: what was taken all the same ends too
            time.sleep(1)

    def _dies(self, name: str) -> None:
        self.world.kill(name)
        self.world.injected["kill"] -= 1  # counted by name below

    def _kill(self) -> None:
        self._dies(self.world.chance.choice(SERVICES))

    def _freeze(self) -> None:
        name = self.world.chance.choice((*SERVICES, "kafka"))
        with self.world.suffering(name):
            self.world.send(name, signal.SIGSTOP)
            time.sleep(self.world.chance.uniform(1, 13))
            self.world.send(name, signal.SIGCONT)

    def _answers(self) -> None:
        kinds = self.world.chance.sample(BAD_ANSWERS, 4)
        self.world.provider.tell(script=[{"kind": kind} for kind in kinds], retry_after_s=0.5)

    def _member(self) -> None:
        name = self.world.chance.choice(list(MODULES))
        if name in self._there:
            self._there.discard(name)
            self.world.died(name)
            self.world.end_other(f"{name}-2")
        else:
            self._there.add(name)
            self.world.start_other(name)

    def _store(self) -> None:
        # Two processes may hold it in turn, and whose death to wait for is not known then. And one that was lost is
        # filled again from the log, which takes the longer the longer this goes on.
        if "graph-writer" in self._there or not has_opened(self.world):
            self.world.injected["older"] -= 1  # nothing happens, and nothing is counted
            return
        if self._older is None:
            self._older = copy_while_it_stands(self.world)
        else:
            older, self._older = self._older, None
            replace_store(self.world, older if self.world.chance.random() < 0.5 else None)
            shutil.rmtree(older, ignore_errors=True)

    def _poison(self) -> None:
        producer = Producer({"bootstrap.servers": self.world.stack.endpoints()["kafka"], "log_level": 0})
        send_poison(self.world, producer, self.world.chance.choice(list(TOPICS)), 2)
        self._continue()

    def _continue(self) -> None:
        """As an operator would: what comes in a row here is ours."""
        for service in self.world.stack.endpoints()["services"].values():
            try:
                self.world.post(f"{service['url']}/continue")
            except OSError:
                continue  # it is dead just now, and will be asked again

    def _commands(self) -> None:
        if not self.imports:
            return
        import_id = self.world.chance.choice(self.imports[-3:])
        for command in ("cancel", "resume"):
            try:
                self.world.stack.request("POST", f"/api/imports/{import_id}/{command}")
            except OSError:
                continue


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or its processes would stay
    folder = Path(tempfile.mkdtemp(prefix="paperlog-soak-")) / "soak"
    print(f"seed {arguments.seed}; in {folder}", flush=True)
    seconds = arguments.hours * 3600
    env = {"PAPERLOG_REQUESTS_MAX": "16", "PAPERLOG_REQUEST_S_MAX": "5"}
    with World(folder, arguments.seed, env=env, latency_ms=100, finish_s_max=600) as world:
        soak = Soak(world)
        soak.run(seconds)
        soak.heal()
        world.drain()
        code = world.finish()
    short = [name for name in soak.faults if not world.injected[name]] if seconds >= KINDS_FROM_S else []
    too_few = world.injected.total() < seconds / EVERY_S / 2
    print(f"injected {dict(world.injected)}, deaths {len(world.deaths)}, imports {len(soak.imports)}")
    if short or too_few:
        print(f"BROKEN fewer faults than planned: {world.injected.total()}; none of {short}")
    return int(bool(code or short or too_few))


if __name__ == "__main__":
    sys.exit(main())
