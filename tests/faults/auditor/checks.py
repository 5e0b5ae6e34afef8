"""The invariants I1 to I12, each a function of the evidence: numbers, and what breaks it. Pure; reads and waits for nothing."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tests.faults.auditor import derive
from tests.faults.auditor.evidence import Bill, Death, Evidence, Point
from tests.faults.auditor.expected import Expected, Import, chunks_of, work_out
from tests.faults.auditor.standing import counted_but_gone

LOST_PER_DEATH = 48 * 2 * 5
"""Texts that one death may cost: two batches of five for each of 48 partitions (P4)."""
NOTICED_S = 1.0
"""What was billed a moment after a fault may have been under way, for clocks and lines are not read at one instant."""
SERVICES = ("ingest", "embedder", "graph-writer")
NOT_WASTED = ("", "permuted")
"""What a billed request may meet and its answer still be of use."""
CHUNK_KINDS = frozenset({"passage", "abstract", "title", "note", "concept"})
EDGE_KINDS = frozenset({"HAS_AUTHOR", "DISCUSSES_CONCEPT", "MENTIONS"})
_ROUNDING = 1e-6


@dataclass(slots=True)
class Finding:
    name: str
    says: str
    numbers: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def judge(evidence: Evidence) -> list[Finding]:
    expected = work_out(evidence)
    return [check(evidence, expected) for check in CHECKS]


def points_are_those_expected(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding("I1", "the store holds the points that the sources and the log call for, and no others")
    graph = evidence.points.get("graph", {})
    wanted: set[str] = set()
    fates: Counter[str] = Counter()
    for chunk, place in expected.chunks.items():
        fate = expected.fate(chunk)
        fates[fate] += 1
        collection = evidence.points.get(derive.slug(place.space), {})
        marker = graph.get(derive.marker_id(chunk, place.space))
        source = expected.source(chunk) or {}
        id_ = source.get("concept_id") or chunk
        wanted.add(id_)
        if fate == "lost":
            found.broken.append(
                f"chunk {chunk} is listed by its document and no record says what became of it"
            )
        elif fate == "stored" and id_ not in collection:
            found.broken.append(f"chunk {chunk} has a vector in the log and no point in the store")
        elif (
            fate == "stored"
            and id_ != chunk
            and (marker is None or marker.payload["kind"] != "concept_chunk")
        ):
            found.broken.append(f"the concept chunk {chunk} has no marker")
        elif fate != "stored" and (marker is None or marker.payload["kind"] != "rejected_chunk"):
            found.broken.append(f"chunk {chunk} is {fate} and has no marker")
    allowed = wanted | expected.tolerated | expected.concepts
    for name, points in evidence.points.items():
        for id_, point in points.items():
            kind = point.payload.get("kind")
            if name != "graph" and kind in CHUNK_KINDS and id_ not in allowed:
                found.broken.append(f"{name} holds the {kind} {id_}, which nobody lists")
    edges = {id_ for id_, point in graph.items() if point.payload.get("kind") in EDGE_KINDS}
    found.broken += [f"the edge {id_} is missing" for id_ in sorted(expected.edges - edges)]
    strange = edges - expected.edges - expected.edges_tolerated
    found.broken += [f"the edge {id_} should not be there" for id_ in sorted(strange)]
    found.numbers = {"chunks": len(expected.chunks), **fates, "edges": len(edges)}
    found.numbers["files"] = _check_sources(evidence, expected, found.broken)
    return found


def _check_sources(evidence: Evidence, expected: Expected, broken: list[str]) -> int:
    """Every file of a completed import is a document, and every character of it stands in a chunk."""
    count = 0
    for import_id, files in evidence.sources.items():
        import_ = expected.imports.get(import_id)
        if import_ is None or import_.completed is None:
            continue
        for path, text in files.items():
            count += 1
            document = derive.document_of_text(import_.project, text)
            if document not in import_.parsed:
                broken.append(f"{path} of import {import_id} is no document of it")
                continue
            listed = chunks_of(import_.parsed[document].body, "full_text")
            texts = [expected.extracted[one].get(import_.revision, {}).get("text", "") for one in listed]
            if missing := derive.gaps(text, texts):
                broken.append(f"{missing} characters of {path} stand in no chunk")
    return count


def points_say_what_follows_from_their_chunks(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding(
        "I2", "each point's id, payload, hash and vector are what the auditor computes from its text"
    )
    for chunk, place in expected.chunks.items():
        source = expected.source(chunk)
        if source is None or expected.fate(chunk) != "stored":
            continue
        point = evidence.points.get(derive.slug(place.space), {}).get(source["concept_id"] or chunk)
        if point is None:
            continue  # I1 names it
        found.numbers["points"] = found.numbers.get("points", 0) + 1
        found.broken += [f"chunk {chunk}: {what}" for what in _differences(point, source, expected, chunk)]
    for (document, part), (version, chunks) in _indexed(expected).items():
        for index, (chunk, text) in enumerate(chunks):
            if chunk != derive.chunk_id(document, version, part, index, text):
                found.broken.append(f"chunk {chunk} has an id that does not follow from its text and place")
    return found


def _differences(point: Point, source: dict[str, Any], expected: Expected, chunk: str) -> list[str]:
    out = []
    computed = derive.vector(source["text"], source["space"])
    mine, theirs = np.frombuffer(computed, "<f4"), np.frombuffer(point.vector, "<f4")
    if mine.shape != theirs.shape or float(np.abs(mine - theirs).max()) > _ROUNDING:
        out.append("the vector is not that of its text")
    if source["concept_id"] is None and expected.arrived[chunk].body["vector"] != point.vector:
        out.append("the vector is not the one in the log, byte for byte")
    payload = derive.payload(source)
    said = {name: value for name, value in point.payload.items() if name not in derive.ORDER}
    if said != payload:
        differing = sorted(n for n in said.keys() | payload.keys() if said.get(n) != payload.get(n))
        out.append(f"the payload differs in {', '.join(differing)}")
    if point.payload.get("content_hash") != derive.content_hash(point.vector, payload):
        out.append("the content hash is not that of vector and payload")
    if source["embedding_key"] != derive.embedding_key(source["project_id"], source["text"]):
        out.append("the embedding key does not follow from the text")
    return out


def _indexed(expected: Expected) -> dict[tuple[str, str], tuple[str, list[tuple[str, str]]]]:
    """By document and part of completed imports: the chunker's version, and the chunks in order with their texts."""
    out: dict[tuple[str, str], tuple[str, list[tuple[str, str]]]] = {}
    for import_ in expected.imports.values():
        for document, fact in import_.parsed.items() if import_.completed else ():
            for part in fact.body["parts"]:
                rows = [(c, expected.extracted[c].get(import_.revision)) for c in part["chunk_ids"]]
                texts = [(chunk, row["text"]) for chunk, row in rows if row is not None]
                if len(texts) == len(rows):
                    out[document, part["part"]] = (import_.chunker_version, texts)
    return out


def imports_end_once(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding(
        "I3", "one terminal event per import and attempt, and no later outcome that it did not count"
    )
    completions = 0
    counted_at: dict[str, int] = {}
    for id_, import_ in expected.imports.items():
        for attempt in range(1, import_.attempt + 1):
            ended = import_.ended[attempt]
            completions += sum(one.type == "ImportCompleted" for one in ended)
            if len(ended) != 1:
                said = ", ".join(one.type for one in ended) or "nothing"
                found.broken.append(f"import {id_}, attempt {attempt} ended with {said}")
        if import_.completed is not None:
            counted_at[id_] = import_.completed.offset
    outcomes: dict[tuple[str, str], str] = {}
    newest = {chunk: place.revision for chunk, place in expected.chunks.items()}
    for fact in (one for one in evidence.of("ChunksSettled") if not one.is_repeat):
        id_ = fact.body["import_id"]
        is_late = fact.offset > counted_at.get(id_, 1 << 62)
        for one in fact.body["chunks"]:
            key = (id_, one["chunk_id"])
            is_newer_there = newest.get(one["chunk_id"], 1 << 62) > one["revision"]
            if is_late and outcomes.get(key) != one["outcome"] and not is_newer_there:
                was = outcomes.get(key, "not settled")
                found.broken.append(
                    f"chunk {one['chunk_id']} of {id_} was {was} at the completion, later {one['outcome']}"
                )
            outcomes[key] = one["outcome"]
    found.numbers = {"imports": len(expected.imports), "completions": completions}
    return found


def completion_is_true_when_it_is_read(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding(
        "I4", "when ImportCompleted becomes readable, the live store already answers for what it counts"
    )
    asked = [one for one in evidence.counted if one.answered and one.is_current]
    unanswered = sum(not one.answered for one in evidence.counted)
    for one in asked:
        if one.missing or one.checked < one.stored:
            found.broken.append(
                f"import {one.import_id}, attempt {one.attempt}: {one.stored} stored, {one.checked} looked at,"
                f" {one.missing} missing"
            )
    completions = 0
    for fact, gone in counted_but_gone(one for one in evidence.facts if one.topic == "imports"):
        completions += 1
        if gone:
            found.broken.append(
                f"import {fact.body['import_id']} counts {gone} chunks that no open store had said"
            )
    if completions and not evidence.counted:
        found.broken.append("nobody watched: not one completion was followed by a count")
    found.numbers = {"completions": completions, "asked": len(asked), "not_answered": unanswered}
    return found


def nobody_pays_twice(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding(
        "I5", "texts billed stay within P4's bound, and none is billed again without a fault in between"
    )
    projects: dict[str, set[str]] = defaultdict(set)
    for revisions in expected.extracted.values():
        for body in revisions.values():
            projects[derive.sha256(body["text"])].add(body["project_id"])
    bills: dict[str, list[Bill]] = defaultdict(list)
    for bill in evidence.bills:
        bills[bill.sha256].append(bill)
    deaths = [one for one in evidence.deaths if one.is_costly]
    once = sum(min(len(projects[text]), len(each)) for text, each in bills.items() if text in projects)
    wasted = sum(one.met not in NOT_WASTED for one in evidence.bills)
    bound = once + wasted + len(deaths) * LOST_PER_DEATH
    for text, each in bills.items():
        if text not in projects:
            found.broken.append(f"text {text[:12]} was billed and is no chunk's")
        elif (without := _billed_without_cause(each, deaths)) > len(projects[text]):
            found.broken.append(
                f"text {text[:12]} was billed {len(each)} times, {without} times without a fault before it"
            )
    if len(evidence.bills) > bound:
        found.broken.append(f"{len(evidence.bills)} texts billed, at most {bound} may be")
    if evidence.rebuilt is not None and evidence.rebuilt.bills_count:
        found.broken.append(f"rebuilding from the log billed {evidence.rebuilt.bills_count} texts")
    found.numbers = {
        "distinct": once, "billed": len(evidence.bills), "useless_answers": wasted,
        "repaid": len(evidence.bills) - once - wasted, "deaths": len(deaths), "bound": bound,
    }  # fmt: skip
    return found


def _billed_without_cause(bills: list[Bill], deaths: list[Death]) -> int:
    """How many projects must have the text, for each of them pays it for itself: every other bill has one of its project
    before it, since which there was a death, or which was for an answer of no use. Whose a bill is the ledger does not
    say; the latest before it that will do leaves the most for those to come.
    """
    lasts: list[Bill] = []
    for bill in sorted(bills, key=lambda one: one.at):
        excused = [one for one in lasts if _excuses(one, bill, deaths)]
        if excused:
            lasts.remove(max(excused, key=lambda one: (one.met in NOT_WASTED, one.at)))
        lasts.append(bill)
    return len(lasts)


def _excuses(before: Bill, bill: Bill, deaths: list[Death]) -> bool:
    return before.met not in NOT_WASTED or any(
        one.since <= bill.at and before.at <= one.until + NOTICED_S for one in deaths
    )


def one_id_one_content(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding("I6", "a ce_id never stands before two contents")
    contents: dict[str, set[bytes]] = defaultdict(set)
    for fact in evidence.facts:
        contents[fact.id].add(fact.content)
        if not fact.id:
            found.broken.append(f"{fact.topic}[{fact.partition}]@{fact.offset} has no ce_id")
    found.broken += [f"{id_} has {len(each)} contents" for id_, each in contents.items() if len(each) > 1]
    repeats = Counter(fact.type for fact in evidence.facts)
    for type_, count in Counter({(f.type, f.id) for f in evidence.facts}).items():
        repeats[type_[0]] -= count
    found.numbers = {"records": len(evidence.facts), "repeats": sum(repeats.values()), **+repeats}
    return found


def every_input_has_its_outcome(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding("I7", "stored + rejected + dead letters + superseded = inputs, in number and in digest")
    names = ("stored_count", "rejected_count", "dead_lettered_count", "superseded_count")
    settled = [one for one in evidence.of("ChunksSettled") if not one.is_repeat]
    for id_, import_ in expected.imports.items():
        if import_.completed is None:
            continue
        said, inputs = import_.completed.body, len(import_.listed)
        total = sum(said[name] for name in names)
        sealed = -1 if import_.sealed is None else import_.sealed.body["chunk_count"]
        if not inputs == total == said["chunk_count"] == sealed:
            found.broken.append(
                f"import {id_}: {inputs} chunks listed, {sealed} sealed, {said['chunk_count']} completed,"
                f" {total} with an outcome"
            )
        outcomes: dict[str, str] = {}
        for fact in settled:
            if fact.body["import_id"] == id_ and fact.offset < import_.completed.offset:
                outcomes |= {one["chunk_id"]: one["outcome"] for one in fact.body["chunks"]}
        outcomes |= dict.fromkeys(_replaced(evidence, import_), "superseded")
        counts = Counter(outcomes[chunk] for chunk in import_.listed if chunk in outcomes)
        for name in names:
            outcome = name.removesuffix("_count")
            found.numbers[outcome] = found.numbers.get(outcome, 0) + said[name]
            if counts[outcome] != said[name]:
                found.broken.append(
                    f"import {id_}: {counts[outcome]} settled as {outcome}, {said[name]} said"
                )
        hashes = {
            _hash(expected, chunk, import_.revision)
            for chunk in import_.listed
            if outcomes.get(chunk) == "stored"
        }
        if derive.digest(hashes) != said["digest"]:
            found.broken.append(f"import {id_}: the digest is not that of its chunks")
    return found


def _replaced(evidence: Evidence, import_: Import) -> set[str]:
    """Chunks of parts that a newer revision had closed when the import was completed: they count as superseded."""
    assert import_.completed is not None, "what is not complete counts nothing"
    return {
        chunk
        for fact in evidence.of("DocumentChunksSettled")
        if fact.offset < import_.completed.offset and fact.body["revision"] > import_.revision
        if (parsed := import_.parsed.get(fact.body["document_id"])) is not None
        for part in fact.body["parts"]
        for chunk in chunks_of(parsed.body, part)
    }


def _hash(expected: Expected, chunk: str, revision: int) -> str:
    """With the vector of the log, whose bytes may differ in the last bit from what the auditor computes (I2)."""
    arrival = expected.arrived.get(chunk)
    vector = arrival.body.get("vector", b"") if arrival is not None else b""
    source = expected.extracted[chunk].get(revision)
    return "0" if source is None else derive.content_hash(vector, derive.payload(source))


def progress_never_falls(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding("I8", "progress over HTTP and SSE never falls and never exceeds the total")
    seen: dict[tuple[str, str], tuple[int, float]] = {}
    for one in evidence.progress:
        key = (one.import_id, one.via)
        now = (one.attempt, one.progress)
        if now < seen.get(key, now):
            found.broken.append(f"import {one.import_id} over {one.via}: {seen[key]} fell to {now}")
        seen[key] = now
        if one.progress > 1 or one.settled > one.total:
            found.broken.append(
                f"import {one.import_id}: {one.settled} of {one.total}, progress {one.progress}"
            )
    found.numbers = {"looked": len(evidence.progress), "connections": len(seen)}
    if expected.imports and not evidence.progress:
        found.broken.append("nobody watched: no progress was read")
    return found


def memory_stays_under_its_ceiling(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding(
        "I9", f"the three services together stay under {evidence.memory_mb_max} MB of anonymous memory"
    )
    sums = [sum(sample.get(name, 0) for name in SERVICES) for sample in evidence.memory_kb]
    peaks = {n: max((s.get(n, 0) for s in evidence.memory_kb), default=0) // 1024 for n in SERVICES}
    found.numbers = {"samples": len(sums), "peak_mb": max(sums, default=0) // 1024, **peaks}
    if max(sums, default=0) > evidence.memory_mb_max * 1024:
        found.broken.append(f"{max(sums) // 1024} MB together")
    if expected.imports and not sums:
        found.broken.append("nobody watched: no memory was read")
    return found


def it_finishes_in_time(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding("I10", f"after the last fault everything ends within {evidence.finish_s_max:.0f} s")
    found.numbers = {"seconds": None if evidence.finished_in_s is None else round(evidence.finished_in_s, 1)}
    if evidence.finished_in_s is None or evidence.finished_in_s > evidence.finish_s_max:
        found.broken.append("it did not")
    return found


def the_log_is_enough(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding("I11", "without index, spool, projection and store, the log gives the same state again")
    rebuilt = evidence.rebuilt
    if rebuilt is None:
        found.numbers = {"rebuilt": "not asked for"}
        return found
    was, now = _digests(evidence.points), _digests(rebuilt.points)
    for name in sorted(was.keys() | now.keys()):
        mine, theirs = was.get(name, {}), now.get(name, {})
        missing, extra = mine.keys() - theirs.keys(), theirs.keys() - mine.keys()
        tolerated = expected.tolerated | expected.edges_tolerated
        other = sorted(id_ for id_ in mine.keys() & theirs.keys() if mine[id_] != theirs[id_])
        found.broken += [f"{name}: {id_} is gone" for id_ in sorted(missing - tolerated)]
        found.broken += [f"{name}: {id_} is new" for id_ in sorted(extra - tolerated)]
        found.broken += [f"{name}: {id_} is another" for id_ in other if id_ not in tolerated]
    for id_, status in evidence.statuses.items():
        after = rebuilt.statuses.get(id_)
        if after != status:
            names = sorted(
                n for n in status.keys() | (after or {}).keys() if (after or {}).get(n) != status.get(n)
            )
            found.broken.append(f"import {id_} is told otherwise: {', '.join(names)}")
    found.numbers = {"points": sum(map(len, now.values())), "imports": len(rebuilt.statuses)}
    return found


def _digests(points: dict[str, dict[str, Point]]) -> dict[str, dict[str, str]]:
    """By collection and id, of what carries content; what describes the collection itself is the store's own."""
    own = {"position", "settings", "store", "collection", "dead_letters"}
    return {
        name: {
            id_: derive.content_hash(point.vector, {k: v for k, v in point.payload.items() if k != "marks"})
            for id_, point in each.items()
            if point.payload.get("kind") not in own
        }
        for name, each in points.items()
    }


def nothing_private_is_said(evidence: Evidence, expected: Expected) -> Finding:
    found = Finding(
        "I12", "no key and no document's text in logs, problem documents, headers of dead letters"
    )
    for name, words in evidence.words.items():
        found.broken += [
            f"{name} holds {secret[:6]}… at {words.index(secret)}"
            for secret in evidence.secrets
            if secret in words
        ]
    found.numbers = {"searched": len(evidence.words), "bytes": sum(map(len, evidence.words.values()))}
    return found


CHECKS: tuple[Callable[[Evidence, Expected], Finding], ...] = (
    points_are_those_expected,
    points_say_what_follows_from_their_chunks,
    imports_end_once,
    completion_is_true_when_it_is_read,
    nobody_pays_twice,
    one_id_one_content,
    every_input_has_its_outcome,
    progress_never_falls,
    memory_stays_under_its_ceiling,
    it_finishes_in_time,
    the_log_is_enough,
    nothing_private_is_said,
)
