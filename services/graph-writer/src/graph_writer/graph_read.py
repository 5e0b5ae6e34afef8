"""A project's graph as JSON, written out page by page: what it holds at once is bounded, not what it says.

Weights and CO_OCCURS_WITH are counted here, never stored. Labels of shared nodes come from the edges' spellings, the
first in order of the alphabet, so that they do not depend on which document came first.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from itertools import combinations
from typing import Any
from uuid import UUID

from graph_writer.graph import (
    AUTHOR,
    CO_OCCURS_WITH,
    CONCEPT,
    DISCUSSES_CONCEPT,
    EDGE_KINDS,
    HAS_AUTHOR,
    MENTIONS,
    PAPER,
)
from graph_writer.opened import GRAPH
from graph_writer.stores.store import Payload, Store, Where

NODES_DEFAULT = 5_000
NODES_MAX = 50_000
PAIRS_MAX = 20_000
CONCEPTS_PER_DOCUMENT_MAX = 60
PAGE = 50
_HIDDEN = {"project_id", "document_id", "kind", "revision", "attempt", "marks", "version", "part"}


class GraphRead:
    def __init__(self, store: Store, project: UUID, *, nodes_max: int) -> None:
        self._store = store
        self._project = project
        self._nodes_max = nodes_max
        self._labels: dict[str, tuple[str, str]] = {}
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._is_truncated = False

    async def parts(self) -> AsyncIterator[str]:
        """Pieces of one JSON document."""
        yield '{"nodes":['
        separator = ""
        async for page in self._papers():
            for paper in page:
                yield separator + _json(_paper_node(paper))
                separator = ","
            async for edge in self._edges([paper["document_id"] for paper in page]):
                self._name(edge)
        for id_, (type_, label) in self._labels.items():
            yield separator + _json({"id": id_, "type": type_, "label": label})
            separator = ","
        yield '],"edges":['
        separator = ""
        async for page in self._papers():
            async for said in self._edges_of(page):
                yield separator + _json(said)
                separator = ","
        for (source, target), weight in self._pairs.items():
            yield separator + _json(
                {"source": source, "target": target, "type": CO_OCCURS_WITH, "weight": weight}
            )
            separator = ","
        yield f'],"truncated":{_json(self._is_truncated)}}}'

    async def _papers(self) -> AsyncIterator[list[Payload]]:
        """Pages of papers, as many as the limit of nodes lets in; the second time the same ones."""
        after: UUID | None = None
        count = 0
        where = Where(project_id=self._project, kinds=(PAPER,))
        while True:
            points, after = await self._store.scroll(GRAPH.name, where, limit=PAGE, after=after)
            room = max(0, self._nodes_max - count)
            count += len(points)
            yield [point.payload for point in points[:room]]
            if after is None:
                return
            if count >= self._nodes_max:
                self._is_truncated = True
                return

    async def _edges(self, documents: list[str]) -> AsyncIterator[Payload]:
        if not documents:
            return
        after: UUID | None = None
        where = Where(document_ids=tuple(UUID(one) for one in documents), kinds=EDGE_KINDS)
        while True:
            points, after = await self._store.scroll(GRAPH.name, where, limit=500, after=after)
            for point in points:
                yield point.payload
            if after is None:
                return

    def _name(self, edge: Payload) -> None:
        type_ = {HAS_AUTHOR: AUTHOR, DISCUSSES_CONCEPT: CONCEPT}.get(edge["kind"])
        if type_ is None:
            return
        id_ = edge["target"]
        there = self._labels.get(id_)
        if there is None and len(self._labels) >= self._nodes_max:
            self._is_truncated = True
        elif there is None or edge["name"] < there[1]:
            self._labels[id_] = (type_, edge["name"])

    async def _edges_of(self, page: list[Payload]) -> AsyncIterator[dict[str, Any]]:
        mentions: Counter[tuple[str, str]] = Counter()
        concepts: dict[str, list[str]] = {}
        async for edge in self._edges([paper["document_id"] for paper in page]):
            document, target = edge["document_id"], edge["target"]
            if target not in self._labels:
                continue
            if edge["kind"] == MENTIONS:
                mentions[document, target] += 1
                continue
            if edge["kind"] == DISCUSSES_CONCEPT:
                concepts.setdefault(document, []).append(target)
            more = {name: value for name, value in edge.items() if name not in _HIDDEN}
            yield {**more, "type": edge["kind"]}
        for (document, target), count in mentions.items():
            yield {"source": document, "target": target, "type": MENTIONS, "weight": count}
        self._count_pairs(concepts)

    def _count_pairs(self, concepts: dict[str, list[str]]) -> None:
        for found in concepts.values():
            if len(found) > CONCEPTS_PER_DOCUMENT_MAX:
                self._is_truncated = True
            for pair in combinations(sorted(found)[:CONCEPTS_PER_DOCUMENT_MAX], 2):
                if pair in self._pairs or len(self._pairs) < PAIRS_MAX:
                    self._pairs[pair] += 1
                else:
                    self._is_truncated = True


def _paper_node(paper: Payload) -> dict[str, Any]:
    more = {name: value for name, value in paper.items() if name not in _HIDDEN}
    return {"id": paper["document_id"], "type": PAPER, **more}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
