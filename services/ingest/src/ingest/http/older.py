"""The paths of the system that Paperlog replaces, as aliases for clients that still call them; all are deprecated.

A job is an import and its id is the import's. What comes in is accepted, validated and resumed by the code behind
`/api/imports`; here stand only the older names, limits and shapes of answers. What the older service answered with 400
is 400 here too, as a problem document whose `detail` is the sentence that its clients show.
"""

from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, field_validator

from eventlog.events import SourceFile, SourceKind
from eventlog.ids import ImportId
from ingest.http.accepting import Accepting
from ingest.http.asked import Asked, build_asked, publish_form, take_paths
from ingest.http.comparing import Comparing
from ingest.http.forms import Form, FormRules, read_form, read_json
from ingest.http.imports import Key
from ingest.http.parts import HttpParts, Validation
from ingest.http.problems import Problem, ProblemResponse, refused
from ingest.reads import GraphCounts
from ingest.requests import PROJECT_NAME_MAX
from ingest.state import ImportStatus, State
from ingest.uploads import UploadRefused, build_source, shown

MIB = 1024**2
PDF_BYTES_MAX = 50 * MIB
PDFS_BYTES_MAX = 200 * MIB
ZOTERO_BYTES_MAX = 500 * MIB
PATH_PARTS_MAX = 10
MESSAGE_CHARACTERS_MAX = 500
JOBS_MAX = 1_000
NAMED_MAX = 50
"""So many rejections and warnings a job's statistics name; `/api/imports` has all of them."""


class JobStatus(StrEnum):
    PENDING = "pending"
    VALIDATING = "validating"
    EXTRACTING = "extracting"
    PROCESSING = "processing"
    BUILDING_GRAPH = "building_graph"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Never said: an import that a death has interrupted goes on by itself."""


JOB_STATUS = {
    State.ACCEPTED: JobStatus.PENDING,
    State.PARSING: JobStatus.EXTRACTING,
    State.EMBEDDING: JobStatus.PROCESSING,
    State.COMPLETED: JobStatus.COMPLETED,
    State.COMPLETED_WITH_REJECTIONS: JobStatus.COMPLETED,
    State.CANCELLED: JobStatus.FAILED,
    State.FAILED: JobStatus.FAILED,
}
_FILTERS: dict[str, tuple[State, ...]] = {
    **{job: tuple(state for state in State if JOB_STATUS[state] is job) for job in JOB_STATUS.values()},
    "running": (State.PARSING, State.EMBEDDING),
    "cancelled": (State.CANCELLED,),
    "interrupted": (),
}
"""Both of its vocabularies, that of its answers and that of its store."""

_Question = Annotated[str | None, Query(max_length=500)]
_Name = Annotated[str | None, Query(max_length=1000)]


class _AsBefore(APIRoute):
    """Answers 400 where the older service did."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except UploadRefused as error:
                problem = refused(error)
            except Problem as error:
                problem = error
            if problem.status in (409, 413, 415, 422):
                problem.status = 400
            problem.detail = problem.detail[:MESSAGE_CHARACTERS_MAX]
            raise problem

        return answer


class FolderIn(BaseModel):
    """A ScholaRAG folder on the service's machine, under one of PAPERLOG_ALLOWED_ROOTS."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    folder_path: Annotated[str, Field(max_length=4000)]
    project_name: Annotated[str | None, Field(max_length=1000)] = None
    extract_entities: bool = True

    @field_validator("folder_path")
    @classmethod
    def _sanitised(cls, value: str) -> str:
        path = "".join(c for c in value if c.isprintable()).replace("\\", "/")
        while ".." in path:
            path = path.replace("..", ".")
        return path.strip()


BODY_MODELS = (FolderIn,)
_FOLDER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/FolderIn"}}},
    }
}


def _files_body(name: str, *, is_list: bool) -> dict[str, Any]:
    one = {"type": "string", "format": "binary"}
    schema = {
        "type": "object",
        "required": [name],
        "properties": {name: {"type": "array", "items": one} if is_list else one},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def router(parts: HttpParts, accepting: Accepting, comparing: Comparing) -> APIRouter:
    routes = APIRouter(prefix="/api/import", tags=["older paths"], route_class=_AsBefore, deprecated=True)
    older = _Older(parts, accepting)
    _folders(routes, parts, older)
    _uploads(routes, older)
    _jobs(routes, older, comparing)
    return routes


def _folders(routes: APIRouter, parts: HttpParts, older: "_Older") -> None:
    @routes.post("/scholarag/validate", openapi_extra=_FOLDER_BODY, summary="See POST /api/imports/validate")
    async def validate_folder(request: Request) -> dict[str, Any]:
        body = FolderIn.model_validate_json(await read_json(request))
        try:
            files, name = await _take_folder(body, parts)
        except Problem as error:
            if error.code != "path_missing":
                raise
            return _folder_json(body, (), None)
        asked = build_asked(files, name, SourceKind.SCHOLARAG, None, None, {})
        return _folder_json(body, files, await older.validate(asked))

    @routes.post("/scholarag", openapi_extra=_FOLDER_BODY, summary="See POST /api/imports")
    async def import_folder(request: Request, key: Key = None) -> dict[str, Any]:
        body = FolderIn.model_validate_json(await read_json(request))
        files, name = await _take_folder(body, parts)
        options = {} if body.extract_entities else {"extract_entities": "false"}
        asked = build_asked(files, name, SourceKind.SCHOLARAG, cleaned_name(body.project_name), None, options)
        return older.job_json(await older.accept(asked, key))


def _uploads(routes: APIRouter, older: "_Older") -> None:
    @routes.post("/pdf", openapi_extra=_files_body("file", is_list=False), summary="See POST /api/imports")
    async def import_pdf(
        request: Request,
        project_name: _Name = None,
        research_question: _Question = None,
        extract_concepts: bool = True,
        key: Key = None,
    ) -> dict[str, Any]:
        options = _options(research_question, extract_concepts=extract_concepts)
        rules = FormRules(files_field="file", files_bytes_max=PDF_BYTES_MAX)
        asked = await older.take_form(request, rules, SourceKind.PDF, project_name, options, _check_one_pdf)
        return _accepted(await older.accept(asked, key)) | {"filename": asked.files[0].path}

    @routes.post(
        "/pdf/multiple", openapi_extra=_files_body("files", is_list=True), summary="See POST /api/imports"
    )
    async def import_pdfs(
        request: Request,
        project_name: _Name = "Uploaded PDFs",
        research_question: _Question = None,
        extract_concepts: bool = True,
        key: Key = None,
    ) -> dict[str, Any]:
        options = _options(research_question, extract_concepts=extract_concepts)
        rules = FormRules(files_bytes_max=PDFS_BYTES_MAX)
        asked = await older.take_form(request, rules, SourceKind.PDF, project_name, options, _check_pdfs)
        status = await older.accept(asked, key)
        return _accepted(status) | {"filename": f"{len(asked.files)} files"}

    @routes.post("/csv", status_code=501, response_class=ProblemResponse, summary="Was never implemented")
    async def import_csv() -> Response:
        raise Problem(
            501,
            "csv_not_here",
            "This path never imported anything, and it does not say what a table's columns mean.",
            "Send the table to POST /api/imports, which finds out of which kind it is.",
        )

    @routes.post(
        "/zotero/validate",
        openapi_extra=_files_body("files", is_list=True),
        summary="See POST /api/imports/validate",
    )
    async def validate_zotero(request: Request) -> dict[str, Any]:
        rules = FormRules(files_bytes_max=ZOTERO_BYTES_MAX)
        asked = await older.take_form(request, rules, SourceKind.ZOTERO_RDF, None, {}, lambda _: None)
        return _export_json(asked.files, await older.validate(asked))

    @routes.post("/zotero", openapi_extra=_files_body("files", is_list=True), summary="See POST /api/imports")
    async def import_zotero(
        request: Request,
        project_name: _Name = None,
        research_question: _Question = None,
        extract_concepts: bool = True,
        key: Key = None,
    ) -> dict[str, Any]:
        options = _options(research_question, extract_concepts=extract_concepts)
        rules = FormRules(files_bytes_max=ZOTERO_BYTES_MAX)
        asked = await older.take_form(
            request, rules, SourceKind.ZOTERO_RDF, project_name, options, _check_export
        )
        status = await older.accept(asked, key)
        return _accepted(status) | {"items_count": status.documents.found}


def _jobs(routes: APIRouter, older: "_Older", comparing: Comparing) -> None:
    @routes.get("/status/{job_id}", summary="See GET /api/imports/{import_id}")
    async def status(job_id: str) -> dict[str, Any]:
        return older.job_json(older.find(job_id))

    @routes.get("/jobs", summary="See GET /api/imports")
    async def jobs(
        status: Annotated[str | None, Query(max_length=100)] = None,
        limit: Annotated[int, Query(ge=1)] = 50,
    ) -> list[dict[str, Any]]:
        return list(older.jobs(status, min(limit, JOBS_MAX)))

    @routes.delete("/jobs/interrupted", summary="There are none: an import goes on by itself")
    async def clear() -> dict[str, Any]:
        return {
            "deleted_count": 0,
            "message": "No import is interrupted: what a death stops goes on by itself.",
        }

    @routes.get("/resume/{job_id}/info", summary="What POST would do")
    async def info(job_id: str) -> dict[str, Any]:
        return older.resume_json(older.find(job_id))

    @routes.post("/resume/{job_id}", summary="See POST /api/imports/{import_id}/resume")
    async def resume(job_id: str) -> dict[str, Any]:
        now, goes_on = await comparing.resume(older.find(job_id))
        if not goes_on:
            raise Problem(
                400,
                "nothing_to_resume",
                "The import is complete, and the store has all of it: there is nothing to resume.",
                "Nothing needs to be done.",
            )
        return older.job_json(now)


class _Older:
    def __init__(self, parts: HttpParts, accepting: Accepting) -> None:
        self._parts = parts
        self._accepting = accepting

    async def take_form(
        self,
        request: Request,
        rules: FormRules,
        kind: SourceKind,
        project: str | None,
        options: dict[str, str],
        check: Callable[[list[str]], None],
    ) -> Asked:
        """Raises Problem, UploadRefused; `check` gets the files' names before any file is kept."""
        content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if content_type != "multipart/form-data":
            raise Problem(415, "type_unsupported", "The files come in a form.", "Send multipart/form-data.")
        with Form() as form:
            await read_form(request, form, self._parts.blobs, rules)
            if not form.files:
                raise Problem(
                    400, "source_empty", "No files provided.", f"Send files as “{rules.files_field}”."
                )
            check([name for name, _, _ in form.files])
            files, name = await publish_form(form.files, self._parts.blobs)
        return build_asked(files, name, kind, cleaned_name(project), None, options)

    async def accept(self, asked: Asked, key: str | None) -> ImportStatus:
        status, _ = await self._accepting.accept(asked, key)
        return status

    async def validate(self, asked: Asked) -> Validation:
        source = await build_source(asked.kind, asked.files, self._parts.blobs)
        return await self._accepting.validated(source)

    def find(self, job_id: str) -> ImportStatus:
        try:
            status = self._accepting.status(ImportId(UUID(job_id)))
        except ValueError:
            status = None
        if status is None:
            raise Problem(
                404, "job_unknown", "Import job not found.", "GET /api/import/jobs lists those there are."
            )
        return status

    def jobs(self, status: str | None, limit: int) -> Iterator[dict[str, Any]]:
        states = _FILTERS.get(status or "")
        if states == ():
            return
        for row in self._parts.projection.statuses(before=None, limit=limit, states=states or ()):
            job = self.job_json(row)
            del job["result"]
            yield job | {"metadata": {"project_name": row.project, "checkpoint": self._checkpoint(row)}}

    def job_json(self, status: ImportStatus) -> dict[str, Any]:
        counts = self._parts.projection.graph_counts(status.import_id)
        result = {
            "project_id": str(status.project_id),
            "nodes_created": counts.nodes,
            "edges_created": counts.edges,
        }
        return {
            "job_id": str(status.import_id),
            "status": JOB_STATUS[status.state],
            "progress": status.progress,
            "message": _message(status),
            "project_id": str(status.project_id),
            "stats": self._stats(status, counts),
            "result": result if JOB_STATUS[status.state] is JobStatus.COMPLETED else None,
            "reliability_summary": None,  # was a report on what a language model had extracted and merged
            "created_at": status.requested_at.isoformat(),
            "updated_at": self._updated_at(status).isoformat(),
            "metadata": None,
        }

    def resume_json(self, status: ImportStatus) -> dict[str, Any]:
        can_resume, message = _resumable(status)
        return {
            "job_id": str(status.import_id),
            "status": JOB_STATUS[status.state],
            "can_resume": can_resume,
            "checkpoint": self._checkpoint(status),
            "error": status.problem and status.problem[:MESSAGE_CHARACTERS_MAX],
            "message": message,
        }

    def _stats(self, status: ImportStatus, counts: GraphCounts) -> dict[str, Any]:
        rejections = self._parts.projection.rejections(status.import_id, after=0, limit=NAMED_MAX)
        warnings = self._parts.projection.warnings(status.import_id, after=0, limit=NAMED_MAX)
        return {
            "papers_imported": status.documents.stored,
            "papers_failed": status.documents.rejected,
            "pdfs_processed": counts.full_texts,
            "authors_extracted": counts.authors,
            "concepts_extracted": counts.concepts,
            "chunks_created": status.chunks.stored,
            "relationships_created": counts.edges,
            "errors": [f"{shown(row.item)}: {row.message or row.reason}" for row in rejections],
            "warnings": [f"{shown(row.subject)}: {row.message or row.code}" for row in warnings],
        }

    def _checkpoint(self, status: ImportStatus) -> dict[str, Any]:
        """Nothing is kept beside the log, so nothing can lack in it: these are counts of what has happened."""
        processed = status.documents.stored + status.documents.rejected + status.documents.merged
        return {
            "processed_count": processed,
            "total_papers": status.documents.found,
            "last_processed_index": processed - 1,
            "project_id": str(status.project_id),
            "stage": status.state.value,
            "updated_at": self._updated_at(status).isoformat(),
        }

    def _updated_at(self, status: ImportStatus) -> datetime:
        """Of an open import, when the last fact of any import came."""
        if status.finished_at is not None:
            return status.finished_at
        return max(status.requested_at, self._parts.projection.moved_at() or status.requested_at)


def cleaned_name(raw: str | None) -> str | None:
    """As it was cleaned before: letters, digits, blanks, hyphens and underscores, at most 100; null for nothing."""
    kept = "".join(c for c in raw or "" if c.isalnum() or c in " -_")
    return kept[:PROJECT_NAME_MAX].strip() or None


def _options(research_question: str | None, *, extract_concepts: bool) -> dict[str, str]:
    options = {"research_question": research_question} if research_question else {}
    return options if extract_concepts else {**options, "extract_concepts": "false"}


async def _take_folder(body: FolderIn, parts: HttpParts) -> tuple[tuple[SourceFile, ...], str]:
    """Raises Problem: 400 for a path that is none, 503 without allowed roots, 403 outside of them."""
    path = Path(body.folder_path)
    if not path.is_absolute():
        raise Problem(
            400,
            "path_relative",
            "Only absolute paths are allowed for import operations.",
            "Name the folder by its absolute path.",
        )
    if len(path.parts) > PATH_PARTS_MAX:
        raise Problem(
            400,
            "path_too_deep",
            f"The path has more than {PATH_PARTS_MAX} parts.",
            "Move the folder further up.",
        )
    if not parts.settings.allowed_roots:
        raise Problem(
            503,
            "paths_not_allowed",
            "Imports by path are not configured: no folder of this machine is allowed.",
            "Set PAPERLOG_ALLOWED_ROOTS, or send the files to POST /api/imports.",
        )
    return await take_paths([body.folder_path], parts)


def _check_one_pdf(names: list[str]) -> None:
    if len(names) != 1:
        raise Problem(400, "files_too_many", "One PDF is taken here.", "Use /api/import/pdf/multiple.")
    _check_pdfs(names)


def _check_pdfs(names: list[str]) -> None:
    other = next((name for name in names if not name.lower().endswith(".pdf")), None)
    if other is not None:
        raise Problem(
            400,
            "not_a_pdf",
            f"All files must be PDFs; “{shown(other)}” is none by its name.",
            "Leave it out.",
        )


def _check_export(names: list[str]) -> None:
    if not any(name.lower().endswith(".rdf") for name in names):
        raise Problem(
            400,
            "rdf_missing",
            "There is no .rdf file among the files.",
            "Export from Zotero in the format Zotero RDF, and send the .rdf file with the PDFs.",
        )


def _accepted(status: ImportStatus) -> dict[str, Any]:
    return {
        "job_id": str(status.import_id),
        "status": JOB_STATUS[status.state],
        "message": _message(status),
        "project_id": str(status.project_id),
        "reliability_summary": None,
    }


def _folder_json(body: FolderIn, files: tuple[SourceFile, ...], found: Validation | None) -> dict[str, Any]:
    paths = [PurePosixPath(file.path) for file in files]
    names = {part for path in paths for part in path.parts[1:]}
    errors, warnings = _told(found)
    if found is None:
        errors = ["Folder not found."]
    elif ".scholarag" not in names:
        warnings.append(".scholarag metadata not found (optional)")
    has_table = any(path.suffix.lower() == ".csv" for path in paths) and not any(
        problem.code == "papers_missing" for problem in (found.problems if found else ())
    )
    return {
        "valid": not errors,
        "folder_path": body.folder_path,
        "config_found": bool(names & {"config.yaml", "config.yml"}),
        "scholarag_metadata_found": ".scholarag" in names,
        "papers_csv_found": has_table,
        "papers_count": max(found.items, 0) if found else 0,
        "pdfs_count": sum(path.suffix.lower() == ".pdf" for path in paths),
        "chroma_db_found": "chroma_db" in names,
        "errors": errors,
        "warnings": warnings,
    }


def _export_json(files: tuple[SourceFile, ...], found: Validation) -> dict[str, Any]:
    paths = [PurePosixPath(file.path) for file in files]
    rdf = next((path for path in paths if path.suffix.lower() == ".rdf"), None)
    errors, warnings = _told(found)
    if rdf is None and not errors:
        errors.append("There is no .rdf file; export from Zotero in the format Zotero RDF.")
    return {
        "valid": not errors,
        "folder_path": "" if rdf is None or len(rdf.parts) == 1 else rdf.parent.as_posix(),
        "rdf_file": None if rdf is None else rdf.name,
        "items_count": max(found.items, 0),
        "pdfs_available": sum(path.suffix.lower() == ".pdf" for path in paths),
        "has_files_dir": any("files" in path.parts[:-1] for path in paths),
        "errors": errors,
        "warnings": warnings,
    }


def _told(found: Validation | None) -> tuple[list[str], list[str]]:
    """Errors and warnings, each cut where the older service cut."""
    told: tuple[list[str], list[str]] = ([], [])
    for problem in found.problems if found else ():
        subject = f"{shown(problem.subject)}: " if problem.subject else ""
        told[0 if problem.is_fatal else 1].append(f"{subject}{problem.message}"[:MESSAGE_CHARACTERS_MAX])
    return told


def _message(status: ImportStatus) -> str:
    match status.state:
        case State.ACCEPTED:
            text = "The import is accepted and waits for its turn."
        case State.PARSING:
            text = f"Reading documents: {status.documents.parsed} of {status.documents.found}."
        case State.EMBEDDING:
            text = f"Embedding and storing: {status.chunks.settled} of {status.chunks.total} passages."
        case State.COMPLETED:
            text = "Import completed successfully!"
        case State.COMPLETED_WITH_REJECTIONS:
            text = f"Import completed; {status.documents.rejected} documents and {status.chunks.rejected} passages were rejected."
        case State.CANCELLED:
            text = "The import was cancelled; a resume goes on with it."
        case State.FAILED:
            text = f"Import failed: {status.problem or 'without a reason'}"
    return text[:MESSAGE_CHARACTERS_MAX]


def _resumable(status: ImportStatus) -> tuple[bool, str]:
    if not status.is_terminal:
        return False, "The import goes on by itself; a resume changes nothing."
    if status.state is State.COMPLETED:
        return False, "The import is complete; a resume only mends what the store has lost."
    if status.attempt == 0:
        return False, "The request was refused and never became an import; correct it and import again."
    return True, "A resume drives what is missing, without an upload; what is stored costs nothing again."
