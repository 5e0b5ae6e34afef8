"""Commands against what is known: given / when / then."""

from dataclasses import replace

from tests.unit.ingest.story import BIB, IMPORT, NOW, PROJECT, SOURCE, SPACE, TEXT, document, requested

from eventlog.events import (
    CancelImport,
    ChunkOutcome,
    ImportRefused,
    ImportRequested,
    ImportResumed,
    Message,
    ProjectCreated,
    RefusalReason,
    RequestImport,
    ResumeImport,
)
from ingest.core import DocumentTally, Known, decide, digest, evolve, progress, settle_document
from ingest.requests import request_sha256, source_problem
from ingest.state import Import, Project, State

REQUEST = RequestImport(occurred_at=NOW, source=SOURCE, import_id=IMPORT, project_name="Reading")
NOTHING = Known(existing=None, project=None, default_space=SPACE, chunker_version="1")
READING = Project(project_id=PROJECT, name="Reading", space=SPACE)


def decided(command: RequestImport | CancelImport | ResumeImport, known: Known) -> list[Message]:
    return decide(command, known, import_id=IMPORT, command_id="c", at=NOW)


def running(**changes: object) -> Import:
    state = evolve(None, requested(), 7)
    assert state is not None
    return replace(state, **{"request_sha256": request_sha256(REQUEST), **changes})


def refused(messages: list[Message]) -> RefusalReason:
    (message,) = messages
    assert isinstance(message, ImportRefused)
    return message.reason


def test_the_first_import_creates_its_project_and_takes_the_default_space() -> None:
    created, asked = decided(REQUEST, NOTHING)
    assert isinstance(created, ProjectCreated)
    assert isinstance(asked, ImportRequested)
    assert (created.space, asked.space, asked.project_id) == (SPACE, SPACE, PROJECT)


def test_a_project_is_created_once() -> None:
    (asked,) = decided(REQUEST, replace(NOTHING, project=READING))
    assert isinstance(asked, ImportRequested)


def test_a_project_keeps_its_space() -> None:
    other = replace(REQUEST, space="openai/text-embedding-3-small@1536:1")
    assert refused(decided(other, replace(NOTHING, project=READING))) is RefusalReason.SPACE_MISMATCH


def test_the_same_request_twice_is_one_import() -> None:
    assert decided(REQUEST, replace(NOTHING, existing=running())) == []


def test_a_key_with_another_body_is_refused() -> None:
    existing = running(request_sha256="another")
    assert (
        refused(decided(REQUEST, replace(NOTHING, existing=existing))) is RefusalReason.IDEMPOTENCY_KEY_REUSED
    )


def test_files_that_are_not_there_are_named() -> None:
    (message,) = decided(REQUEST, replace(NOTHING, missing_files=("a.pdf",)))
    assert isinstance(message, ImportRefused)
    assert (message.reason, message.message) == (RefusalReason.FILES_MISSING, "a.pdf")


def test_a_resume_raises_the_attempt_once() -> None:
    cancelled = running(state=State.CANCELLED)
    command = ResumeImport(occurred_at=NOW, import_id=IMPORT, attempt_seen=1)
    (message,) = decided(command, replace(NOTHING, existing=cancelled))
    assert isinstance(message, ImportResumed)
    assert message.attempt == 2
    assert decided(command, replace(NOTHING, existing=evolve(cancelled, message, 9))) == []


def test_a_resume_that_saw_an_older_attempt_changes_nothing() -> None:
    again = running(state=State.CANCELLED, attempt=2)
    command = ResumeImport(occurred_at=NOW, import_id=IMPORT, attempt_seen=1)
    assert decided(command, replace(NOTHING, existing=again)) == []


def test_a_cancel_of_a_finished_import_changes_nothing() -> None:
    command = CancelImport(occurred_at=NOW, import_id=IMPORT)
    assert decided(command, replace(NOTHING, existing=running(state=State.COMPLETED))) == []


def test_commands_for_an_unknown_import_are_refused() -> None:
    for command in (
        CancelImport(occurred_at=NOW, import_id=IMPORT),
        ResumeImport(occurred_at=NOW, import_id=IMPORT),
    ):
        assert refused(decided(command, NOTHING)) is RefusalReason.IMPORT_UNKNOWN


def tally(**outcomes: dict[ChunkOutcome, int]) -> DocumentTally:
    return DocumentTally(
        import_id=IMPORT,
        project_id=PROJECT,
        attempt=1,
        document_id=document(),
        revision=7,
        parsed_offset=9,
        parts={BIB: outcomes["bib"], TEXT: outcomes["text"]},
    )


def test_a_part_that_stored_nothing_never_takes_an_older_one_away() -> None:
    said = settle_document(tally(bib={ChunkOutcome.STORED: 1}, text={ChunkOutcome.REJECTED: 3}), NOW)
    assert (said.parts, said.rejected_count) == ((BIB,), 3)


def test_a_part_with_a_dead_letter_replaces_nothing() -> None:
    outcomes = {ChunkOutcome.STORED: 2, ChunkOutcome.DEAD_LETTERED: 1}
    assert settle_document(tally(bib={}, text=outcomes), NOW).parts == (BIB,)


def test_progress_is_one_only_when_completed() -> None:
    state = running(item_count=1)
    assert progress(state, parsed=1, settled=10, chunks_so_far=10) < 1
    assert progress(replace(state, state=State.COMPLETED), parsed=0, settled=0, chunks_so_far=0) == 1


def test_the_digest_wraps_at_256_bits() -> None:
    assert digest([b"\xff" * 32, b"\x00" * 31 + b"\x02"]) == "0" * 63 + "1"


def test_paths_that_climb_out_are_a_problem_of_the_source() -> None:
    for path in ("../a.pdf", "/etc/passwd", "a/../../b", "", "a\x00b"):
        file = replace(SOURCE.files[0], path=path)
        assert source_problem(replace(SOURCE, files=(file,))), path
    assert source_problem(SOURCE) == ""
