"""A long history of finished imports, written straight into a broker's log: what the services would have said.

Short texts and small vectors, for what is measured is what a start does with many events, not with many bytes.
"""

import asyncio
import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from eventlog import ids
from eventlog.avro import Schemas, schemas_dir
from eventlog.envelope import seal
from eventlog.events import (
    ChunkEmbedded,
    ChunkExtracted,
    ChunkKind,
    ChunkOutcome,
    ChunksSettled,
    DocumentChunksSettled,
    DocumentParsed,
    DocumentPart,
    DocumentSettled,
    ImportCompleted,
    ImportRequested,
    ImportSealed,
    Message,
    Part,
    ProjectCreated,
    SettledChunk,
    Source,
    SourceFile,
    SourceKind,
)
from eventlog.kafka import KafkaLog
from eventlog.settings import ServiceSettings
from eventlog.spaces import parse_space
from eventlog.topics import CHUNKS, EMBEDDINGS, IMPORTS, topic_table
from paperlog.up.kafka import embedded_kafka

DIMS = 64
MODEL = f"openai/test-embedding@{DIMS}"
SPACE = str(parse_space(MODEL))
_PER_DOCUMENT, _PER_IMPORT, _PER_SETTLEMENT = 100, 5_000, 5
_AT = datetime(2026, 1, 2, tzinfo=UTC)
_STORE = ids.StoreId(ids.NAMESPACE)
_WORDS = ("heron", "marsh", "sediment", "carbon", "nap", "recall", "spindle", "maize", "probe", "moisture")


def write_history(kafka: Path, events_count: int) -> int:
    """Into the log of a folder that `paperlog up` starts later. Answers the number of chunks."""
    per_chunk = 2 + 1 / _PER_SETTLEMENT + 3 / _PER_DOCUMENT
    chunks_count = max(1, round(events_count / per_chunk / _PER_IMPORT)) * _PER_IMPORT
    with embedded_kafka(kafka) as broker:
        asyncio.run(_write(broker.bootstrap, chunks_count))
    return chunks_count


async def _write(bootstrap: str, chunks_count: int) -> None:
    # Topics that were only just made have no leaders yet; aiokafka says so for each, and tries again.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings: dict[str, Any] = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PAPERLOG_HTTP_PORT": 1}
    log = KafkaLog(ServiceSettings(**settings, PAPERLOG_DATA_DIR=Path()))
    table = topic_table()
    await log.ensure_topics([table[name] for name in (IMPORTS, CHUNKS, EMBEDDINGS)])
    await log.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, enable_idempotence=True, linger_ms=20, max_batch_size=256 * 1024
    )
    await producer.start()
    schemas, acks = Schemas(schemas_dir()), []
    partition_of, partitions = DefaultPartitioner(), list(range(table[EMBEDDINGS].partitions))
    try:
        for topic, event in _Story(lambda key: partition_of(key, partitions, partitions)).events(
            chunks_count
        ):
            record = seal(schemas, event, topic=topic, source="bench")
            assert record.key is not None, "every event has one"
            where = 0 if topic == IMPORTS else partition_of(record.key, partitions, partitions)
            acks.append(
                await producer.send(
                    topic, record.value, record.key, partition=where, headers=list(record.headers)
                )
            )
            if len(acks) > 5_000:
                await asyncio.gather(*acks)
                acks.clear()
        await asyncio.gather(*acks)
    finally:
        await producer.stop()


class _Story:
    """Knows where each record will stand: it alone writes."""

    def __init__(self, partition_of: Any) -> None:
        self._partition_of = partition_of
        self._chance = random.Random(7)
        vectors = np.random.default_rng(7).standard_normal((1_000, DIMS)).astype("<f4")
        self._vectors = [one.tobytes() for one in vectors / np.linalg.norm(vectors, axis=1)[:, None]]
        self._offset = 0
        self._next = dict.fromkeys(range(topic_table()[EMBEDDINGS].partitions), 0)

    def events(self, chunks_count: int) -> Iterator[tuple[str, Message]]:
        for number in range(chunks_count // _PER_IMPORT):
            yield from self._import(number)

    def _said(self, event: Message) -> tuple[str, Message]:
        self._offset += 1
        return IMPORTS, event

    def _import(self, number: int) -> Iterator[tuple[str, Message]]:
        name = f"history {number}"
        project = ids.project_id(name)
        head: dict[str, Any] = {
            "import_id": ids.import_id_of_key("anonymous", name),
            "project_id": project,
            "attempt": 1,
            "occurred_at": _AT,
        }
        files = (SourceFile(path="a.txt", sha256="0" * 64, size_bytes=1),)
        source = Source(kind=SourceKind.TEXT, files=files, file_count=1, size_bytes=1)
        yield self._said(ProjectCreated(**head, name=name, space=SPACE))
        revision = self._offset
        asked = ImportRequested(**head, source=source, request_sha256=name, space=SPACE, project_name=name)
        yield self._said(asked)
        documents = _PER_IMPORT // _PER_DOCUMENT
        for at in range(documents):
            yield from self._document(head, revision, ids.document_id(project, f"sha256:{at}"))
        yield self._said(ImportSealed(**head, document_count=documents, chunk_count=_PER_IMPORT))
        completed = ImportCompleted(
            **head,
            revision=revision,
            store_id=_STORE,
            digest="0",
            space=SPACE,
            project_name=name,
            document_count=documents,
            chunk_count=_PER_IMPORT,
            stored_count=_PER_IMPORT,
        )
        yield self._said(completed)

    def _document(
        self, head: dict[str, Any], revision: int, document: ids.DocumentId
    ) -> Iterator[tuple[str, Message]]:
        settled = []
        for index in range(_PER_DOCUMENT):
            text = f"{' '.join(self._chance.choices(_WORDS, k=30))} {document.hex} {index}"
            body: dict[str, Any] = {
                **head,
                "chunk_id": ids.chunk_id(document, "1", "full_text", index, text),
                "document_id": document,
                "embedding_key": ids.embedding_key(head["project_id"], text),
                "space": SPACE,
                "revision": revision,
                "chunk_index": index,
                "kind": ChunkKind.PASSAGE,
                "part": Part.FULL_TEXT,
                "text": text,
                "title": "A paper of the past",
            }
            yield CHUNKS, ChunkExtracted(**body)
            vector = self._chance.choice(self._vectors)
            yield EMBEDDINGS, ChunkEmbedded(**body, dims=DIMS, vector=vector, tokens_billed=40)
            partition = self._partition_of(str(body["embedding_key"]).encode())
            settled.append(
                SettledChunk(
                    partition=partition,
                    offset=self._next[partition],
                    chunk_id=body["chunk_id"],
                    document_id=document,
                    revision=revision,
                    chunk_index=index,
                    outcome=ChunkOutcome.STORED,
                    tokens_billed=40,
                    content_hash=bytes(32),
                )
            )
            self._next[partition] += 1
        parsed_offset = self._offset
        part = DocumentPart(part=Part.FULL_TEXT, chunk_ids=tuple(one.chunk_id for one in settled))
        about: dict[str, Any] = {**head, "document_id": document, "revision": revision}
        yield self._said(
            DocumentParsed(**about, content_hash="0", parts=(part,), title="A paper of the past")
        )
        for start in range(0, len(settled), _PER_SETTLEMENT):
            some = tuple(settled[start : start + _PER_SETTLEMENT])
            yield self._said(ChunksSettled(**head, space=SPACE, store_id=_STORE, chunks=some))
        said_offset = self._offset
        yield self._said(
            DocumentChunksSettled(
                **about, parsed_offset=parsed_offset, parts=(Part.FULL_TEXT,), stored_count=_PER_DOCUMENT
            )
        )
        yield self._said(
            DocumentSettled(**about, outcome=ChunkOutcome.STORED, store_id=_STORE, offset=said_offset)
        )
