"""The embedder through a real broker, with a provider that keeps a ledger: what is lost, what is paid, what is said."""

import asyncio
import base64
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.provider import FakeProvider, Fault, running, vector_of
from tests.integration.embedder_process import (
    SCHEMAS,
    SLUG,
    SPACE,
    Embedder,
    Library,
    chunk_record,
    doubled,
    environment,
    log_of,
    new_import,
    until,
)

from eventlog.envelope import header, seal
from eventlog.events import (
    ChunkEmbedded,
    ChunkExtracted,
    ChunkRejected,
    EmbeddingContinued,
    EmbeddingPaused,
    ImportCancelled,
)
from eventlog.ids import ImportId, text_sha256
from eventlog.log import NewRecord
from eventlog.topics import IMPORTS
from paperlog.up.kafka import EmbeddedKafka, embedded_kafka

pytestmark = pytest.mark.kafka


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with running(FakeProvider()) as fake:
        yield fake


@pytest.fixture
async def library(kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path) -> AsyncIterator[Library]:
    async with log_of(kafka.bootstrap, kafka_prefix, tmp_path) as log:
        yield Library(log)


@pytest.fixture
async def embedder(
    kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path, provider: FakeProvider
) -> AsyncIterator[Embedder]:
    process = Embedder(tmp_path / "embedder", environment(kafka.bootstrap, kafka_prefix, provider))
    yield process
    process.close()


async def test_chunks_become_vectors_of_the_local_model(
    kafka: EmbeddedKafka, kafka_prefix: str, tmp_path: Path, library: Library
) -> None:
    process = Embedder(tmp_path / "local", environment(kafka.bootstrap, kafka_prefix, None))
    try:
        await process.start()
        texts = [f"a text about thing {number}" for number in range(30)]
        chunks = library.chunks(texts, new_import(), space="local/wordllama@256:1")
        await library.give(chunks)
        for event in await library.answered(chunks):
            assert isinstance(event, ChunkEmbedded)
            vector = np.frombuffer(event.vector, dtype="<f4")
            assert len(vector) == event.dims == 256
            assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-5
        status, answer = process.post("/embed", {"text": texts[3], "side": "query"})
        assert status == 200
        query = np.frombuffer(base64.b64decode(answer["vector"]), dtype="<f4")
        stored = np.frombuffer((await library.answered(chunks))[3].vector, dtype="<f4")
        assert float(query @ stored) > 0.999
        assert process.stop() == 0
    finally:
        process.close()


def texts_of(count: int, mark: str = "") -> list[str]:
    return [f"text {mark} number {number}" for number in range(count)]


def spread(
    library: Library, count: int, import_id: ImportId, *, attempt: int = 1
) -> dict[int, list[ChunkExtracted]]:
    """The same chunks for the same import over four partitions, so that what a death may cost can be counted."""
    chunks = library.chunks(texts_of(count), import_id, attempt=attempt)
    return {partition: chunks[partition::4] for partition in range(4)}


async def give_spread(
    library: Library, spread_chunks: dict[int, list[ChunkExtracted]]
) -> list[ChunkExtracted]:
    for partition, chunks in spread_chunks.items():
        await library.give(chunks, partition=partition)
    return [chunk for chunks in spread_chunks.values() for chunk in chunks]


def assert_right(event: ChunkEmbedded | ChunkRejected, text: str) -> None:
    assert isinstance(event, ChunkEmbedded), event
    stored = np.frombuffer(event.vector, dtype="<f4")
    assert np.allclose(stored, vector_of(text, "test-embedding", 64), atol=1e-5)


async def test_deaths_lose_nothing_and_cost_at_most_two_requests_for_each_partition(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    provider.latency_s = 0.1
    await embedder.start()
    chunks = await give_spread(library, spread(library, 280, new_import()))
    for share in (0.2, 0.45, 0.7):
        await until(lambda share=share: len(provider.billed) >= share * len(chunks))  # type: ignore[misc]  # bound on purpose
        before = doubled(provider.billed)
        embedder.kill()
        await embedder.start()
        await until(lambda share=share: len(provider.billed) >= (share + 0.2) * len(chunks))  # type: ignore[misc]  # bound on purpose
        assert doubled(provider.billed) - before <= 4 * 2 * 5
    for chunk, event in zip(chunks, await library.answered(chunks), strict=True):
        assert_right(event, chunk.text)
    assert set(provider.billed) == {text_sha256(chunk.text) for chunk in chunks}


async def test_what_was_paid_is_never_paid_again(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    await embedder.start()
    first = library.chunks([*texts_of(40), "said twice", "said twice"], new_import())
    await library.give(first)
    events = await library.answered(first)
    assert sum(event.tokens_billed for event in events) == sum(
        len(text) // 4 + 1 for text in {one.text for one in first}
    )
    assert [event.is_reused for event in events].count(True) == 1
    bill = provider.billed.copy()
    assert doubled(bill) == 0

    again = library.chunks([one.text for one in first], new_import())
    await library.give(again)
    await library.answered(again)
    assert embedder.stop() == 0
    shutil.rmtree(embedder.folder / "data")
    await embedder.start()
    resumed = library.chunks([one.text for one in first], first[0].import_id, attempt=2)
    await library.give(resumed)
    await library.give(first)  # delivered twice: its event is in the log
    for chunk, event in zip([*again, *resumed], await library.answered([*again, *resumed]), strict=True):
        assert (event.is_reused, event.tokens_billed) == (True, 0)
        assert_right(event, chunk.text)
    other = library.chunks(["the last one"], new_import())
    await library.give([*first, *other])
    await library.answered(other)
    assert provider.billed == bill + Counter([text_sha256("the last one")])
    said = await library.events()
    assert len(said) == 3 * len(first) + 1
    assert all(len(many) == 1 for many in said.values())


async def test_a_cancelled_attempt_is_not_paid_for_and_a_resume_goes_on(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    provider.latency_s = 0.2
    await embedder.start()
    import_id, other_id = new_import(), new_import()
    chunks = library.chunks(texts_of(90), import_id)
    await library.give(chunks, partition=7)
    await until(lambda: len(provider.billed) >= 15)
    cancelled = ImportCancelled(
        occurred_at=datetime.now(UTC), import_id=import_id, project_id=library.project, attempt=1
    )
    await library.say(cancelled)
    others = library.chunks(texts_of(3, "of another import"), other_id)
    await library.give(others, partition=7)  # behind the cancelled ones
    await library.answered(others)
    paid = len(provider.billed) - len(others)
    assert paid < 45
    resumed = library.chunks(texts_of(90), import_id, attempt=2)
    await library.give(resumed, partition=7)
    events = await library.answered(resumed)
    assert sum(event.is_reused for event in events) == paid
    assert doubled(provider.billed) == 0
    assert len(await library.events()) == paid + len(others) + len(resumed)


async def test_a_clean_stop_and_a_change_of_owners_lose_no_payment(
    kafka: EmbeddedKafka,
    kafka_prefix: str,
    tmp_path: Path,
    library: Library,
    provider: FakeProvider,
    embedder: Embedder,
) -> None:
    provider.latency_s = 0.1
    second = Embedder(tmp_path / "second", environment(kafka.bootstrap, kafka_prefix, provider, "two"))
    try:
        await embedder.start()
        chunks = library.chunks(texts_of(480), new_import())
        for number in range(8):
            await library.give(chunks[number::8], partition=number)
        await until(lambda: len(provider.billed) > 50)
        await second.start()

        def is_shared() -> bool:
            one, other = (process.get("/status")[1]["partitions"] for process in (embedder, second))
            return bool(one and other) and sorted([*one, *other]) == list(range(48))

        await until(is_shared)
        assert embedder.stop() == 0
        for chunk, event in zip(chunks, await library.answered(chunks), strict=True):
            assert_right(event, chunk.text)
        assert doubled(provider.billed) == 0
    finally:
        second.close()


FAULTS_OF_ONE_ANSWER = (
    "server_error", "html", "truncated", "reset", "too_few", "too_many", "wrong_dims", "one_wrong_dims", "nan", "null",
    "zeros", "strings", "permuted", "duplicate_index", "empty_data",
)  # fmt: skip


async def test_a_fault_that_passes_costs_no_text_and_no_bad_vector_gets_through(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    await embedder.start()
    chunks = library.chunks(texts_of(5 * (len(FAULTS_OF_ONE_ANSWER) + 1)), new_import())
    await library.give(chunks[:5], partition=3)  # the model has shown its dimension
    await library.answered(chunks[:5])
    for number, fault in enumerate(FAULTS_OF_ONE_ANSWER, start=1):
        five = chunks[5 * number : 5 * number + 5]
        provider.script(fault)
        await library.give(five, partition=3)
        if fault == "wrong_dims":
            await until(lambda: "provider_config" in embedder.reasons)
            assert embedder.post("/probe")[0] == 202
        await library.answered(five)
    for chunk, event in zip(chunks, await library.answered(chunks), strict=True):
        assert_right(event, chunk.text)


async def test_a_bad_text_is_rejected_by_name_and_its_neighbours_go_through(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    provider.refuses, provider.spoils = "REFUSED", "SPOILED"
    await embedder.start()
    texts = [
        "one",
        "REFUSED",
        "  \n ",
        "two",
        "SPOILED",
        "three",
        "x" * 30_000,
        "four",
        "five",
        "NUL \x00 and \u202e",
    ]
    chunks = library.chunks(texts, new_import())
    await library.give(chunks, partition=5)
    events = await library.answered(chunks)
    assert {
        chunk.text[:8]: str(event.reason)
        for chunk, event in zip(chunks, events, strict=True)
        if isinstance(event, ChunkRejected)
    } == {
        "REFUSED": "provider_refused",
        "  \n ": "text_empty",
        "SPOILED": "vector_invalid",
        "xxxxxxxx": "text_too_long",
    }
    for chunk, event in zip(chunks, events, strict=True):
        if isinstance(event, ChunkEmbedded):
            assert_right(event, chunk.text)
    assert text_sha256("x" * 30_000) not in provider.billed


async def test_no_call_is_made_before_the_time_that_the_provider_gave(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    await embedder.start()
    provider.script(Fault("rate_limit", retry_after_s=3))
    chunks = await give_spread(library, spread(library, 80, new_import()))
    await library.answered(chunks)
    limited = next(at for at, _, fault in provider.requests if fault == "rate_limit")
    # What was under way already is no call that was made after it.
    later = [at for at, _, fault in provider.requests if at > limited + 0.5]
    assert later
    assert min(later) >= limited + 2.9
    assert await library.pauses() == []
    assert doubled(provider.billed) == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("quota", "provider_quota"), ("bad_key", "provider_config"), ("server_error", "provider_down")],
)
async def test_trouble_that_lasts_is_said_and_waited_for_and_ends_by_itself_or_when_asked(
    library: Library, provider: FakeProvider, embedder: Embedder, fault: str, reason: str
) -> None:
    await embedder.start()
    provider.script(Fault(fault, times=1_000))
    chunks = await give_spread(library, spread(library, 40, new_import()))
    await until(lambda: reason in embedder.reasons)
    assert embedder.get("/livez")[0] == 200
    assert embedder.post("/embed", {"text": "who?"})[0] == 503
    asked = len(provider.requests)
    await asyncio.sleep(1.0)  # what is looked at is that nothing happens
    assert len(provider.requests) - asked <= 2
    provider.faults.clear()
    assert embedder.post("/probe")[0] == 202
    for chunk, event in zip(chunks, await library.answered(chunks), strict=True):
        assert_right(event, chunk.text)
    await embedder.until_ready()
    paused, continued = await library.pauses()
    assert isinstance(paused, EmbeddingPaused)
    assert (paused.space, paused.reason) == (SPACE, reason)
    assert isinstance(continued, EmbeddingContinued)
    assert "canary" not in embedder.log_text + paused.message
    assert doubled(provider.billed) == 0


async def test_a_pause_that_a_dead_process_left_is_ended_by_the_next(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    await embedder.start()
    provider.script(Fault("bad_key", times=1_000))
    chunks = library.chunks(texts_of(5), new_import())
    await library.give(chunks, partition=1)
    await until(lambda: "provider_config" in embedder.reasons)
    await library.count_to(IMPORTS, 1)  # who dies before has left no pause
    embedder.kill()
    provider.faults.clear()
    await embedder.start()
    await library.answered(chunks)
    await library.count_to(IMPORTS, 2)
    assert [type(one) for one in await library.pauses()] == [EmbeddingPaused, EmbeddingContinued]


async def test_a_broken_record_costs_itself_and_the_partition_goes_on(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    chunks = library.chunks(texts_of(8), new_import())
    good = [chunk_record(one, partition=2) for one in chunks]
    value = good[0].value
    assert value is not None
    named = dict(good[0].headers)
    event = of_another_type()
    broken = [
        replace(good[0], value=b"\x17random"),
        replace(good[1], value=b"\x00\x00\x00\x00\x01" + value[5:]),
        replace(good[2], value=value[:-4]),
        replace(good[3], value=value + b"more"),
        replace(good[4], value=None),
        replace(good[5], headers=()),
        replace(good[5], value=event.value),
        replace(good[6], headers=tuple((named | {"paperlog_attempt": b"9"}).items())),
    ]
    await library.write([*broken[:4], good[7], *broken[4:]])
    await embedder.start()
    [last] = await library.answered([chunks[7]])
    assert_right(last, chunks[7].text)
    topic = f"embedder-{SLUG}-dlq"
    letters = await library.count_to(topic, len(broken))
    assert [(one.value, one.key) for one in letters] == [(one.value, one.key) for one in broken]
    assert [header(one, "dlq_reason") for one in letters] == [
        "frame_invalid", "schema_unknown", "avro_invalid", "bytes_trailing", "value_null", "headers_invalid",
        "type_unexpected", "headers_contradict",
    ]  # fmt: skip
    assert {header(one, "dlq_topic").partition("-")[2] for one in letters} == {"chunks"}
    events = await library.events()
    said = {identity[2]: many[0] for identity, many in events.items() if identity[1] == 1}
    for number in (0, 1, 2, 3, 4, 5):
        rejected = said[chunks[number].chunk_id]
        assert isinstance(rejected, ChunkRejected)
        assert str(rejected.reason) == "dead_lettered"
    # Again from the start: neither a second letter nor a second event.
    embedder.kill()
    await library.write([good[6]])
    await embedder.start()
    await library.answered([chunks[6]])
    assert len(await library.read(topic)) == len(broken)


def of_another_type() -> NewRecord:
    message = EmbeddingContinued(occurred_at=datetime.now(UTC), space=SPACE)
    return seal(SCHEMAS, message, topic="chunks", source="test")


async def test_many_broken_records_in_a_row_stop_the_consumer_until_somebody_decides(
    library: Library, provider: FakeProvider, embedder: Embedder
) -> None:
    chunks = library.chunks(texts_of(60), new_import())
    records = [chunk_record(one, partition=number % 3) for number, one in enumerate(chunks)]
    await library.write([replace(one, value=b"nonsense") for one in records[:57]] + records[57:])
    embedder.spawn()
    await until(lambda: "dead_letters" in embedder.reasons)
    topic = f"embedder-{SLUG}-dlq"
    assert len(await library.read(topic)) == 21
    embedder.kill()
    embedder.spawn()
    await until(lambda: embedder.reasons == ["dead_letters"])
    assert embedder.get("/livez")[0] == 200
    assert len(await library.read(topic)) == 21
    for count in (42, 57):
        assert embedder.post("/continue")[0] == 200
        await library.count_to(topic, count)
    await library.answered(chunks[57:])
    await embedder.until_ready()
    assert len(await library.read(topic)) == 57


async def test_a_broker_that_dies_and_comes_back_costs_nothing(
    tmp_path: Path, provider: FakeProvider
) -> None:
    provider.latency_s = 0.1
    with embedded_kafka(tmp_path / "kafka") as broker:
        embedder = Embedder(tmp_path / "embedder", environment(broker.bootstrap, "", provider))
        try:
            async with log_of(broker.bootstrap, "", tmp_path) as log:
                library = Library(log)
                await embedder.start()
                chunks = await give_spread(library, spread(library, 240, new_import()))
                await until(lambda: len(provider.billed) > 60)
                broker.kill()
                await until(lambda: "log_unavailable" in embedder.reasons)
                assert embedder.get("/livez")[0] == 200
                broker.start()
                for chunk, event in zip(chunks, await library.answered(chunks, 60), strict=True):
                    assert_right(event, chunk.text)
                assert doubled(provider.billed) == 0
                await embedder.until_ready()
        finally:
            embedder.close()


async def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    env = {"PAPERLOG_EMBEDDING": "openai/text-embedding-3-small", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    env |= {"KAFKA_BOOTSTRAP_SERVERS": "", "PAPERLOG_PREFIX": "Not a prefix"}
    process = Embedder(tmp_path, env)
    process.spawn()
    assert process.wait(20) == 2
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "PAPERLOG_PREFIX", "OPENAI_API_KEY"):
        assert name in process.log_text
