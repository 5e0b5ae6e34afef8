"""A long history written straight into the log: an import whose documents are parsed and whose chunks are embedded, so that
the services have only to store and settle it. What comes of that is a history like any other.

Texts are a tenth of the usual length: a start reads no texts, and a rebuild of the store is measured in records.
"""

import asyncio
import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import (
    ChunkEmbedded,
    ChunkExtracted,
    ChunkKind,
    DocumentParsed,
    DocumentPart,
    ImportRequested,
    ImportSealed,
    Message,
    Part,
    ProjectCreated,
    Source,
    SourceKind,
)
from eventlog.ids import ImportId, chunk_id, document_id, embedding_key, import_id_of_key, project_id
from eventlog.kafka import KafkaLog
from eventlog.log import NewRecord
from eventlog.settings import ServiceSettings
from eventlog.spaces import parse_space
from eventlog.topics import CHUNKS, EMBEDDINGS, IMPORTS, topic_table
from harness.corpus import CHUNKS_PER_DOCUMENT, vocabulary
from paperlog.up.kafka import embedded_kafka

PROJECT = "history"
REVISION = 1
"""The offset of `ImportRequested`, which is the second record."""
WORDS_PER_CHUNK = 26
_SENT_TOGETHER = 1_000


def _facts(space: str, chunk_count: int) -> Iterator[tuple[str, Message]]:
    """What stands on each topic, in order; the same for the same number of chunks, times apart."""
    rng = random.Random(chunk_count)
    words, weights = vocabulary()
    project, dims = project_id(PROJECT), parse_space(space).dims
    vectors = np.random.default_rng(chunk_count)
    head: dict[str, Any] = {
        "occurred_at": datetime.now(UTC),
        "import_id": import_id_of(chunk_count),
        "project_id": project,
        "attempt": 1,
    }
    yield IMPORTS, ProjectCreated(**head, name=PROJECT, space=space)
    source = Source(kind=SourceKind.TEXT, files=())
    yield (
        IMPORTS,
        ImportRequested(
            **head, source=source, request_sha256="", space=space, project_name=PROJECT, chunker_version="1"
        ),
    )
    document_count = max(1, chunk_count // CHUNKS_PER_DOCUMENT)
    for number in range(document_count):
        document = document_id(project, f"bench:{number}")
        ids = []
        for index in range(CHUNKS_PER_DOCUMENT):
            text = f"{number} {index} " + " ".join(rng.choices(words, cum_weights=weights, k=WORDS_PER_CHUNK))
            ids.append(chunk_id(document, "1", Part.FULL_TEXT, index, text))
            body: dict[str, Any] = {
                **head,
                "chunk_id": ids[-1],
                "document_id": document,
                "embedding_key": embedding_key(project, text),
                "space": space,
                "revision": REVISION,
                "chunk_index": index,
                "kind": ChunkKind.PASSAGE,
                "part": Part.FULL_TEXT,
                "text": text,
                "title": f"Paper {number}",
            }
            yield CHUNKS, ChunkExtracted(**body)
            vector = vectors.standard_normal(dims, dtype=np.float32)
            vector /= np.linalg.norm(vector)
            yield EMBEDDINGS, ChunkEmbedded(**body, dims=dims, vector=vector.astype("<f4").tobytes())
        yield (
            IMPORTS,
            DocumentParsed(
                **head,
                document_id=document,
                revision=REVISION,
                content_hash=f"{number}",
                parts=(DocumentPart(part=Part.FULL_TEXT, chunk_ids=tuple(ids)),),
                source_items=(f"item {number}",),
                title=f"Paper {number}",
            ),
        )
    yield (
        IMPORTS,
        ImportSealed(**head, document_count=document_count, chunk_count=document_count * CHUNKS_PER_DOCUMENT),
    )


def import_id_of(chunk_count: int) -> ImportId:
    return import_id_of_key("anonymous", f"bench history of {chunk_count}")


async def _send(producer: AIOKafkaProducer, record: NewRecord) -> "asyncio.Future[object]":
    acknowledged: asyncio.Future[object] = await producer.send(
        record.topic,
        value=record.value,
        key=record.key,
        partition=record.partition,
        headers=list(record.headers),
    )
    return acknowledged


async def _write(bootstrap: str, space: str, chunk_count: int, folder: Path) -> None:
    # Topics that were only just made have no leaders yet; aiokafka says so for each, and tries again.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    schemas = Schemas(schemas_dir())
    settings = ServiceSettings(kafka_bootstrap_servers=bootstrap, http_port=1, data_dir=folder)
    log = KafkaLog(settings)
    await log.ensure_topics([topic_table()[name] for name in (IMPORTS, CHUNKS, EMBEDDINGS)])
    await log.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=256 * 1024,
    )
    await producer.start()
    try:
        under_way = []
        for topic, fact in _facts(space, chunk_count):
            partition = 0 if topic == IMPORTS else None
            record = seal(schemas, fact, topic=topic, source="paperlog/bench", partition=partition)
            under_way.append(await _send(producer, record))
            if len(under_way) >= _SENT_TOGETHER:
                await asyncio.gather(*under_way)
                under_way.clear()
        await asyncio.gather(*under_way)
    finally:
        await producer.stop()
    await _commit_chunks(bootstrap, space)


async def _commit_chunks(bootstrap: str, space: str) -> None:
    """The embedder has had them all."""
    group = f"embedder-{parse_space(space).slug}"
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(CHUNKS, one) for one in range(topic_table()[CHUNKS].partitions)]
        consumer.assign(partitions)
        await consumer.commit(await consumer.end_offsets(partitions))
    finally:
        await consumer.stop()


def write_history(data: Path, space: str, chunk_count: int) -> None:
    """Into the log of the stack in `data`, which is not running."""
    with embedded_kafka(data / "kafka") as broker:
        asyncio.run(_write(broker.bootstrap, space, chunk_count, data))
