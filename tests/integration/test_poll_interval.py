"""A member of a group that lives and asks for nothing for long: what Kafka's client does about it a real broker shows."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import subscription_state
from tests.contracts.worlds import Member, kafka_world, until

HEARTBEATS = 3


@pytest.mark.kafka
async def test_who_asks_for_nothing_for_an_hour_is_still_a_member(
    kafka: Any, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
):
    """A leader may wait for a blob store, an embedder for a provider."""
    hours = [0]
    monkeypatch.setattr(
        subscription_state, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hours[0])
    )
    world = kafka_world(kafka.bootstrap, kafka_prefix)
    silent = await Member.join(await world.log())
    await silent.read(lambda: len(silent.reader.assignment()) == 4)
    coordinator = silent.reader._consumer._coordinator  # type: ignore[attr-defined]  # of aiokafka
    beats: list[float] = []
    beat = coordinator._do_heartbeat

    async def noted() -> bool:
        beats.append(time.monotonic())
        return bool(await beat())

    hours[0] = 1
    coordinator._do_heartbeat = noted
    await until(lambda: len(beats) >= HEARTBEATS, "it has left the group")
    assert silent.events == [("assigned", 4)]
    await silent.reader.close()
    await world.close()
