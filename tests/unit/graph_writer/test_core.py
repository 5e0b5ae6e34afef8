import json
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from tests.unit.graph_writer.story import BIB, NOW, OTHER_SPACE, PROJECT, SPACE, TEXT, Content, vector_of

from eventlog import ids
from eventlog.events import ChunkOutcome, ChunkRejectionReason, Part
from graph_writer import core
from graph_writer.core import Arrival, Held, Known, Mark, Plan, ReadTo, plan_upserts

PAPER = Content(bib=("On the Origin", "An abstract"), text=("one", "two"), concepts={"Finch": (0,)})
TITLE, ABSTRACT, CONCEPT, ONE = 0, 1, 2, 3


def arrival(content: Content, index: int, *, offset: int = 0) -> Arrival:
    return core.arrival_of_embedded(content.embedded(index), 7, offset)


def rejection(content: Content, index: int) -> Arrival:
    return core.arrival_of_rejected(content.rejected(index), 7, 0)


def dead_letter(content: Content, index: int) -> Arrival:
    return core.arrival_of_dead_letter(content.rejected(index), 7, 3, "x")


def outcomes(plan: Plan) -> list[ChunkOutcome]:
    return [one.chunk.outcome for one in plan.settled]


def known(
    content: Content, *points: int, marks: dict[Part, int] | None = None, markers: tuple[int, ...] = ()
):
    order = (content.revision, content.attempt)
    at = {
        part: Mark(revision=revision, parsed_offset=revision + 1) for part, revision in (marks or {}).items()
    }
    return Known(
        marks={content.document_id: at} if at else {},
        points={(SPACE, content.chunk_id(index)): order for index in points},
        markers={core.marker_id(content.chunk_id(index), SPACE): order for index in markers},
    )


# --- what becomes of a chunk


def test_a_chunk_is_stored_with_what_a_reader_shows_of_it():
    plan = plan_upserts([arrival(PAPER.at(5, attempt=2), ONE, offset=9)], Known())
    ((space, draft),) = plan.points
    assert (space, draft.order, draft.vector) == (SPACE, (5, 2), vector_of("one"))
    assert draft.payload["text"] == "one"
    assert draft.payload["project_id"] == str(PROJECT)
    assert draft.payload["title"] == "On the Origin"
    assert draft.payload["creators"] == ["Darwin, Charles"]
    assert (draft.payload["part"], draft.payload["revision"], draft.payload["attempt"]) == ("full_text", 5, 2)
    assert "import_id" not in draft.payload
    (settled,) = plan.settled
    assert (settled.chunk.partition, settled.chunk.offset, settled.chunk.revision) == (7, 9, 5)
    assert settled.chunk.outcome is ChunkOutcome.STORED
    assert settled.chunk.content_hash == bytes.fromhex(draft.payload["content_hash"])


@pytest.mark.parametrize("there", [(6, 1), (5, 2)])
def test_what_is_below_what_stands_under_its_id_is_not_written_and_is_superseded(there: tuple[int, int]):
    newer = PAPER.at(there[0], attempt=there[1])
    for found in (known(newer, ONE), known(newer, markers=(ONE,))):
        plan = plan_upserts([arrival(PAPER.at(5), ONE)], found)
        assert (plan.points, plan.deletes, plan.markers) == ((), (), ())
        assert outcomes(plan) == [ChunkOutcome.SUPERSEDED]


@pytest.mark.parametrize("is_same_batch", [True, False])
def test_within_one_attempt_the_first_vector_stands_and_is_what_every_settlement_says(is_same_batch: bool):
    """A former owner may have paid the text again, and not every vendor gives the same vector twice."""
    first = arrival(PAPER.at(5), ONE)
    assert first.embedded is not None
    second = replace(first, embedded=replace(first.embedded, vector=vector_of("two")), offset=9)
    alone = plan_upserts([first], Known())
    if is_same_batch:
        plan = plan_upserts([first, second], Known())
        assert plan.points == alone.points
    else:
        hash_ = alone.points[0][1].payload["content_hash"]
        found = replace(known(PAPER.at(5), ONE), hashes={(SPACE, PAPER.chunk_id(ONE)): hash_})
        plan = plan_upserts([second], found)
        assert plan.points == ()
    assert plan.settled[-1].chunk.offset == 9
    assert {one.chunk.content_hash for one in plan.settled} == {alone.settled[0].chunk.content_hash}
    assert set(outcomes(plan)) == {ChunkOutcome.STORED}


@pytest.mark.parametrize("index", [ONE, CONCEPT])
def test_a_chunk_in_two_spaces_is_two_points_though_it_is_one_chunk_of_one_attempt(index: int):
    """As when a store refills with the log of a project that was moved: both come in one batch."""
    moved = replace(PAPER, space=OTHER_SPACE)
    both = [arrival(PAPER.at(5), index), arrival(moved.at(5), index)]
    plan = plan_upserts(both, Known())
    assert [(space, draft.id) for space, draft in plan.points] == [(one.space, one.point_id) for one in both]
    assert outcomes(plan) == [ChunkOutcome.STORED, ChunkOutcome.STORED]
    there = Known(points={both[0].place: (9, 1)})
    assert outcomes(plan_upserts(both[1:], there)) == [ChunkOutcome.STORED]


def test_a_rejection_in_one_space_leaves_the_vector_of_another():
    moved = replace(PAPER, space=OTHER_SPACE)
    both = [arrival(moved.at(5), ONE), arrival(PAPER.at(5), ONE), rejection(moved.at(5, attempt=2), ONE)]
    found = Known(points={both[0].place: (5, 1)}, hashes={both[0].place: "00" * 32})
    plan = plan_upserts(both, found)
    assert [space for space, _ in plan.points] == [SPACE]
    assert [space for space, _, _ in plan.deletes] == [OTHER_SPACE]


def test_a_point_that_has_lost_its_hash_is_written_again():
    plan = plan_upserts([arrival(PAPER.at(5), ONE)], known(PAPER.at(5), ONE))
    assert len(plan.points) == 1


def test_below_the_mark_nothing_is_written_and_what_an_earlier_try_left_is_deleted():
    found = known(PAPER.at(5), ONE, marks={TEXT: 6}, markers=(ONE,))
    plan = plan_upserts([arrival(PAPER.at(4), ONE)], found)
    chunk = PAPER.chunk_id(ONE)
    assert plan.points == ()
    assert plan.deletes == ((SPACE, chunk, (5, 1)),)
    assert plan.marker_deletes == ((core.marker_id(chunk, SPACE), (5, 1)),)
    assert outcomes(plan) == [ChunkOutcome.SUPERSEDED]


def test_below_the_mark_what_the_newer_content_holds_under_the_same_id_stays():
    plan = plan_upserts([arrival(PAPER.at(4), ONE)], known(PAPER.at(6), ONE, marks={TEXT: 6}))
    assert (plan.points, plan.deletes) == ((), ())


def test_at_the_mark_a_chunk_is_stored():
    plan = plan_upserts([arrival(PAPER.at(6), ONE)], known(PAPER.at(6), marks={TEXT: 6}))
    assert outcomes(plan) == [ChunkOutcome.STORED]


def test_the_mark_of_one_part_says_nothing_of_the_other():
    plan = plan_upserts(
        [arrival(PAPER.at(5), ONE), arrival(PAPER.at(5), TITLE)], known(PAPER, marks={BIB: 6})
    )
    assert outcomes(plan) == [ChunkOutcome.STORED, ChunkOutcome.SUPERSEDED]


def test_a_rejected_chunk_is_kept_as_a_point_of_the_graph():
    plan = plan_upserts([rejection(PAPER.at(5), ONE)], Known())
    (marker,) = plan.markers
    assert marker.payload["kind"] == core.REJECTED_KIND
    assert marker.payload["reason"] == "provider_refused"
    assert (marker.payload["chunk_id"], marker.order) == (str(PAPER.chunk_id(ONE)), (5, 1))
    assert plan.points == ()
    assert outcomes(plan) == [ChunkOutcome.REJECTED]


def test_a_rejection_takes_a_vector_of_its_own_revision_away_and_never_one_of_an_older():
    own = plan_upserts([rejection(PAPER.at(5, attempt=2), ONE)], known(PAPER.at(5), ONE))
    assert own.deletes == ((SPACE, PAPER.chunk_id(ONE), (5, 1)),)
    older = plan_upserts([rejection(PAPER.at(6), ONE)], known(PAPER.at(5), ONE))
    assert older.deletes == ()
    assert outcomes(older) == [ChunkOutcome.REJECTED]


def test_a_vector_takes_the_place_of_an_earlier_rejection():
    plan = plan_upserts([arrival(PAPER.at(5, attempt=2), ONE)], known(PAPER.at(5), markers=(ONE,)))
    assert plan.marker_deletes == ((core.marker_id(PAPER.chunk_id(ONE), SPACE), (5, 1)),)
    assert len(plan.points) == 1


def test_what_comes_twice_in_a_batch_is_written_once_as_the_higher_says():
    both = [arrival(PAPER.at(6), ONE), arrival(PAPER.at(5), ONE)]
    for arrivals, expected in (
        (both, [ChunkOutcome.STORED, ChunkOutcome.SUPERSEDED]),
        (both[::-1], [ChunkOutcome.STORED, ChunkOutcome.STORED]),
    ):
        plan = plan_upserts(arrivals, Known())
        ((_, draft),) = plan.points
        assert draft.payload["revision"] == 6
        assert outcomes(plan) == expected


def test_a_rejection_and_a_vector_in_one_batch_end_as_the_later_attempt_says():
    first, second = PAPER.at(5), PAPER.at(5, attempt=2)
    plan = plan_upserts([rejection(first, ONE), arrival(second, ONE)], Known())
    assert (len(plan.points), plan.markers) == (1, ())
    plan = plan_upserts([arrival(first, ONE), rejection(second, ONE)], Known())
    assert len(plan.markers) == 1
    assert [one[1] for one in plan.deletes] == [PAPER.chunk_id(ONE)]


def test_a_dead_letter_is_settled_from_its_headers_with_the_reason():
    arrived = core.arrival_of_dead_letter(PAPER.rejected(ONE), 7, 3, "avro_invalid")
    plan = plan_upserts([arrived], Known())
    (settled,) = plan.settled
    assert (settled.chunk.outcome, settled.chunk.reason) == (
        ChunkOutcome.DEAD_LETTERED,
        ChunkRejectionReason.DEAD_LETTERED,
    )
    assert plan.markers[0].payload["message"] == "avro_invalid"


# --- concepts


def test_a_concept_is_one_point_for_its_project_whatever_document_names_it():
    others = replace(PAPER, name="voyage").at(9)
    plans = [plan_upserts([arrival(one, CONCEPT)], Known()) for one in (PAPER, others)]
    ((_, here),), ((_, there),) = (plan.points for plan in plans)
    assert here == there
    assert here.id == ids.concept_id(PROJECT, "Finch")
    assert (here.order, set(here.payload)) == (None, {"project_id", "kind", "text", "content_hash"})
    markers = [plan.markers[0] for plan in plans]
    assert markers[0].id != markers[1].id
    assert {one.payload["concept_id"] for one in markers} == {str(here.id)}


def test_a_concept_that_is_there_is_not_written_again_and_still_settles():
    first = plan_upserts([arrival(PAPER, CONCEPT)], Known())
    hash_ = first.points[0][1].payload["content_hash"]
    there = Known(hashes={(SPACE, ids.concept_id(PROJECT, "Finch")): hash_})
    plan = plan_upserts([arrival(replace(PAPER, name="voyage"), CONCEPT)], there)
    assert plan.points == ()
    assert outcomes(plan) == [ChunkOutcome.STORED]
    assert plan.settled[0].chunk.content_hash.hex() == hash_


@pytest.mark.parametrize(("attempt", "is_written"), [(1, False), (2, True)])
def test_a_concept_that_is_paid_again_keeps_its_vector_and_a_resume_may_repair_it(
    attempt: int, is_written: bool
):
    hash_ = plan_upserts([arrival(PAPER, CONCEPT)], Known()).settled[0].chunk.content_hash
    other = arrival(replace(PAPER, name="voyage").at(9, attempt=attempt), CONCEPT)
    assert other.embedded is not None
    other = replace(other, embedded=replace(other.embedded, vector=vector_of("another mood")))
    plan = plan_upserts([other], Known(hashes={other.place: hash_.hex()}))
    assert len(plan.points) == is_written
    assert (plan.settled[0].chunk.content_hash == hash_) is not is_written
    again = plan_upserts(
        [other, arrival(replace(PAPER, name="voyage").at(9, attempt=attempt), CONCEPT)], Known()
    )
    assert len(again.points) == 1
    assert len({one.chunk.content_hash for one in again.settled}) == 1, "the repeat says what stands"


def test_a_shared_point_is_never_taken_back():
    found = known(PAPER.at(5), marks={BIB: 9}, markers=(CONCEPT,))
    plan = plan_upserts([arrival(PAPER.at(5), CONCEPT)], found)
    assert plan.deletes == ()
    assert [one[0] for one in plan.marker_deletes] == [core.marker_id(PAPER.chunk_id(CONCEPT), SPACE)]


@pytest.mark.parametrize("is_same_batch", [True, False])
def test_a_dead_letter_of_a_newer_revision_leaves_an_older_one_s_concept_alone(is_same_batch: bool):
    """As with vectors: only the sweep of a revision that has something better takes it away."""
    old, lost = (
        arrival(PAPER.at(5), CONCEPT),
        core.arrival_of_dead_letter(PAPER.at(6).rejected(CONCEPT), 7, 3, "x"),
    )
    if is_same_batch:
        plan = plan_upserts([old, lost], Known())
        assert [one.payload["kind"] for one in plan.markers] == [core.CONCEPT_CHUNK_KIND]
    else:
        found = known(PAPER.at(5), markers=(CONCEPT,))
        plan = plan_upserts([lost], replace(found, concepts=frozenset(found.markers)))
        assert plan.markers == ()
    assert outcomes(plan)[-1] is ChunkOutcome.DEAD_LETTERED


def test_a_dead_letter_of_a_later_attempt_takes_its_concept_away():
    lost = dead_letter(PAPER.at(5, attempt=2), CONCEPT)
    plan = plan_upserts([arrival(PAPER.at(5), CONCEPT), lost], Known())
    assert [one.payload["kind"] for one in plan.markers] == [core.REJECTED_KIND]
    assert outcomes(plan) == [ChunkOutcome.STORED, ChunkOutcome.DEAD_LETTERED]


@pytest.mark.parametrize("index", [ONE, CONCEPT])
@pytest.mark.parametrize("late", [rejection, dead_letter])
def test_what_is_stored_stays_whatever_comes_behind_it_in_its_attempt(
    index: int, late: Callable[[Content, int], Arrival]
):
    """A completion may have counted it; a repeat that cannot be read says nothing of it, nor does a former owner."""
    content = PAPER.at(5)
    chunk = known(content, index)
    concept = known(content, markers=(index,))
    there = replace(concept, concepts=frozenset(concept.markers)) if index == CONCEPT else chunk
    for arrivals, found in (
        ([arrival(content, index), late(content, index)], Known()),
        ([late(content, index)], there),
    ):
        plan = plan_upserts(arrivals, found)
        assert plan.deletes == ()
        assert core.REJECTED_KIND not in [one.payload["kind"] for one in plan.markers]
        assert set(outcomes(plan)) <= {ChunkOutcome.STORED}, "and that is said once"


def test_settlements_of_an_earlier_attempt_are_said_first():
    """The first settlement of a chunk counts its bill, the last one its outcome, whatever stood between them."""
    late, early = (arrival(PAPER.at(1, attempt=one), ONE, offset=one) for one in (2, 1))
    plan = plan_upserts([late, early], Known())
    said = core.plan_settlements(plan.settled, store_id=ids.StoreId(UUID(int=1)), at=NOW)
    assert [one.attempt for one in said] == [1, 2]


# --- hashes and words


def test_the_hash_is_the_same_whatever_import_brought_the_point():
    payloads = [core.chunk_payload(PAPER.at(r, attempt=a).embedded(ONE)) for r, a in ((1, 1), (9, 3))]
    assert payloads[0]["content_hash"] == payloads[1]["content_hash"]
    assert core.content_hash(vector_of("one"), payloads[0]) == payloads[0]["content_hash"]
    assert core.content_hash(vector_of("two"), payloads[0]) != payloads[0]["content_hash"]
    assert core.content_hash(vector_of("one"), payloads[0] | {"text": "x"}) != payloads[0]["content_hash"]


def test_a_title_is_found_by_its_creators_and_its_year_and_a_passage_by_its_text_alone():
    title = core.keyword_text(core.chunk_payload(PAPER.embedded(TITLE, doi="10.1000/182")))
    assert title == "On the Origin Darwin, Charles 1859 10.1000/182"
    assert core.keyword_text(core.chunk_payload(PAPER.embedded(ONE))) == "one"


def test_an_excerpt_has_a_limit():
    payload = core.chunk_payload(PAPER.embedded(ONE, text="x" * 10_000))
    assert len(payload["text"]) == core.TEXT_LENGTH_MAX


# --- settlements


def test_settlements_are_one_record_for_an_import_attempt_and_space_up_to_a_limit():
    first, second = PAPER.at(1), PAPER.at(2)
    plan = plan_upserts([arrival(one, ONE, offset=n) for n in range(130) for one in (first, second)], Known())
    said = core.plan_settlements(plan.settled, store_id=ids.StoreId(UUID(int=1)), at=NOW)
    assert [(one.import_id, len(one.chunks)) for one in said] == [
        (first.head["import_id"], 100),
        (first.head["import_id"], 30),
        (second.head["import_id"], 100),
        (second.head["import_id"], 30),
    ]
    assert [chunk.offset for one in said[:2] for chunk in one.chunks] == list(range(130))
    assert core.plan_settlements([], store_id=ids.StoreId(UUID(int=1)), at=NOW) == []


# --- marks and sweeps


def test_a_mark_never_goes_down_and_each_part_has_its_own():
    low, high = Mark(revision=4, parsed_offset=5), Mark(revision=6, parsed_offset=9)
    marks, taken = core.raise_marks({}, [BIB, TEXT], low)
    assert (marks, taken) == ({BIB: low, TEXT: low}, [BIB, TEXT])
    marks, taken = core.raise_marks(marks, [BIB], high)
    assert (marks, taken) == ({BIB: high, TEXT: low}, [BIB])
    assert core.raise_marks(marks, [BIB, TEXT], low) == ({BIB: high, TEXT: low}, [TEXT])
    again = Mark(revision=6, parsed_offset=8)
    assert core.raise_marks(marks, [BIB], again) == (marks, []), "of two of one revision the later counts"


def test_marks_come_back_from_a_payload_as_they_were_put_there():
    marks = {BIB: Mark(revision=4, parsed_offset=5), TEXT: Mark(revision=2**52, parsed_offset=7)}
    payload = core.write_marks({"label": "x"}, marks)
    assert core.read_marks(json.loads(json.dumps(payload))) == marks
    assert core.read_marks({}) == {}


def test_a_sweep_takes_what_is_older_and_what_its_own_revision_does_not_list():
    def held(number: int, revision: int, part: str = "full_text") -> Held:
        return Held(id=UUID(int=number), part=part, revision=revision, name=UUID(int=number + 100))

    there = [held(1, 4), held(2, 5), held(3, 5), held(4, 6), held(5, 4, "bibliographic")]
    gone = core.plan_sweep(there, part=TEXT, revision=5, kept={UUID(int=102), UUID(int=101)})
    assert gone == [UUID(int=1), UUID(int=3)]


# --- positions


def test_the_collection_furthest_behind_counts_and_none_goes_back():
    far, near = ReadTo(offset=9, record_offset=8, record_id="i"), ReadTo(offset=3, record_offset=2)
    assert core.lowest([far, near]) == near
    assert core.lowest([]) == core.NOTHING_READ
    assert core.advanced(near, far) == far
    assert core.advanced(far, near) is far
    assert core.advanced(far, far) is far


@pytest.mark.parametrize(("flush_s", "expected"), [(0.0, 1.0), (0.2, 1.0), (0.5, 2.0), (60.0, 5.0)])
def test_a_store_that_takes_long_to_flush_is_flushed_less_often(flush_s: float, expected: float):
    assert core.cycle_s(flush_s) == expected
