"""Faults that end processes: at random, at the broker, all at once with everything local."""

import itertools
import shutil
import signal
import threading
import time

from tests.faults.catalogue import fault
from tests.faults.world import DONE, SERVICES, TERMINAL, World, lose_everything_local

SLOW = {"PAPERLOG_REQUESTS_MAX": "8"}
"""With a latency, so that an import lasts long enough to be met half-way."""
BROKER_KILLS = 5
KILLS = 30
CLIENTS = 4
OUTAGE_S = 60.0
SESSION_S = 10.0
"""After which a member that is not heard of is taken for dead."""


@fault(
    "F1",
    "SIGKILL of each service at random over 10,000 chunks, two instances of each",
    {"kill": KILLS},
    latency_ms=150,
    env=SLOW,
    others=SERVICES,
)
def random_kills(world: World) -> None:
    import_id = world.import_(world.library("texts", documents=325, chunks_each=40), "Texts")
    victims = [*SERVICES, *(f"{name}-2" for name in SERVICES)] * 5
    world.chance.shuffle(victims)
    # Parsing is over long before the chunks are through: ingest dies first, in the middle of its documents.
    victims = ["ingest", "ingest-2"] * 2 + victims[: KILLS - 4]
    for number, name in enumerate(victims):
        if number < 4:
            world.wait_parsed(import_id, 20 + number * 60)
        else:
            world.wait_settled(import_id, (number - 3) * 340)
        world.kill(name)
    world.drain()


class Asking:
    """Several clients ask for small imports again and again; remembered is which requests were answered with 202."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_over = threading.Event()
        self._numbers = itertools.count(1)
        self.accepted: list[str] = []
        self.refused = 0

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._is_over.wait(1.5):
            number = next(self._numbers)
            text = f"Asked for {number} under fire\n\nThe heron waited {number} hours in the reeds.\n"
            boundary = "a-boundary"
            body = (
                f'--{boundary}\r\nContent-Disposition: form-data; name="project"\r\n\r\nAsked\r\n'
                f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{number}.txt"\r\n\r\n'
                f"{text}\r\n--{boundary}--\r\n"
            )
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Idempotency-Key": f"asked-{number}",
            }
            try:
                status, answer = self._world.stack.request(
                    "POST", "/api/imports", data=body.encode(), headers=headers
                )
            except OSError:
                status, answer = 0, None
            if status == 202:
                self.accepted.append(answer["import_id"])
            else:
                self.refused += 1

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(90)


@fault(
    "F3",
    f"broker killed {BROKER_KILLS} times, and {OUTAGE_S:.0f} s without an answer; what was answered with 202 is done",
    {"kill": BROKER_KILLS, "outage": 1, "accepted": 10},
    latency_ms=150,
    env=SLOW,
    others=SERVICES,
)
def broker_deaths(world: World) -> None:
    import_id = world.import_(world.library("texts", documents=120, chunks_each=40), "Texts")
    asking = Asking(world)
    asking.start()
    for number in range(BROKER_KILLS):
        world.wait_settled(import_id, 100 + number * 350)
        world.kill("kafka")
    world.wait_settled(import_id, 2_000)
    with world.suffering("kafka"):
        world.send("kafka", signal.SIGSTOP)
        time.sleep(OUTAGE_S)
        world.send("kafka", signal.SIGCONT)
    world.injected["outage"] += 1
    asking.end()
    world.drain(import_id, *asking.accepted)
    world.injected["accepted"] = len(asking.accepted)
    world.numbers["refused"] = asking.refused
    states = {each: world.stack.status(each)["state"] for each in asking.accepted}
    lost = [each for each, state in states.items() if state not in DONE]
    world.check(not lost, f"{len(lost)} of {len(states)} answered with 202 did not complete: {lost[:3]}")


@fault(
    "F5",
    "zombies: ingest leader and embedder stopped past their session, then continued",
    {"zombie": 2},
    latency_ms=150,
    env=SLOW,
    others=("ingest", "embedder"),
)
def zombies(world: World) -> None:
    other = world.urls["ingest-2"]
    first = world.import_(world.library("first", documents=60, chunks_each=40), "Texts")
    second = world.import_(world.library("second", documents=60, chunks_each=40), "Texts")
    world.wait_settled(first, 300)
    front = world.stack.http
    with world.suffering("ingest"), world.suffering("embedder"):
        world.send("ingest", signal.SIGSTOP)
        world.stack.http = other
        try:
            world.wait_settled(first, 900, timeout_s=SESSION_S * 6)
            world.send("embedder", signal.SIGSTOP)
            for import_id in (first, second):
                world.stack.wait(import_id, *TERMINAL, timeout_s=world.finish_s_max)
            for name in ("embedder", "ingest"):
                world.send(name, signal.SIGCONT)
                world.injected["zombie"] += 1
            third = world.import_(world.library("third", documents=10, chunks_each=20), "Texts")
            world.stack.wait(third, *TERMINAL)
        finally:
            world.stack.http = front
    log = (world.stack.folder / "logs" / "ingest-2.log").read_text()
    world.check("leader.elected" in log, "the other instance has not taken over")
    world.drain()


@fault(
    "F21",
    "everything local lost at 50 %: only Kafka and the blob store remain",
    {"loss": 1},
    latency_ms=150,
    env=SLOW,
    others=SERVICES,
)
def everything_local_is_lost(world: World) -> None:
    library = world.library("texts", documents=60, chunks_each=40)
    import_id = world.import_(library, "Texts")
    world.wait_settled(import_id, 900)
    world.died("all")
    world.end_others()
    world.stack.kill_up()
    shutil.rmtree(library)
    lose_everything_local(world.stack.folder)
    world.injected["loss"] += 1
    world.stack.start()
    world.drain()
    world.sources.clear()
