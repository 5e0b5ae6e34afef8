"""The leader over a real broker: killed at named points, stopped and continued, asked twice, and fed with rubbish."""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.integration.leader_process import SCHEMAS, Ingest, World, until

from eventlog.envelope import header, seal
from eventlog.events import (
    CancelImport,
    ImportCompleted,
    ImportRefused,
    RefusalReason,
    ResumeImport,
)
from eventlog.ids import import_id_of_command, import_id_of_coordinates, import_id_of_key
from eventlog.kafka import KafkaLog
from eventlog.log import NewRecord
from eventlog.settings import ServiceSettings
from eventlog.topics import CHUNKS, IMPORT_REQUESTS, IMPORTS
from ingest.dead_letters import TOPIC as DEAD_LETTERS
from paperlog.up.kafka import EmbeddedKafka

pytestmark = pytest.mark.kafka

NOBODY = import_id_of_key("nobody", "none")
TITLES = [f"On the {word} of rivers" for word in ("course", "depth", "colour", "age", "names", "fish")]
POINTS = [
    "ImportRequested:inside",
    "DocumentParsed:inside",
    "DocumentParsed:after",
    "ImportSealed:after",
    "ImportCompleted:inside",
    "ImportCompleted:after",
]


@pytest.fixture
async def world(kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    settings = ServiceSettings(
        KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap,
        PAPERLOG_PREFIX=kafka_prefix,
        PAPERLOG_HTTP_PORT=0,
        PAPERLOG_DATA_DIR=tmp_path,
    )  # type: ignore[call-arg]  # the names of the environment
    log = KafkaLog(settings)
    yield World(log, tmp_path / "blobs")
    await log.close()


@pytest.fixture
async def ingest(
    world: World, kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path
) -> AsyncIterator[Ingest]:
    made = Ingest(
        tmp_path / "one", bootstrap=kafka.bootstrap, prefix=kafka_prefix, blobs=world.blobs, instance="one"
    )
    yield await made.start()
    made.close()


async def test_a_leader_killed_at_every_point_goes_on_and_says_each_thing_once(world: World, ingest: Ingest):
    await until(lambda: ingest.elections, lambda: ingest.log_text)
    await world.open_store()
    request = world.request(world.library(TITLES))
    assert request.import_id is not None
    ingest.close()
    await world.ask(request)
    deaths = 0
    ingest.spawn(POINTS)
    while not str(ingest.status(request.import_id).get("state", "")).startswith("completed"):
        await world.settle_until(
            lambda: ingest.has_ended or ingest.status(request.import_id).get("state") == "completed",
            lambda: ingest.log_text[-4000:],
        )
        if ingest.has_ended:
            deaths += 1
            ingest.spawn(POINTS)
            await until(lambda: ingest.get("/livez")[0] == 200 or ingest.has_ended, lambda: ingest.log_text)
    assert deaths == len(POINTS)
    counted = await world.counted(request.import_id)
    once = ("ProjectCreated", "ImportRequested", "ImportSealed", "ImportCompleted")
    assert [counted[name] for name in once] == [1, 1, 1, 1]
    assert counted["DocumentParsed"] == counted["DocumentChunksSettled"] == len(TITLES)
    (completed,) = [
        one.event for one in await world.facts(request.import_id) if isinstance(one.event, ImportCompleted)
    ]
    published = {header(one, "paperlog_chunk") for one in await world.read(CHUNKS)}
    assert completed.stored_count == completed.chunk_count == len(published)


async def test_a_stalled_leader_is_fenced_and_ends_no_import_a_second_time(
    world: World, ingest: Ingest, kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path
):
    await until(lambda: ingest.elections, lambda: ingest.log_text)
    await world.open_store()
    other = Ingest(tmp_path / "two", bootstrap=kafka.bootstrap, prefix=kafka_prefix, blobs=world.blobs)
    try:
        await other.start()
        first, second = world.request(world.library(TITLES[:1])), world.request(world.library(TITLES[1:3]))
        assert first.import_id is not None
        assert second.import_id is not None
        await world.ask(first)
        await until(lambda: ingest.status(first.import_id).get("state") == "embedding")
        ingest.signal(signal.SIGSTOP)
        await world.ask(second)
        await world.settle_until(
            lambda: all(other.status(one).get("state") == "completed" for one in (first.import_id, second.import_id)),
            lambda: other.log_text[-4000:],
        )  # fmt: skip
        ingest.signal(signal.SIGCONT)
        third = world.request(world.library(TITLES[3:]))
        assert third.import_id is not None
        await world.ask(third)
        await world.settle_until(
            lambda: ingest.status(third.import_id).get("state") == "completed",
            lambda: ingest.log_text[-4000:] + other.log_text[-4000:],
        )
        for one in (first, second, third):
            assert one.import_id is not None
            counted = await world.counted(one.import_id)
            assert (counted["ImportRequested"], counted["ImportCompleted"]) == (1, 1)
        projects = [one for one in await world.facts() if type(one.event).__name__ == "ProjectCreated"]
        assert len(projects) == 1
    finally:
        ingest.signal(signal.SIGCONT)
        other.close()


async def test_commands_from_anybody_are_decided_once_refused_with_a_reason_or_dead_lettered(
    world: World, ingest: Ingest
):
    source = world.library(TITLES[:1])
    by_key = world.request(source, import_id=None, idempotency_key="k", requested_by="anna")
    other_body = replace(by_key, source=world.library(TITLES[1:2]))
    nameless = world.request(source, import_id=None, project_name="Other")
    bare = NewRecord(topic=IMPORT_REQUESTS, key=None, value=SCHEMAS.encode(nameless)[0], partition=0)
    stranger = replace(bare, headers=(("ce_source", b"urn:stranger"), ("ce_id", b"17")))
    rubbish = NewRecord(topic=IMPORT_REQUESTS, key=b"k", value=b"rubbish", partition=0)
    a_fact = ImportRefused(
        import_id=NOBODY, command_id="c", reason=RefusalReason.UNKNOWN, occurred_at=datetime.now(UTC)
    )
    wrong_type = seal(SCHEMAS, a_fact, topic=IMPORT_REQUESTS, source="urn:stranger", partition=0)
    ours = [replace(bare, value=SCHEMAS.encode(one)[0]) for one in (by_key, other_body)]
    bad = [
        world.request(source, space="nonsense"),
        world.request(source, project_name=""),
        world.request(replace(source, files=(replace(source.files[0], path="../x"),))),
        world.request(replace(source, files=(replace(source.files[0], sha256="0" * 64),))),
    ]
    await until(lambda: ingest.elections, lambda: ingest.log_text)
    await world.write([*ours, ours[0], stranger, stranger, rubbish, bare, wrong_type])
    await world.ask(*bad, CancelImport(occurred_at=datetime.now(UTC), import_id=NOBODY))
    keyed = import_id_of_key("anna", "k")
    once = import_id_of_command("urn:stranger", "17")
    by_place = import_id_of_coordinates(IMPORT_REQUESTS, 0, 6)

    refused = await world.refused(6)
    assert [one.reason for one in refused] == [
        RefusalReason.IDEMPOTENCY_KEY_REUSED,
        RefusalReason.SPACE_UNKNOWN,
        RefusalReason.REQUEST_INVALID,
        RefusalReason.REQUEST_INVALID,
        RefusalReason.FILES_MISSING,
        RefusalReason.IMPORT_UNKNOWN,
    ]
    requested = Counter(
        one.event.import_id for one in await world.facts() if type(one.event).__name__ == "ImportRequested"
    )
    assert requested == Counter((keyed, once, by_place))
    letters = await world.read(DEAD_LETTERS)
    assert [(one.value, header(one, "dlq_reason"), header(one, "dlq_offset")) for one in letters] == [
        (b"rubbish", "frame_invalid", "5"),
        (wrong_type.value, "type_unexpected", "7"),
    ]


async def test_an_import_is_cancelled_resumed_once_and_completes_in_its_new_attempt(
    world: World, ingest: Ingest
):
    await until(lambda: ingest.elections, lambda: ingest.log_text)
    await world.open_store()
    request = world.request(world.library(TITLES[:3]))
    id_ = request.import_id
    assert id_ is not None
    now = datetime.now(UTC)
    await world.ask(request)
    await until(lambda: ingest.status(id_).get("state") == "embedding", lambda: ingest.log_text)
    await world.ask(CancelImport(occurred_at=now, import_id=id_))
    await until(lambda: ingest.status(id_).get("state") == "cancelled")
    await world.ask(*(ResumeImport(occurred_at=now, import_id=id_, attempt_seen=1) for _ in range(3)))
    await world.settle_until(
        lambda: ingest.status(id_).get("state") == "completed", lambda: ingest.status(id_)
    )
    status, counted = ingest.status(id_), await world.counted(id_)
    assert (status["attempt"], counted["ImportResumed"], counted["ImportCompleted"]) == (2, 1, 1)
    assert status["documents"]["stored"] == 3
    # A completed one is resumed with all of its files there or not at all.
    for blob in world.blobs.glob("??/*"):
        blob.unlink()
    await world.ask(ResumeImport(occurred_at=now, import_id=id_, attempt_seen=2))
    (refused,) = await world.refused(1)
    assert (refused.reason, refused.message) == (RefusalReason.FILES_MISSING, "library.json")
    assert ingest.status(id_)["state"] == "completed"


async def test_twenty_one_poison_commands_in_a_row_pause_over_restarts_until_an_operator_says_go_on(
    world: World, ingest: Ingest
):
    await until(lambda: ingest.elections, lambda: ingest.log_text)
    poison = [NewRecord(topic=IMPORT_REQUESTS, key=b"k", value=b"%d" % n, partition=0) for n in range(30)]
    request = world.request(world.library(TITLES[:1]))
    assert request.import_id is not None
    await world.write(poison)
    await world.ask(request)
    paused = lambda: "dead_letters" in ingest.get("/readyz")[1].get("reasons", [])  # noqa: E731 - asked twice
    await until(paused, lambda: ingest.log_text)
    assert len(await world.read(DEAD_LETTERS)) == 21
    ingest.close()
    ingest.spawn()
    await until(paused, lambda: ingest.log_text)
    assert ingest.get("/livez")[0] == 200
    assert ingest.post("/continue")[0] == 200
    await until(lambda: ingest.status(request.import_id).get("state") == "embedding", lambda: ingest.log_text)
    letters = await world.read(DEAD_LETTERS)
    assert [one.value for one in letters] == [one.value for one in poison]


async def test_what_is_no_fact_of_ours_is_dead_lettered_once_and_the_fold_goes_on(
    world: World, ingest: Ingest
):
    await until(lambda: ingest.elections, lambda: ingest.log_text)
    await world.write([NewRecord(topic=IMPORTS, key=None, value=b"\x00rubbish", partition=0)])
    request = world.request(world.library(TITLES[:1]))
    assert request.import_id is not None
    await world.ask(request)
    await until(lambda: ingest.status(request.import_id).get("state") == "embedding", lambda: ingest.log_text)
    ingest.close()
    (ingest.folder / "data" / "imports.sqlite").unlink()
    ingest.spawn()
    await until(lambda: ingest.elections == 2, lambda: ingest.log_text)
    assert ingest.status(request.import_id)["state"] == "embedding"
    (letter,) = await world.come(lambda: world.read(DEAD_LETTERS), 1)
    assert (letter.value, header(letter, "dlq_topic").endswith(IMPORTS)) == (b"\x00rubbish", True)
