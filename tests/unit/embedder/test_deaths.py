"""P1 and P4 under deaths: whatever dies when, every chunk has its vector, and what is paid twice was lost by a death.

A seed draws what happens. The ledger says who was asked for what; a text is lost when the process that paid it is gone
and the log has no vector of it. Nothing else may ever be paid again.
"""

import asyncio
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.unit.embedder.world import FIRST, SECOND, World, play, vector_of

from embedder.models.model import Misconfigured, ModelError, RateLimited, Unavailable
from eventlog.envelope import header
from eventlog.events import ChunkExtracted
from eventlog.memory import Fault
from eventlog.topics import CHUNKS, EMBEDDINGS

PARTITIONS = 6
COUNT = 420
STEPS = 14


class Storm:
    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._since_s: dict[str, float] = {}
        self.lost: Counter[str] = Counter()

    async def start(self, name: str) -> None:
        self._since_s[name] = asyncio.get_running_loop().time()
        await self._world.start(name)

    async def end(self, name: str, *, is_kill: bool) -> None:
        if is_kill:
            await self._world.cut_off(name)
            self._lose(self._unsaid(name))
        await self._world.stop(name)
        if not is_kill:
            assert not self._unsaid(name), "who is told to stop says first what is paid for"

    def _unsaid(self, name: str) -> set[str]:
        """What this process has paid since its start, and the log does not hold."""
        since_s = self._since_s[name]
        own = [one for one in self._world.provider.paid if one.who == name and one.at_s >= since_s]
        paid = {text for one in own for text in one.texts}
        return paid - {one.text for one in self._world.embedded()}

    def _lose(self, texts: set[str]) -> None:
        of_partition = Counter(int(text.split()[0]) for text in texts)
        assert max(of_partition.values(), default=0) <= 10, "two batches of five for each partition"
        self.lost.update(texts)

    async def step(self) -> None:
        world, draw = self._world, self._random
        name = draw.choice("ab")
        match draw.choice(["kill", "kill", "stop", "broker", "fault", "slow", "provider", "nothing"]):
            case "kill" | "stop" as how:
                await self.end(name, is_kill=how == "kill")
                match draw.choice(["keep", "delete", "damage"]):
                    case "delete":
                        shutil.rmtree(world.data(name))
                    case "damage":
                        damage(world.data(name) / "index.sqlite", draw)
                await asyncio.sleep(draw.choice([0.0, 3.0, 15.0]))
                await self.start(name)
            case "broker":
                world.broker.stop()
                await asyncio.sleep(draw.uniform(0.1, 20.0))
                world.broker.start()
            case "fault":
                world.broker.fail(EMBEDDINGS, draw.choice([Fault.REFUSE, Fault.LOSE_ACK]))
            case "slow":
                world.is_log_slow = True
                await asyncio.sleep(draw.uniform(0.1, 3.0))
                if draw.random() < 0.5:
                    await self.end(name, is_kill=True)
                    await self.start(name)
                world.is_log_slow = False
            case "provider":
                error = draw.choice([Unavailable("503"), Misconfigured("401"), limited(2.0), limited(None)])
                world.provider.fails = lambda _: error
                await asyncio.sleep(draw.uniform(0.1, 5.0))
                world.provider.fails = lambda _: None
        await asyncio.sleep(draw.uniform(0.0, 1.5))


def limited(retry_after_s: float | None) -> ModelError:
    return RateLimited("429", retry_after_s=retry_after_s, is_quota=False)


def damage(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    begin = 4096 * draw.randrange(len(content) // 4096)
    content[begin : begin + 4096] = b"\xa5" * 4096
    file.write_bytes(content)


def library(world: World) -> list[ChunkExtracted]:
    """Two imports; a third of their texts is the same. A text's first word is its partition."""
    chunks = []
    for number in range(COUNT):
        import_id = FIRST if number < COUNT // 2 else SECOND
        shared = number % (COUNT // 2)
        mark = "both" if shared % 3 == 0 else str(number)
        text = f"{shared % PARTITIONS} {mark} {shared}"
        chunks.append(world.chunk(text, import_id, index=number))
    return chunks


@pytest.mark.parametrize("seed", range(10))
def test_only_what_a_death_has_lost_is_paid_again_and_every_chunk_has_its_vector(
    tmp_path: Path, seed: int
) -> None:
    async def scenario(world: World) -> None:
        world.may_be_slow = True
        world.provider.latency_s = 1.0
        storm = Storm(world, seed)
        await storm.start("a")
        await storm.start("b")
        chunks = library(world)
        for chunk in chunks:
            world.give(chunk, partition=int(chunk.text.split()[0]))
        for _ in range(STEPS):
            await storm.step()
        ends = {number: len(world.broker.partition(CHUNKS, number).slots) for number in range(PARTITIONS)}
        await world.until(lambda: {one: world.committed(one) for one in ends} == ends, 200.0)

        found = {(one.import_id, one.chunk_id): one for one in world.embedded()}
        assert {(one.import_id, one.chunk_id) for one in chunks} == set(found)
        assert all(one.vector == vector_of(one.text) for one in world.embedded())
        assert not world.rejected()
        assert not world.letters()
        ids = {one.id: header(one.record, "ce_subject") for one in world.envelopes()}
        assert len(ids) == len(set(ids.values())), "a repeat is the same event"
        for text, count in world.provider.billed.items():
            assert count <= 1 + storm.lost[text], f"{text} was paid {count} times"

    random.seed(seed)  # the jitter of retries is drawn there
    play(tmp_path, scenario)
