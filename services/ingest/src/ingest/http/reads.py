"""Reads that cross to the other services: search, a project's graph; and the lists of projects and spaces."""

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from eventlog.ids import ImportId
from ingest.http.accepting import Accepting
from ingest.http.comparing import Comparing, store_away, store_refused
from ingest.http.health import Health
from ingest.http.imports import PathId, unknown_import
from ingest.http.parts import HttpParts
from ingest.http.problems import Problem
from ingest.neighbours import EmbedderClient, GraphWriterClient, NeighbourAway, NeighbourRefused
from ingest.state import ImportStatus, Project
from ingest.uploads import shown


class Mode(StrEnum):
    HYBRID = "hybrid"
    MEANING = "meaning"
    WORDS = "words"


def router(parts: HttpParts, embedder: EmbedderClient, writer: GraphWriterClient) -> APIRouter:
    routes = APIRouter(prefix="/api", tags=["reading"])

    @routes.get("/search", summary="Find passages, by meaning and by words")
    async def search(
        q: Annotated[str, Query(min_length=1, max_length=2000)],
        project: Annotated[str | None, Query(max_length=200)] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        mode: Mode = Mode.HYBRID,
    ) -> dict[str, Any]:
        found = _project(parts, project) if project else None
        space = found.space if found else _only_space(parts)
        vector = None if mode is Mode.WORDS else await embedder.query_vector(space, q)
        message = None
        asked_mode = mode
        if mode is not Mode.WORDS and vector is None:
            asked_mode = Mode.WORDS
            message = f"Found by words only: no embedder for {space} answers."
        query = {
            "project_id": str(found.project_id) if found else None,
            "space": space,
            "text": q,
            "vector": vector,
            "limit": limit,
            "mode": asked_mode,
        }
        try:
            answer = await writer.search(query)
        except NeighbourAway as error:
            raise store_away(error) from None
        except NeighbourRefused as error:
            raise store_refused(error) from None
        return {
            "results": answer.get("results", []),
            "mode": answer.get("mode", asked_mode),
            "space": space,
            "message": message,
        }

    @routes.get("/projects", summary="All projects, by name")
    async def projects() -> dict[str, Any]:
        return {
            "projects": [
                {"project_id": str(one.project_id), "name": one.name, "space": one.space}
                for one in parts.projection.projects()
            ]
        }

    @routes.get("/projects/{project:path}/graph", summary="A project's nodes and edges")
    async def graph(project: str, limit: Annotated[int | None, Query(ge=1, le=1_000_000)] = None) -> Response:
        found = _project(parts, project)
        try:
            pieces: AsyncIterator[bytes] = await writer.graph(found.project_id, limit)
        except NeighbourAway as error:
            raise store_away(error) from None
        except NeighbourRefused as error:
            raise store_refused(error) from None
        return StreamingResponse(pieces, media_type="application/json")

    @routes.get("/spaces", summary="The embedding spaces in use, and that of new projects")
    async def spaces() -> dict[str, Any]:
        default = parts.settings.default_space
        return {"spaces": sorted({*parts.projection.spaces(), default}), "default": default}

    return routes


def comparing_router(comparing: Comparing, accepting: Accepting, health: Health) -> APIRouter:
    routes = APIRouter(prefix="/api/imports", tags=["imports"])

    def status_of(import_id: PathId) -> ImportStatus:
        status = accepting.status(ImportId(import_id))
        if status is None:
            raise unknown_import()
        return status

    @routes.post("/{import_id}/verify", summary="Hold the store against the log")
    async def verify(import_id: PathId, request: Request) -> dict[str, Any]:
        status = status_of(import_id)
        return (await comparing.verify(status, request.is_disconnected)).to_json(status.import_id)

    @routes.post(
        "/{import_id}/resume",
        status_code=202,
        summary="Drive what is missing; 200 when nothing is",
    )
    async def resume(import_id: PathId) -> Response:
        status, goes_on = await comparing.resume(status_of(import_id))
        return JSONResponse(await health.status_json(status), status_code=202 if goes_on else 200)

    return routes


def _project(parts: HttpParts, name_or_id: str) -> Project:
    found = parts.projection.project(name_or_id)
    if found is None:
        raise Problem(
            404,
            "project_unknown",
            f"There is no project “{shown(name_or_id)}”.",
            "GET /api/projects lists those there are.",
        )
    return found


def _only_space(parts: HttpParts) -> str:
    spaces = parts.projection.spaces()
    if len(spaces) > 1:
        raise Problem(
            422,
            "space_ambiguous",
            "Projects are in different embedding spaces, whose distances cannot be compared.",
            "Name the project to search in.",
            spaces=spaces,
        )
    return spaces[0] if spaces else parts.settings.default_space
