"""What the fold of `imports` makes of documents and chunks: every rule of completion in one sentence each."""

import itertools
import random
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.ingest.story import (
    BIB,
    IMPORT,
    NOW,
    OTHER,
    PROJECT,
    SOURCE,
    SPACE,
    STORE,
    TEXT,
    Told,
    at_attempt,
    chunk,
    chunks_said,
    created,
    document_settled,
    head,
    opened,
    parsed,
    rejected,
    requested,
    sealed,
    settled,
)

from eventlog.events import (
    Attachment,
    AttachmentStatus,
    ChunkOutcome,
    ImportCancelled,
    ImportCompleted,
    ImportRefused,
    ImportResumed,
    Message,
    RefusalReason,
    Remark,
    RequestImport,
)
from eventlog.ids import ImportId, StoreId, import_id_of_key
from eventlog.topics import EMBEDDINGS
from ingest.projection import Projection, Requested
from ingest.state import State
from ingest.tables import is_current

NEW_STORE = StoreId(PROJECT)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path)
    yield told.tell(created(), requested())
    told.projection.close()


def ready(told: Told) -> list[str]:
    return [str(tally.document_id) for tally in told.projection.documents_to_settle(10)]


def warned(told: Told, import_id: ImportId = IMPORT) -> list[tuple[str, str | None]]:
    """The codes and titles, as many as the status says there are."""
    rows = told.projection.warnings(import_id, after=0, limit=100)
    status = told.projection.status(import_id)
    assert status is not None
    assert len(rows) == status.warnings
    return [(row.code, row.title) for row in rows]


def is_complete(told: Told) -> bool:
    return [one.import_id for one in told.projection.complete_imports()] == [IMPORT]


def test_a_request_is_parsing_at_once_and_its_revision_is_its_offset(told: Told) -> None:
    found = told.projection.find(IMPORT)
    assert found is not None
    assert (found.state, found.revision, told.status.state) == (State.PARSING, 1, State.PARSING)


def test_a_document_is_ready_when_every_listed_chunk_has_an_outcome(told: Told) -> None:
    told.tell(parsed(bib=("t",), text=("p1", "p2")), settled("t", "p1"))
    assert ready(told) == []
    told.tell(settled("p2", offset=2))
    assert len(ready(told)) == 1


def test_settlements_may_come_before_the_list(told: Told) -> None:
    told.tell(settled("t", "p1"))
    assert told.status.chunks.total == 0
    told.tell(parsed(bib=("t",), text=("p1",)))
    assert len(ready(told)) == 1
    assert (told.status.chunks.total, told.status.chunks.stored, told.status.tokens_billed) == (2, 2, 14)


def test_an_empty_list_is_settled(told: Told) -> None:
    told.tell(parsed())
    assert len(ready(told)) == 1


def test_a_chunk_that_no_list_names_is_not_counted(told: Told) -> None:
    told.tell(parsed(bib=("t",)), settled("t", "stranger"))
    assert (told.status.chunks.total, told.status.chunks.stored) == (1, 1)


def test_a_repeated_settlement_counts_once_and_keeps_the_first_bill(told: Told) -> None:
    told.tell(parsed(bib=("t",)), settled("t", tokens=9), settled("t", offset=5, tokens=0, is_reused=True))
    assert (told.status.chunks.stored, told.status.chunks.reused, told.status.tokens_billed) == (1, 0, 9)


def completed_story(*, first: int = 2) -> list[Message]:
    return [
        parsed(bib=("t",), text=("p",)),
        settled("t", "p"),
        sealed(1, 2),
        chunks_said(parsed_offset=first),
        document_settled(offset=first + 3),
    ]


def test_an_import_is_complete_when_sealed_and_every_document_is_settled(told: Told) -> None:
    for event in completed_story():
        assert not is_complete(told)
        told.tell(event)
    assert is_complete(told)


def test_completion_waits_for_the_seal(told: Told) -> None:
    told.tell(*(event for event in completed_story() if type(event).__name__ != "ImportSealed"))
    assert not is_complete(told)


def test_a_settled_document_answers_only_the_newest_saying(told: Told) -> None:
    told.tell(parsed(bib=("t",)), settled("t"), sealed(1, 1), chunks_said(parsed_offset=2))
    told.tell(document_settled(offset=99))
    assert not is_complete(told)
    told.tell(document_settled(offset=5))
    assert is_complete(told)


@pytest.mark.parametrize("is_known_to_the_leader", [True, False])
@pytest.mark.parametrize("failed", [ChunkOutcome.DEAD_LETTERED, ChunkOutcome.REJECTED])
def test_a_failed_chunk_that_is_stored_after_all_says_its_document_again(
    told: Told, failed: ChunkOutcome, is_known_to_the_leader: bool
) -> None:
    """Its part may replace now what is older, and nobody else would ever say so."""
    told.tell(parsed(bib=("t",), text=("p",)), settled("t"), settled("p", outcome=failed, offset=1))
    counts = {"stored_count": 1, f"{failed.value}_count": 1}
    said = chunks_said(parsed_offset=2, parts=(BIB,), **counts)
    repeat = settled("p", offset=5)
    if is_known_to_the_leader:
        told.tell(said, document_settled(offset=5), repeat)
    else:
        told.tell(repeat, said)
    told.tell(sealed(1, 2))
    assert len(ready(told)) == 1
    assert not is_complete(told)
    offset = len(told.log)
    told.tell(chunks_said(parsed_offset=2, stored_count=2), document_settled(offset=offset))
    assert ready(told) == []
    assert is_complete(told)


def test_a_document_is_said_once_where_what_failed_stays_failed(told: Told) -> None:
    told.tell(parsed(bib=("t",), text=("p",)), settled("t"))
    told.tell(settled("p", outcome=ChunkOutcome.REJECTED, offset=1), settled("t", offset=9))
    told.tell(chunks_said(parsed_offset=2, parts=(BIB,), stored_count=1, rejected_count=1))
    told.tell(settled("p", outcome=ChunkOutcome.REJECTED, offset=10))
    assert ready(told) == []


def test_a_store_that_lost_records_takes_their_settlements_back(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 1)))
    assert not is_complete(told)
    assert (told.status.chunks.stored, told.status.chunks.total) == (1, 2)
    told.tell(settled("p", offset=1))
    assert is_complete(told)


def test_a_store_that_opens_behind_a_settlement_leaves_it_alone(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 2), ("imports", 0, 6)))
    assert is_complete(told)


def test_a_store_that_lost_its_graph_settles_documents_again(told: Told) -> None:
    told.tell(*completed_story(), opened(("imports", 0, 5)))
    assert not is_complete(told)
    told.tell(document_settled(offset=5))
    assert is_complete(told)


def test_a_newer_copy_of_a_store_brings_back_what_an_older_one_had_lost(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 0), ("imports", 0, 0)))
    assert not is_complete(told)
    assert told.status.chunks.stored == 0
    told.tell(opened(("embeddings", 0, 1), ("imports", 0, 6)))
    assert not is_complete(told)
    assert told.status.chunks.stored == 1
    told.tell(opened(("embeddings", 0, 2), ("imports", 0, 6)))
    assert is_complete(told)
    assert told.status.chunks.stored == 2


def test_a_store_that_opens_again_as_it_was_brings_back_no_document(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 2), ("imports", 0, 5)))
    assert not is_complete(told)
    told.tell(replace(opened(("embeddings", 0, 2), ("imports", 0, 5)), occurred_at=NOW + timedelta(hours=1)))
    assert not is_complete(told), "its graph is to be said again"


def test_what_is_settled_anew_is_not_brought_back(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 0)))
    told.tell(settled("p", offset=1, outcome=ChunkOutcome.REJECTED), opened(("embeddings", 0, 2)))
    assert (told.status.chunks.stored, told.status.chunks.rejected) == (1, 1)


def test_what_is_replaced_meanwhile_is_not_brought_back(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 0)), requested(OTHER))
    told.tell(parsed(bib=("t",), text=("q",), revision=9, import_id=OTHER))
    told.tell(chunks_said(parsed_offset=10, revision=9, import_id=OTHER), opened(("embeddings", 0, 2)))
    assert told.status.chunks.stored == 0


def test_what_is_driven_again_meanwhile_is_not_brought_back(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 0)), parsed(bib=("t",), text=("p",), attempt=2))
    told.tell(opened(("embeddings", 0, 2)))
    assert told.status.chunks.stored == 0


def test_a_graph_that_is_settled_anew_counts_once(told: Told) -> None:
    told.tell(*completed_story(), opened(("imports", 0, 5)), document_settled(offset=5))
    told.tell(opened(("embeddings", 0, 2), ("imports", 0, 6)))
    assert told.status.documents.stored == 1


def test_a_graph_that_is_said_anew_is_not_brought_back(told: Told) -> None:
    told.tell(*completed_story(), opened(("imports", 0, 5)), chunks_said(parsed_offset=2))
    told.tell(opened(("embeddings", 0, 2), ("imports", 0, 99)))
    assert told.status.documents.stored == 0


def test_a_resume_asks_for_a_graph_that_was_lost_whatever_copy_opens_later(told: Told) -> None:
    told.tell(*completed_story(), completed(), opened(("imports", 0, 0)))
    told.tell(ImportResumed(**head(attempt=2)), opened(("imports", 0, 6)))
    assert told.status.documents.stored == 0


def test_a_resume_asks_for_what_was_lost_whatever_copy_opens_later(told: Told) -> None:
    told.tell(*completed_story(), completed(), opened(("embeddings", 0, 0), ("imports", 0, 0)))
    told.tell(ImportResumed(**head(attempt=2)), opened(("embeddings", 0, 2), ("imports", 0, 6)))
    assert told.status.chunks.stored == 0


@pytest.mark.parametrize("late", [ChunkOutcome.STORED, ChunkOutcome.SUPERSEDED])
def test_of_two_attempts_the_later_one_s_settlement_counts_in_any_order(
    told: Told, late: ChunkOutcome
) -> None:
    told.tell(
        parsed(text=("p", "q")),
        settled("p", attempt=2, offset=1, outcome=ChunkOutcome.REJECTED, tokens=0),
        settled("p", attempt=1, offset=0, outcome=late),
    )
    assert (told.status.chunks.stored, told.status.chunks.rejected, told.status.chunks.superseded) == (
        0,
        1,
        0,
    )


@pytest.mark.parametrize("outcome", [ChunkOutcome.STORED, ChunkOutcome.REJECTED])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_document_that_is_driven_again_is_settled_by_that_attempt(
    told: Told, outcome: ChunkOutcome, is_late: bool
) -> None:
    """What an earlier one says comes late where the writer was away, and may be taken away by what this one says."""
    again = (ImportCancelled(**head()), ImportResumed(**head(attempt=2)), parsed(text=("p", "q"), attempt=2))
    early = settled("p", outcome=outcome, tokens=3)
    told.tell(
        parsed(text=("p", "q")),
        *((*again, early) if is_late else (early, *again)),
        settled("q", offset=1, attempt=2),
    )
    assert ready(told) == []
    assert told.status.tokens_billed == 3 + 7
    told.tell(settled("p", offset=2, attempt=2))
    assert len(ready(told)) == 1
    assert told.status.chunks.stored == 2


def test_of_two_positions_of_a_partition_the_lower_one_counts(told: Told) -> None:
    told.tell(*completed_story(), opened(("embeddings", 0, 9), ("embeddings", 0, 0)))
    assert told.status.chunks.stored == 0


def test_an_older_revision_is_superseded_by_a_newer_one_that_settled(told: Told) -> None:
    told.tell(
        parsed(text=("old",)),
        requested(OTHER),
        parsed(text=("new",), revision=3, import_id=OTHER),
        settled("new", import_id=OTHER),
        chunks_said(parsed_offset=4, revision=3, import_id=OTHER),
    )
    assert told.status.chunks.superseded == 1
    assert len(ready(told)) == 1


def test_a_list_that_comes_after_a_newer_mark_is_superseded_at_once(told: Told) -> None:
    told.tell(
        requested(OTHER),
        parsed(text=("new",), revision=3, import_id=OTHER),
        settled("new", import_id=OTHER),
        chunks_said(parsed_offset=3, revision=3, import_id=OTHER, parts=(TEXT,)),
        parsed(bib=("t",), text=("old",)),
    )
    assert (told.status.chunks.superseded, told.status.chunks.total) == (1, 2)


def test_a_mark_of_one_part_leaves_the_other_part_open(told: Told) -> None:
    told.tell(
        parsed(bib=("t",), text=("p",)),
        requested(OTHER),
        parsed(bib=("t2",), revision=3, import_id=OTHER),
        settled("t2", import_id=OTHER),
        chunks_said(parsed_offset=4, revision=3, import_id=OTHER, parts=(BIB,)),
    )
    assert (told.status.chunks.superseded, told.status.chunks.total) == (1, 2)
    assert ready(told) == []


def test_a_cancel_is_a_fact_and_a_resume_drives_what_is_missing(told: Told) -> None:
    told.tell(parsed("a", bib=("t",)), settled("t"), parsed("b", bib=("u",)), ImportCancelled(**head()))
    assert told.status.state is State.CANCELLED
    told.tell(ImportResumed(**head(attempt=2)))
    found = told.projection.find(IMPORT)
    assert found is not None
    assert (found.state, found.attempt) == (State.PARSING, 2)
    by_title = {row.title: row.document_id for row in told.projection.documents(IMPORT, after=0, limit=9)}
    assert told.projection.is_driven(found, by_title["Paper a"])
    assert not told.projection.is_driven(found, by_title["Paper b"])


def test_a_resume_reads_again_a_settled_document_whose_file_was_rejected(told: Told) -> None:
    refused = Attachment(path="b.pdf", status=AttachmentStatus.REJECTED)
    told.tell(replace(parsed("a", bib=("t",)), attachments=(refused,)), rejected("b.pdf"), settled("t"))
    told.tell(parsed("b", bib=("u",)), settled("u", document_name="b"))
    told.tell(ImportCancelled(**head()), ImportResumed(**head(attempt=2)))
    found = told.projection.find(IMPORT)
    assert found is not None
    by_title = {row.title: row.document_id for row in told.projection.documents(IMPORT, after=0, limit=9)}
    assert not told.projection.is_driven(found, by_title["Paper a"]), "nobody else says the rejection again"
    assert told.projection.is_driven(found, by_title["Paper b"])


def test_a_resume_of_a_rejected_chunk_opens_it_again(told: Told) -> None:
    told.tell(parsed(bib=("t",)), settled("t", outcome=ChunkOutcome.REJECTED), rejected())
    assert (told.status.chunks.rejected, told.status.documents.rejected) == (1, 1)
    told.tell(ImportCancelled(**head()), ImportResumed(**head(attempt=2)))
    assert (told.status.chunks.rejected, told.status.documents.rejected, told.status.chunks.total) == (
        0,
        0,
        1,
    )


def completed(attempt: int = 1) -> ImportCompleted:
    return ImportCompleted(
        **head(attempt=attempt),
        revision=1,
        store_id=STORE,
        digest="d",
        document_count=1,
        chunk_count=2,
        stored_count=2,
    )


def test_a_resume_of_a_completed_import_asks_the_store_for_everything_again(told: Told) -> None:
    told.tell(*completed_story(), completed())
    assert (told.status.state, told.status.progress) == (State.COMPLETED, 1.0)
    told.tell(ImportResumed(**head(attempt=2)))
    assert told.status.chunks.stored == 0
    assert not is_complete(told)
    told.tell(
        parsed(bib=("t",), text=("p",), attempt=2),
        settled("t", "p", attempt=2, offset=7, tokens=0, is_reused=True),
        sealed(1, 2, attempt=2),
        at_attempt(chunks_said(parsed_offset=9), 2),
        at_attempt(document_settled(offset=12), 2),
    )
    assert is_complete(told)
    assert (told.status.chunks.stored, told.status.chunks.superseded) == (2, 0), (
        "its own mark replaces nothing"
    )
    assert told.status.tokens_billed == 14


def test_a_finished_import_keeps_what_it_completed_with(told: Told) -> None:
    told.tell(*completed_story(), completed(), opened(("embeddings", 0, 0)))
    assert (told.status.chunks.stored, told.status.state) == (2, State.COMPLETED)


def test_facts_of_an_old_attempt_do_not_seal_the_new_one(told: Told) -> None:
    told.tell(ImportCancelled(**head()), ImportResumed(**head(attempt=2)), sealed(0, 0))
    assert not is_complete(told)
    assert told.status.state is State.PARSING


def test_the_digest_is_a_sum_over_distinct_points_whatever_the_order(tmp_path: Path) -> None:
    digests = set()
    for number, order in enumerate(itertools.permutations(("a", "b", "c"))):
        told = Told(tmp_path / str(number)).tell(created(), requested(), parsed(bib=("a", "b", "c")))
        for offset, name in enumerate(order):
            told.tell(settled(name, offset=offset))
        digests.add(told.projection.totals(IMPORT)[2])
        told.projection.close()
    assert len(digests) == 1
    assert digests != {"0" * 64}


def test_progress_never_falls(told: Told) -> None:
    seen = [told.status.progress]
    told.tell(parsed("a", bib=("t",)), settled("t"))
    seen.append(told.status.progress)
    told.tell(parsed("b", bib=tuple(f"c{n}" for n in range(50))))
    seen.append(told.status.progress)
    assert seen == sorted(seen)
    assert seen[-1] < 1


def test_a_rejection_said_twice_counts_once(told: Told) -> None:
    told.tell(rejected(), rejected())
    assert told.status.documents.rejected == 1
    assert len(told.projection.rejections(IMPORT, after=0, limit=9)) == 1


def everything_counted(told: Told) -> None:
    """The running counters equal a count of the rows: the one thing that incremental sums get wrong."""
    read = told.projection._read
    rows = read.execute(
        "SELECT i.total, i.stored, i.rejected, i.dead_lettered, i.superseded, i.tokens, count(c.chunk_id), "
        "sum(c.outcome = 0), sum(c.outcome = 1), sum(c.outcome = 2), sum(c.outcome = 3), sum(c.tokens) FROM imports i "
        "LEFT JOIN documents d ON d.import_no = i.number LEFT JOIN chunks c ON c.document_no = d.number AND c.listed "
        "GROUP BY i.number"
    ).fetchall()
    for row in rows:
        *sums, tokens = row[:6]
        *counted, billed = (value or 0 for value in row[6:])
        assert sums == counted
        assert tokens >= billed  # what a newer list names no more was paid all the same
    for number, unlisted, listed, settled_count in read.execute(
        "SELECT number, unlisted, parsed, settled FROM imports"
    ).fetchall():
        assert (unlisted,) == read.execute(
            "SELECT count(*) FROM chunks c JOIN documents d ON d.number = c.document_no "
            "WHERE d.import_no = ? AND NOT c.listed", (number,)
        ).fetchone()  # fmt: skip
        assert (listed, settled_count) == read.execute(
            "SELECT count(parsed_offset), coalesce(sum(settled), 0) FROM documents WHERE import_no = ?",
            (number,),
        ).fetchone()
    for open_count, counted in read.execute(
        "SELECT d.open, (SELECT count(*) FROM chunks c WHERE c.document_no = d.number AND c.listed "
        "AND c.outcome IS NULL) FROM documents d"
    ):
        assert open_count == counted


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_order_of_facts_the_counters_equal_the_rows(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    told = Told(tmp_path).tell(created(), requested(), requested(OTHER))
    names = ["p1", "p2", "p3"]
    again = Told(tmp_path / "again").tell(created(), requested(), requested(OTHER))
    batch: list[Message] = []
    for _ in range(60):
        import_id = chance.choice((IMPORT, OTHER))
        revision = 1 if import_id is IMPORT else 2
        attempt = chance.choice((1, 1, 2))
        event: Message = chance.choice(
            (
                parsed(
                    bib=("t",),
                    text=tuple(chance.sample(names, 2)),
                    revision=revision,
                    import_id=import_id,
                    attempt=attempt,
                ),
                settled(
                    *chance.sample([*names, "t"], 2),
                    outcome=chance.choice(tuple(ChunkOutcome)[1:]),
                    offset=chance.randrange(9),
                    import_id=import_id,
                    attempt=attempt,
                ),
                opened(("embeddings", 0, chance.randrange(9)), ("imports", 0, chance.randrange(40))),
                document_settled(offset=chance.randrange(20), import_id=import_id),
                chunks_said(
                    parsed_offset=chance.randrange(20),
                    revision=revision,
                    import_id=import_id,
                    stored_count=chance.randrange(3),
                    rejected_count=chance.randrange(2),
                ),
                ImportResumed(**head(import_id, attempt=2)),
                sealed(import_id=import_id, attempt=2),
            )
        )
        told.tell(event)
        everything_counted(told)
        batch.append(event)
        if chance.random() < 0.4:
            again.tell(*batch)
            batch.clear()
            everything_counted(again)
    again.tell(*batch)
    for one in (IMPORT, OTHER):
        assert told.projection.status(one) == again.projection.status(one), "however they fall into batches"
    again.projection.close()
    told.projection.close()


def test_a_folded_log_gives_the_same_rows_in_one_batch_as_in_many(tmp_path: Path) -> None:
    one = Told(tmp_path / "one").tell(created(), requested(), *completed_story())
    many = Told(tmp_path / "many").tell(created()).tell(requested())
    for event in completed_story():
        many.tell(event)
    assert one.status.to_json() == many.status.to_json()
    one.projection.close()
    many.projection.close()


def test_chunks_of_a_document_come_in_their_order(told: Told) -> None:
    told.tell(parsed(bib=("t",), text=("p2", "p1")), settled("p1", "t"))
    document = told.projection.documents(IMPORT, after=0, limit=1)[0]
    rows = told.projection.chunks_of(IMPORT, document.document_id)
    assert [row.chunk_id for row in rows] == [chunk("t"), chunk("p2"), chunk("p1")]
    assert [row.outcome for row in rows] == [ChunkOutcome.STORED, None, ChunkOutcome.STORED]


def asked(command: RequestImport, command_id: str) -> Requested:
    assert command.import_id is not None
    return Requested(import_id=command.import_id, command_id=command_id, command=command, space=SPACE)


def test_a_refused_request_may_be_sent_again(told: Told) -> None:
    third = import_id_of_key("anonymous", "three")
    command = RequestImport(occurred_at=NOW, source=SOURCE, import_id=third, project_name="Reading")
    told.projection.apply_requests([asked(command, "c")], 1)
    told.tell(
        ImportRefused(occurred_at=NOW, import_id=third, command_id="c", reason=RefusalReason.FILES_MISSING)
    )
    status = told.projection.status(third)
    assert status is not None
    assert status.state is State.FAILED
    assert told.projection.find(third) is None
    told.tell(requested(third))
    found = told.projection.find(third)
    assert found is not None
    assert (found.state, found.revision) == (State.PARSING, 3)


# --- the rules that keep completion true -------------------------------------------------------------------------


def test_a_settlement_in_another_space_is_not_counted(told: Told) -> None:
    told.tell(parsed(bib=("t",)), replace(settled("t"), space="openai/text-embedding-3-small@1536:1"))
    assert told.status.chunks.stored == 0
    assert ready(told) == []


def test_what_was_stored_is_superseded_when_a_newer_revision_takes_its_place(told: Told) -> None:
    """The writer sweeps it then: an import that still counted it as stored would complete with a lie."""
    told.tell(
        parsed(text=("old",)),
        settled("old"),
        requested(OTHER),
        parsed(text=("new",), revision=4, import_id=OTHER),
        settled("new", import_id=OTHER),
        chunks_said(parsed_offset=5, revision=4, import_id=OTHER),
    )
    assert (told.status.chunks.stored, told.status.chunks.superseded) == (0, 1)
    assert told.projection.totals(IMPORT)[2] == "0" * 64


def test_a_settlement_that_comes_after_the_newer_revision_changes_nothing_but_the_bill(told: Told) -> None:
    told.tell(
        parsed(text=("old",)),
        requested(OTHER),
        parsed(text=("new",), revision=3, import_id=OTHER),
        settled("new", import_id=OTHER),
        chunks_said(parsed_offset=4, revision=3, import_id=OTHER),
        settled("old", tokens=5),
        opened(("embeddings", 0, 0)),
    )
    assert (told.status.chunks.stored, told.status.chunks.superseded, told.status.tokens_billed) == (0, 1, 5)


def test_a_mark_of_the_same_revision_supersedes_nothing(told: Told) -> None:
    told.tell(parsed(text=("p", "q")), settled("p"), chunks_said(parsed_offset=99))
    assert (told.status.chunks.stored, told.status.chunks.superseded) == (1, 0)


def test_what_another_store_settled_is_forgotten_whatever_its_place(told: Told) -> None:
    told.tell(opened(), *completed_story(first=3), replace(opened(("embeddings", 7, 0)), store_id=NEW_STORE))
    assert told.status.chunks.stored == 0
    assert not is_complete(told)


def test_a_store_that_is_said_again_to_be_open_takes_nothing_back(told: Told) -> None:
    """What was settled since stands: who says it again, byte for byte, has not gone back."""
    first, other = opened(), replace(opened(("embeddings", 0, 0)), store_id=NEW_STORE)
    told.tell(first, other, opened(("embeddings", 0, 0)), *completed_story(first=5))
    assert is_complete(told)
    told.tell(other, first, opened(("embeddings", 0, 0)))
    assert is_complete(told)
    told.tell(replace(opened(("embeddings", 0, 0)), occurred_at=NOW + timedelta(seconds=1)))
    assert not is_complete(told), "this one has gone back"


def test_a_resume_that_is_said_again_begins_no_attempt(told: Told) -> None:
    told.tell(ImportCancelled(**head()), ImportResumed(**head(attempt=2)), sealed(0, 0, attempt=2))
    told.tell(completed(2), ImportResumed(**head(attempt=2)))
    assert (told.status.state, told.status.progress) == (State.COMPLETED, 1.0)


def test_the_seal_of_an_old_attempt_drops_nothing_of_the_new_one(told: Told) -> None:
    told.tell(parsed(bib=("t",)), sealed(), ImportCancelled(**head()), ImportResumed(**head(attempt=2)))
    told.tell(sealed())
    assert (told.status.documents.parsed, told.status.chunks.total) == (1, 1)


def test_a_late_settlement_of_the_former_store_is_not_counted(told: Told) -> None:
    told.tell(opened(("embeddings", 0, 0)), parsed(bib=("t",)))
    told.tell(replace(opened(("embeddings", 0, 0)), store_id=NEW_STORE), settled("t"))
    assert told.status.chunks.stored == 0
    told.tell(replace(settled("t"), store_id=NEW_STORE))
    assert told.status.chunks.stored == 1


def test_a_newer_list_of_a_document_replaces_the_older_one(told: Told) -> None:
    """A resume after an upgrade of the chunker: what is not listed any more is waited for no more."""
    told.tell(parsed(text=("p1", "p2")), settled("p1", tokens=3), ImportCancelled(**head()))
    told.tell(
        ImportResumed(**head(attempt=2)), parsed(text=("q",), attempt=2), settled("q", offset=5, attempt=2)
    )
    assert (told.status.chunks.total, told.status.chunks.stored, told.status.documents.parsed) == (1, 1, 1)
    assert told.status.tokens_billed == 3 + 7
    assert len(ready(told)) == 1


def test_a_document_that_a_resume_does_not_find_again_is_waited_for_no_more(told: Told) -> None:
    """A parser that was upgraded since may know it under another id."""
    told.tell(
        parsed("a", text=("p1", "p2")), settled("p1"), parsed("b", bib=("t",)), ImportCancelled(**head())
    )
    told.tell(
        settled("t", document_name="b"), ImportResumed(**head(attempt=2)), parsed("c", bib=("t",), attempt=2)
    )
    state = told.projection.find(IMPORT)
    assert state is not None
    assert told.projection.counts_to_seal(state) == (2, 2)
    told.tell(sealed(2, 2, attempt=2))
    assert (told.status.documents.parsed, told.status.chunks.total, told.status.chunks.stored) == (2, 2, 1)
    titles = [row.title for row in told.projection.documents(IMPORT, after=0, limit=9)]
    assert titles == ["Paper b", "Paper c"]
    everything_counted(told)


def test_a_document_that_a_store_loses_during_a_resume_is_waited_for(told: Told) -> None:
    """It was settled when the attempt passed it by, so nobody lists it again; its chunks come again from the log."""
    told.tell(parsed(bib=("x",)), settled("x"), ImportCancelled(**head()), ImportResumed(**head(attempt=2)))
    state = told.projection.find(IMPORT)
    assert state is not None
    assert told.projection.is_driven(state, parsed().document_id)
    told.tell(opened((EMBEDDINGS, 0, 0)))
    assert told.projection.is_driven(state, parsed().document_id)
    assert told.projection.counts_to_seal(state) == (1, 1)
    told.tell(sealed(attempt=2))
    assert told.status.chunks.total == 1
    assert not is_complete(told)


def test_an_import_of_nothing_completes_with_its_seal(told: Told) -> None:
    told.tell(sealed(0, 0))
    assert is_complete(told)


def test_a_resume_of_a_completed_import_drives_a_document_without_chunks_too(told: Told) -> None:
    told.tell(parsed(), sealed(1, 0), chunks_said(parsed_offset=2), document_settled(offset=4), completed())
    document = told.projection.documents(IMPORT, after=0, limit=1)[0].document_id
    found = told.tell(ImportResumed(**head(attempt=2))).projection.find(IMPORT)
    assert found is not None
    assert not told.projection.is_driven(found, document)
    assert told.status.documents.stored == 0


def test_a_resumed_import_shows_no_progress_of_the_completed_one(told: Told) -> None:
    told.tell(*completed_story(), completed(), ImportResumed(**head(attempt=2)))
    assert told.status.progress < 1


def test_a_terminal_fact_ends_an_import_once(told: Told) -> None:
    told.tell(*completed_story(), completed(), ImportCancelled(**head()))
    assert told.status.state is State.COMPLETED
    told.tell(ImportResumed(**head(attempt=2)), ImportCancelled(**head(attempt=2)), completed(2))
    assert told.status.state is State.CANCELLED


def test_warnings_are_those_of_the_newest_lists_and_of_the_seal(told: Told) -> None:
    one, two, three = (Remark(code=code, subject="s", message="m") for code in ("one", "two", "three"))
    told.tell(replace(parsed("a"), warnings=(one, two)), replace(sealed(1, 0), warnings=(three,)))
    assert warned(told) == [("one", "Paper a"), ("two", "Paper a"), ("three", None)]
    told.tell(ImportCancelled(**head()), ImportResumed(**head(attempt=2)))
    assert warned(told) == [("one", "Paper a"), ("two", "Paper a")]
    told.tell(
        replace(parsed("a", attempt=2), warnings=(two,)), replace(sealed(1, 0, attempt=2), warnings=(one,))
    )
    assert warned(told) == [("two", "Paper a"), ("one", None)]


def test_warnings_of_a_document_that_a_later_attempt_does_not_find_go_with_it(told: Told) -> None:
    one = Remark(code="one", subject="s", message="m")
    told.tell(replace(parsed("a", text=("p",)), warnings=(one,)), ImportCancelled(**head()))
    told.tell(ImportResumed(**head(attempt=2)), sealed(0, 0, attempt=2))
    assert warned(told) == []


def test_warnings_of_one_import_are_not_those_of_another(told: Told) -> None:
    one, two = (Remark(code=code, subject="s", message="m") for code in ("one", "two"))
    told.tell(replace(sealed(0, 0), warnings=(one,)), requested(OTHER))
    told.tell(replace(sealed(0, 0, import_id=OTHER), warnings=(two,)))
    assert warned(told) == [("one", None)]
    assert warned(told, OTHER) == [("two", None)]


# --- commands that nobody decided --------------------------------------------------------------------------------


def test_a_refusal_that_is_folded_before_its_command_is_shown_as_failed(told: Told) -> None:
    third = import_id_of_key("anonymous", "three")
    command = RequestImport(occurred_at=NOW, source=SOURCE, import_id=third, project_name="Reading")
    told.tell(
        ImportRefused(occurred_at=NOW, import_id=third, command_id="c", reason=RefusalReason.FILES_MISSING)
    )
    told.projection.apply_requests([asked(command, "c")], 1)
    status = told.projection.status(third)
    assert status is not None
    assert (status.state, status.problem) == (State.FAILED, "files_missing")


def test_commands_and_facts_are_folded_side_by_side(told: Told) -> None:
    """Two threads, one connection: a transaction of the one never gets into that of the other."""
    commands = [
        asked(RequestImport(occurred_at=NOW, source=SOURCE, import_id=import_id_of_key("a", str(n))), f"c{n}")
        for n in range(200)
    ]
    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(told.projection.apply_requests, [one], n) for n, one in enumerate(commands)]
        done += [threads.submit(told.tell, parsed(str(n), bib=("t",))) for n in range(1)]
        for one in done:
            one.result()
    assert len(told.projection.statuses(before=None, limit=500)) == 201
    assert told.status.documents.parsed == 1


# --- the file ----------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_made_again(tmp_path: Path) -> None:
    told = Told(tmp_path).tell(created(), requested())
    told.projection.close()
    for content in (b"", b"nonsense" * 1000, b"SQLite format 3\x00" + bytes(4096)):
        (tmp_path / "imports.sqlite").write_bytes(content)
        again = Projection(tmp_path / "imports.sqlite")
        assert (again.position, again.find(IMPORT)) == (0, None)
        again.close()


def test_damage_inside_the_file_is_an_error_and_not_a_wrong_answer(tmp_path: Path) -> None:
    told = Told(tmp_path).tell(created(), requested(), *(parsed(str(n), bib=("t",)) for n in range(200)))
    told.projection.close()
    path = tmp_path / "imports.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    damaged = Projection(path) if is_current(path) else None
    if damaged is not None:
        with pytest.raises(sqlite3.DatabaseError):
            damaged.documents(IMPORT, after=0, limit=500)
        damaged.discard()
        damaged.close()
    assert not is_current(path)


def test_an_event_that_cannot_be_folded_leaves_the_batch_undone(told: Told) -> None:
    before = told.status
    with pytest.raises(AttributeError):
        told.projection.apply([(2, parsed(bib=("t",))), (3, replace(settled("t"), chunks=(None,)))], 4)  # type: ignore[arg-type]  # what cannot be folded
    assert (told.status, told.projection.position) == (before, 2)


class _ClosedMeanwhile(list[tuple[int, Message]]):
    """A batch during which someone closes the projection, and is given half a second for it."""

    closing: threading.Thread

    def __iter__(self) -> Iterator[tuple[int, Message]]:
        self.closing.start()
        self.closing.join(0.5)
        return super().__iter__()


def test_closing_waits_for_the_batch_under_way(tmp_path: Path) -> None:
    projection = Projection(tmp_path / "projection.sqlite")
    events = _ClosedMeanwhile([(0, created())])
    events.closing = threading.Thread(target=projection.close)
    projection.apply(events, 1)
    events.closing.join(30)
    assert not events.closing.is_alive()
    again = Projection(tmp_path / "projection.sqlite")
    assert again.position == 1
    again.close()
