"""Faults that end processes: at random, at the broker, all at once with everything local."""

from tests.faults.catalogue import fault
from tests.faults.world import SERVICES, World

SLOW = {"PAPERLOG_REQUESTS_MAX": "8"}
"""With a latency, so that an import lasts long enough to be met half-way."""


@fault("F1", "SIGKILL of each service at random over 10,000 chunks", {"kill": 30}, latency_ms=150, env=SLOW)
def random_kills(world: World) -> None:
    import_id = world.import_(world.library("texts", documents=325, chunks_each=40), "Texts")
    victims = [*SERVICES] * 10
    world.chance.shuffle(victims)
    # Parsing is over long before the chunks are through: ingest dies first, in the middle of its documents.
    victims.sort(key=lambda name: name != "ingest")
    for number, name in enumerate(victims[:6]):
        world.wait_parsed(import_id, 10 + number * 40)
        world.kill(name)
    rest = victims[6:]
    world.chance.shuffle(rest)
    for number, name in enumerate(rest, start=1):
        world.wait_settled(import_id, number * 380)
        world.kill(name)
    world.drain()
