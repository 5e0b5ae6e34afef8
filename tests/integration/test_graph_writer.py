"""The graph-writer through a real broker and qdrant-edge: what deaths and lost stores leave behind."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tests.integration.embedder_process import Library, log_of, until
from tests.integration.graph_writer_process import GraphWriter, Log, environment, missing
from tests.unit.graph_writer.story import BIB, PROJECT, SPACE, TEXT, Content

from eventlog.events import ChunksSettled, DocumentParsed, DocumentSettled, ProjectCreated, StoreOpened
from eventlog.ids import concept_id
from eventlog.log import NewRecord
from eventlog.topics import EMBEDDINGS
from graph_writer.opened import GRAPH, collection_of
from paperlog.up.kafka import EmbeddedKafka

pytestmark = pytest.mark.kafka

COLLECTION = collection_of(SPACE).name
PARTITIONS = 4
DOCUMENTS, PASSAGES = 6, 20


@pytest.fixture
async def log(kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path) -> AsyncIterator[Log]:
    async with log_of(kafka.bootstrap, kafka_prefix, tmp_path, group="graph-writer") as opened:
        log = Log(Library(opened))
        await log.say(ProjectCreated(**Content().head, name="Reading", space=SPACE))
        yield log


@pytest.fixture
async def writer(kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path) -> AsyncIterator[GraphWriter]:
    folder = tmp_path / "writer"
    process = GraphWriter(folder, environment(kafka.bootstrap, kafka_prefix, folder))
    yield process
    process.close()


def library(revision: int, mark: str) -> list[Content]:
    """Documents that share a concept; each passage once more under every revision's own mark."""
    return [
        Content(
            name=f"document {number}",
            revision=revision,
            bib=(f"title {number}",),
            text=tuple(f"passage {one} of {number} {mark}" for one in range(PASSAGES)),
            concepts={"Finch": (0,)},
        )
        for number in range(DOCUMENTS)
    ]


async def give(log: Log, contents: list[Content]) -> None:
    await log.say(*(one.parsed() for one in contents))
    chunks = [chunk for one in contents for chunk in one.chunks()]
    await log.embed(*((chunk, number % PARTITIONS) for number, chunk in enumerate(chunks)))


def count_of(contents: list[Content]) -> int:
    return len({(chunk.chunk_id, chunk.revision) for one in contents for chunk in one.chunks()})


async def until_settled(log: Log, writer: GraphWriter, count: int) -> None:
    async with asyncio.timeout(60):
        while len(await log.settled()) < count:
            assert writer.get("/livez")[0] in (0, 200), writer.log_text[-2000:]
            await asyncio.sleep(0.1)


async def close(log: Log, contents: list[Content]) -> None:
    """As ingest does when every chunk has its outcome."""
    offsets = {(one.document_id, one.revision): offset for offset, one in await log.events(DocumentParsed)}
    await log.say(*(one.settled(offsets[one.document_id, one.revision], BIB, TEXT) for one in contents))


async def until_answered(log: Log, contents: list[Content]) -> None:
    wanted = {(one.document_id, one.revision) for one in contents}
    async with asyncio.timeout(60):
        while wanted:
            wanted -= {(one.document_id, one.revision) for _, one in await log.events(DocumentSettled)}
            await asyncio.sleep(0.1)


async def test_deaths_and_lost_stores_end_at_the_store_that_nothing_disturbed(
    log: Log, writer: GraphWriter, tmp_path: Path
) -> None:
    first, second = library(await log.request(SPACE), "once"), library(await log.request(SPACE), "again")
    await give(log, first)
    await writer.start()
    for count in (20, 70):  # SIGKILL in the middle of writes
        await until_settled(log, writer, count)
        writer.kill()
        assert missing(await log.settled(), writer.points(), SPACE) == []
        if count == 20:
            shutil.copytree(writer.store, tmp_path / "copy")
        await writer.start()
    await until_settled(log, writer, count_of(first))
    await close(log, first)
    await until_answered(log, first)
    await give(log, second)

    writer.store.rename(tmp_path / "deleted")  # under the live writer
    assert await writer.until_dead() == 70
    assert 'traceback="Traceback' in writer.log_text
    await writer.start()
    await until_settled(log, writer, count_of(first) + count_of(second) // 2)
    writer.store.rename(tmp_path / "replaced")
    shutil.copytree(tmp_path / "copy", writer.store)  # an older one, under the live writer
    assert await writer.until_dead() == 70
    await writer.start()
    await until_settled(log, writer, count_of(first) + count_of(second))
    await close(log, second)
    await until_answered(log, second)
    assert writer.stop() == 0
    disturbed = writer.points()

    writer.lose()
    await writer.start()
    assert writer.stop() == 0
    assert disturbed == writer.points()
    chunks = {str(one.chunk_id) for content in second for one in content.chunks() if one.concept_id is None}
    assert set(disturbed[COLLECTION]) == chunks | {str(concept_id(PROJECT, "Finch"))}
    papers = [payload for payload, _ in disturbed[GRAPH.name].values() if payload["kind"] == "Paper"]
    assert len(papers) == DOCUMENTS


async def test_poison_goes_to_the_dead_letters_once_and_the_partition_goes_on(
    log: Log, writer: GraphWriter
) -> None:
    (content,) = library(await log.request(SPACE), "x")[:1]
    await log.write(*(NewRecord(topic=EMBEDDINGS, key=b"k", value=b"noise", partition=0) for _ in range(3)))
    await give(log, [content])
    await writer.start()
    await until_settled(log, writer, count_of([content]))
    assert len(await log.read("graph-writer-dlq")) == 3
    assert writer.get("/metrics")[1].count("paperlog_dead_letters_total 3") == 1
    writer.kill()
    await writer.start()
    assert len(await log.read("graph-writer-dlq")) == 3


async def test_the_group_shows_how_far_the_writer_is(
    kafka: EmbeddedKafka, kafka_prefix: str, log: Log, writer: GraphWriter
) -> None:
    contents = library(await log.request(SPACE), "x")
    await give(log, contents)
    await writer.start()
    await until_settled(log, writer, count_of(contents))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(30):
            committed = 0
            while committed < count_of(contents):
                offsets = await admin.list_consumer_group_offsets(f"{kafka_prefix}-graph-writer")
                found = {at: one.offset for at, one in offsets.items() if at.topic.endswith(EMBEDDINGS)}
                committed = sum(found.values())
                await asyncio.sleep(0.1)
    finally:
        await admin.close()
    assert committed == count_of(contents)


async def test_a_standby_takes_over_when_the_holder_dies(
    kafka: EmbeddedKafka, kafka_prefix: str, log: Log, writer: GraphWriter, tmp_path: Path
) -> None:
    await writer.start()
    env = environment(kafka.bootstrap, kafka_prefix, writer.folder)
    standby = GraphWriter(tmp_path / "standby", env)
    try:
        standby.spawn()
        await until(lambda: "standby" in standby.reasons, lambda: standby.log_text[-2000:])
        assert standby.get("/livez")[0] == 200
        opened = [one.store_id for _, one in await log.events(StoreOpened)]
        writer.kill()
        await standby.until_ready()
        assert {one.store_id for _, one in await log.events(StoreOpened)} == set(opened)
        (content,) = library(await log.request(SPACE), "x")[:1]
        await give(log, [content])
        await until_settled(log, standby, count_of([content]))
        assert {one.store_id for _, one in await log.events(ChunksSettled)} == set(opened)
    finally:
        standby.close()


async def test_another_that_joins_the_group_ends_nobody_who_reads_and_one_may_leave(
    log: Log, kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path
) -> None:
    """Nothing was ever committed for a partition, and nobody has said yet where to read on after the rebalance."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.two_members", kafka.bootstrap, kafka_prefix, str(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-3000:]
    first, second = json.loads(said)
    assert first["crashes"] == second["crashes"] == []
    assert first["counts"][-1] + second["counts"][-1] == 48 + 1
