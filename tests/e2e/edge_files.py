"""A collection of the embedded store, read and damaged in its folder with qdrant-edge alone: none of the writer's code."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import qdrant_edge as edge

PAGE = 500
BOOKKEEPING = {"position", "settings", "store", "collection", "dead_letters"}


def read_collection(folder: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Id, payload and a digest of the vectors of each point, except those that only describe the collection."""
    shard = edge.EdgeShard.load(str(folder))
    try:
        after = None
        while True:
            request = edge.ScrollRequest(offset=after, limit=PAGE, with_payload=True, with_vector=True)
            records, after = shard.scroll(request)
            for record in records:
                payload = dict(record.payload or {})
                if "kind" in payload and payload["kind"] not in BOOKKEEPING:
                    vectors = record.vector if isinstance(record.vector, dict) else {}
                    digest = hashlib.sha256(repr(sorted(vectors.items())).encode()).hexdigest()
                    yield str(record.id), payload, digest
            if after is None:
                return
    finally:
        shard.close()


def delete_points(folder: Path, ids: Sequence[str]) -> None:
    shard = edge.EdgeShard.load(str(folder))
    try:
        shard.update(edge.UpdateOperation.delete_points([UUID(each) for each in ids]))
        shard.flush()
    finally:
        shard.close()
