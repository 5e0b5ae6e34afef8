"""The auditor's invariants: a sound run is found sound, and each way of breaking one is reported by its name."""

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.auditor import derive
from tests.faults.auditor.checks import CHECKS, LOST_PER_DEATH, judge
from tests.faults.auditor.evidence import Bill, Death, Evidence, Point, Progress, Rebuilt
from tests.unit.auditor.runs import (
    CHUNKS,
    COLLECTION,
    CONCEPT,
    CONCEPT_CHUNK,
    FIRST,
    HEAD,
    IMPORT,
    SECOND,
    SPACE,
    STORE,
    sound,
)


def broken(evidence: Evidence) -> dict[str, list[str]]:
    return {one.name: one.broken for one in judge(evidence) if one.broken}


def drop(evidence: Evidence, type_: str, **of: Any) -> None:
    evidence.facts = [
        one
        for one in evidence.facts
        if one.type != type_ or any(one.body.get(name) != value for name, value in of.items())
    ]


def say(evidence: Evidence, type_: str, **changes: Any) -> None:
    """Every fact of that type says something else; under the same id."""
    evidence.facts = [
        dataclasses.replace(one, body=one.body | changes) if one.type == type_ else one
        for one in evidence.facts
    ]


def add(evidence: Evidence, type_: str, body: dict[str, Any]) -> None:
    offset = max(one.offset for one in evidence.facts if one.topic == "imports") + 1
    like = next(one for one in evidence.facts if one.topic == "imports")
    evidence.facts.append(
        dataclasses.replace(like, type=type_, body=body, offset=offset, id=f"{type_}{offset}")
    )


def open_store(evidence: Evidence, store: str) -> None:
    """Just before the completion, at the position of the second record."""
    at = next(n for n, one in enumerate(evidence.facts) if one.type == "ImportCompleted")
    positions = [{"collection": COLLECTION, "topic": "embeddings", "partition": 0, "offset": 1}]
    body = {"store_id": store, "positions": positions}
    evidence.facts.insert(
        at, dataclasses.replace(evidence.facts[at], type="StoreOpened", body=body, id="opened")
    )


def point(evidence: Evidence, id_: str = FIRST, **changes: Any) -> None:
    there = evidence.points[COLLECTION][id_]
    evidence.points[COLLECTION][id_] = dataclasses.replace(there, **changes)


def test_a_sound_run_is_found_sound_by_all_twelve():
    assert broken(sound()) == {}
    assert [one.name for one in judge(sound())] == [f"I{number}" for number in range(1, 13)]
    assert len(CHECKS) == 12


def _edge(evidence: Evidence) -> str:
    parsed = next(one for one in evidence.facts if one.type == "DocumentParsed")
    return next(iter(derive.edges(parsed.body)))


def _completed(evidence: Evidence) -> dict[str, Any]:
    return next(one.body for one in evidence.facts if one.type == "ImportCompleted")


def _settle(evidence: Evidence, chunk: str, outcome: str) -> None:
    add(
        evidence,
        "ChunksSettled",
        HEAD
        | {
            "store_id": STORE,
            "chunks": [{"partition": 0, "offset": 9, "chunk_id": chunk, "revision": 1, "outcome": outcome}],
        },
    )


def _counted(evidence: Evidence, **changes: Any) -> None:
    evidence.counted = [dataclasses.replace(one, **changes) for one in evidence.counted]


def _progress(evidence: Evidence, **changes: Any) -> Progress:
    return dataclasses.replace(evidence.progress[-1], **changes)


def _rebuilt(evidence: Evidence) -> Rebuilt:
    assert evidence.rebuilt is not None
    return evidence.rebuilt


def _rebuild_without(evidence: Evidence, id_: str) -> None:
    left = {name: {k: v for k, v in each.items() if k != id_} for name, each in evidence.points.items()}
    evidence.rebuilt = dataclasses.replace(_rebuilt(evidence), points=left)


def _two_contents(evidence: Evidence) -> None:
    evidence.facts.append(dataclasses.replace(evidence.facts[0], content=b"another"))


def _swap_texts(evidence: Evidence) -> None:
    for one in evidence.facts:
        if one.type == "ChunkExtracted" and one.body["chunk_id"] in (FIRST, SECOND):
            one.body["text"] = "swapped " + one.body["text"]


def _overpay(evidence: Evidence) -> None:
    """Each text once more after a death, which one death allows; together more than one death can lose."""
    evidence.deaths = [Death(name="embedder", since=1.0, until=1.0)]
    texts = [f"text {number}" for number in range(LOST_PER_DEATH + 1)]
    for number, text in enumerate(texts):
        body = CHUNKS[0] | {"text": text, "chunk_id": f"c{number}", "import_id": "another"}
        evidence.facts.append(
            dataclasses.replace(evidence.facts[2], body=body, type="ChunkExtracted", id=text)
        )
    evidence.bills += [Bill(sha256=derive.sha256(text), met="", at=at) for text in texts for at in (0.0, 2.0)]


Break = Callable[[Evidence], object]
BREAKS: list[tuple[str, str, Break]] = [
    ("I1", "a point is missing", lambda e: e.points[COLLECTION].pop(FIRST)),
    ("I1", "a concept's point is missing", lambda e: e.points[COLLECTION].pop(CONCEPT)),
    ("I1", "a marker is missing", lambda e: e.points["graph"].pop(derive.marker_id(CONCEPT_CHUNK, SPACE))),
    ("I1", "an edge is missing", lambda e: e.points["graph"].pop(_edge(e))),
    ("I1", "there is an edge too many", lambda e: e.points["graph"].update(x=Point(payload={"kind": "MENTIONS"}, vector=b""))),
    ("I1", "there is a point too many", lambda e: e.points[COLLECTION].update(x=Point(payload={"kind": "passage"}, vector=b""))),
    ("I1", "no record says what became of a chunk", lambda e: drop(e, "ChunkEmbedded", chunk_id=FIRST)),
    ("I1", "a file is no document", lambda e: e.sources[IMPORT].update({"other.txt": "Another\n\ntext"})),
    ("I1", "a part of a file stands in no chunk", lambda e: drop(e, "ChunkExtracted", chunk_id=FIRST)),
    ("I2", "a vector is another", lambda e: point(e, vector=derive.vector("another text", SPACE))),
    ("I2", "a payload is another", lambda e: point(e, payload=e.points[COLLECTION][FIRST].payload | {"section": "2"})),
    ("I2", "a hash is another", lambda e: point(e, payload=e.points[COLLECTION][FIRST].payload | {"content_hash": "0"})),
    ("I2", "a key does not follow", lambda e: say(e, "ChunkExtracted", embedding_key="0")),
    ("I2", "an id does not follow", _swap_texts),
    ("I3", "an import completes twice", lambda e: add(e, "ImportCompleted", dict(_completed(e)))),
    ("I3", "an import does not end", lambda e: drop(e, "ImportCompleted")),
    ("I3", "a chunk settles otherwise afterwards", lambda e: _settle(e, FIRST, "rejected")),
    ("I4", "the store does not hold what was said", lambda e: _counted(e, missing=1)),
    ("I4", "the store was not asked", lambda e: e.counted.clear()),
    ("I4", "another store was opened before it was said", lambda e: open_store(e, "another")),
    ("I4", "the store had gone back before it was said", lambda e: open_store(e, STORE)),
    ("I5", "a text is billed twice", lambda e: e.bills.append(e.bills[0])),
    ("I5", "what is no chunk's is billed", lambda e: e.bills.append(Bill(sha256="0" * 64, met=""))),
    ("I5", "rebuilding bills", lambda e: setattr(e, "rebuilt", dataclasses.replace(_rebuilt(e), bills_count=1))),
    ("I5", "the sum is too large", _overpay),
    ("I6", "a ce_id stands before two contents", _two_contents),
    ("I6", "a record has no id", lambda e: e.facts.append(dataclasses.replace(e.facts[0], id=""))),
    ("I7", "the sum is not the number of inputs", lambda e: say(e, "ImportCompleted", stored_count=3)),
    ("I7", "sealed was another number", lambda e: say(e, "ImportSealed", chunk_count=5)),
    ("I7", "the digest is another", lambda e: say(e, "ImportCompleted", digest="0" * 64)),
    ("I7", "a counted chunk was never settled", lambda e: say(e, "ChunksSettled", chunks=[])),
    ("I8", "progress falls", lambda e: e.progress.reverse()),
    ("I8", "progress exceeds the total", lambda e: e.progress.append(_progress(e, settled=5))),
    ("I8", "nobody looked", lambda e: e.progress.clear()),
    ("I9", "memory is above the ceiling", lambda e: e.memory_kb.append({"ingest": 310_000})),
    ("I9", "nobody looked", lambda e: e.memory_kb.clear()),
    ("I10", "it takes too long", lambda e: setattr(e, "finished_in_s", 61.0)),
    ("I10", "it does not end", lambda e: setattr(e, "finished_in_s", None)),
    ("I11", "a point is gone", lambda e: _rebuild_without(e, FIRST)),
    ("I11", "a status is another", lambda e: _rebuilt(e).statuses.update({IMPORT: {"state": "embedding"}})),
    ("I12", "a key stands in a log", lambda e: e.words.update({"embedder.log": "key=sk-secret"})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "how", "break_"), BREAKS, ids=[f"{name}: {how}" for name, how, _ in BREAKS])
def test_each_invariant_is_reported_when_it_is_broken(name: str, how: str, break_: Break):
    evidence = sound()
    break_(evidence)
    assert name in broken(evidence)


def test_every_invariant_is_broken_once():
    assert {name for name, _, _ in BREAKS} == {f"I{number}" for number in range(1, 13)}


def test_a_text_may_be_billed_again_after_an_answer_of_no_use_or_a_death_in_between():
    wasted, died = sound(), sound()
    wasted.bills.insert(0, dataclasses.replace(wasted.bills[0], met="late", at=-1.0))
    died.bills.append(dataclasses.replace(died.bills[0], at=60.0))
    died.deaths = [Death(name="embedder", since=30.0, until=30.0)]
    assert broken(wasted) == broken(died) == {}
    died.deaths = [Death(name="ingest", since=30.0, until=30.0)]
    assert "I5" in broken(died), "the death of who does not pay costs nothing"
    died.deaths = [Death(name="embedder", since=61.0, until=61.0)]
    assert "I5" in broken(died), "a death after the second bill is no reason for it"


def test_each_project_with_a_text_pays_it_for_itself_again_after_each_death():
    evidence = sound()
    other = "9d1c7a32-9d3e-4b65-8a44-0d8f0d1f1a11"
    add(evidence, "ChunkExtracted", {**CHUNKS[1], "project_id": other, "chunk_id": str(uuid.uuid4())})
    bill = next(one for one in evidence.bills if one.sha256 == derive.sha256(CHUNKS[1]["text"]))
    evidence.deaths = [Death(name="embedder", since=at, until=at) for at in (30.0, 60.0, 90.0)]
    both = [dataclasses.replace(bill, at=at + later) for at in (40.0, 70.0, 100.0) for later in (0.0, 0.001)]
    evidence.bills += [dataclasses.replace(bill, at=0.001), *both]
    assert "I5" not in broken(evidence)
    evidence.bills.append(dataclasses.replace(bill, at=100.002))
    assert broken(evidence)["I5"] == [
        f"text {bill.sha256[:12]} was billed 9 times, 3 times without a fault before it"
    ]


def test_characters_in_no_chunk_are_counted():
    assert derive.gaps("one two three", ["one two", "two three"]) == 0
    assert derive.gaps("one two three", ["one", "three"]) == 3
    assert derive.gaps("one two three", ["one two"]) == 5


def test_what_the_run_itself_has_said_again_breaks_nothing():
    evidence = sound()
    facts = evidence.facts
    opened = next(one for one in facts if one.type == "StoreOpened")
    completed = next(one for one in facts if one.type == "ImportCompleted")
    repeats = [dataclasses.replace(one, is_repeat=True) for one in (opened, completed)]
    at = facts.index(completed)
    evidence.facts = [*facts[:at], repeats[0], completed, repeats[1], *facts[at + 1 :]]
    assert [one.broken for one in judge(evidence)] == [[]] * 12


def test_a_rejection_behind_a_vector_of_its_attempt_changes_nothing():
    """A former owner's; one of a later attempt would."""
    evidence = sound()
    embedded = next(one for one in evidence.facts if one.type == "ChunkEmbedded")
    for attempt, is_sound in ((1, True), (2, False)):
        body = {name: value for name, value in embedded.body.items() if name != "vector"} | {
            "attempt": attempt
        }
        late = dataclasses.replace(
            embedded, type="ChunkRejected", id="late", content=b"late", body=body, offset=99
        )
        said = dataclasses.replace(evidence, facts=[*evidence.facts, late])
        assert ([one.broken for one in judge(said)] == [[]] * 12) is is_sound


def test_what_a_newer_revision_had_closed_counts_as_superseded_though_it_was_settled_as_stored():
    evidence = sound()
    facts = evidence.facts
    said = next(one for one in facts if one.type == "DocumentChunksSettled")
    completed = next(one for one in facts if one.type == "ImportCompleted")
    newer = dataclasses.replace(said, body=said.body | {"revision": 5}, id="newer", content=b"newer")
    counts = {"stored_count": 0, "superseded_count": len(CHUNKS), "digest": derive.digest(set())}
    overtaken = dataclasses.replace(completed, body=completed.body | counts)
    at = facts.index(completed)
    evidence.facts = [*facts[:at], overtaken, *facts[at + 1 :]]
    assert "I7" in broken(evidence)
    evidence.facts = [*facts[:at], newer, overtaken, *facts[at + 1 :]]
    assert "I7" not in broken(evidence)
