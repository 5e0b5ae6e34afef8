"""The HTTP application: every route, what stands before them, and how errors become answers."""

from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi

from eventlog.topics import Names, topic_table
from ingest import registry
from ingest.http import health, imports, older, page, problems, reads
from ingest.http.accepting import Accepting
from ingest.http.comparing import Comparing
from ingest.http.guard import Guard, names_answered
from ingest.http.parts import HttpParts
from ingest.neighbours import EmbedderClient, GraphWriterClient, ReadinessCache

_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document (RFC 9457)",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
}


def build_app(parts: HttpParts) -> FastAPI:
    # The framework's own documentation page loads scripts from elsewhere; ours is in page.py.
    app = FastAPI(
        title="Paperlog",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses=_PROBLEM,
    )
    problems.install(app, parts.on_damage)
    neighbours = ReadinessCache(parts.client, parts.clock)
    state = health.Health(parts, neighbours)
    accepting = Accepting(parts)
    writer = GraphWriterClient(parts.client, str(parts.settings.graph_writer_url))
    embedder = EmbedderClient(parts.client, parts.settings.embedders)
    app.include_router(page.router())
    app.include_router(health.router(parts, state))
    app.include_router(imports.blob_router(parts))
    comparing = Comparing(parts, accepting, writer)

    async def known(request: Request) -> None:
        """A new import may be asked for; what is asked of one that may be there has to wait."""
        if parts.is_rebuilding() and (request.method == "GET" or request.path_params):
            raise problems.rebuilding()

    for router in (
        imports.router(parts, accepting, state),
        reads.comparing_router(comparing, accepting, state),
        reads.router(parts, embedder, writer),
        older.router(parts, accepting, comparing),
    ):
        app.include_router(router, dependencies=[Depends(known)])
    app.include_router(registry.router(parts.schemas, topic_table(), Names(parts.settings.prefix)))
    names = names_answered(parts.settings.http_names, bound_to=parts.settings.http_host)
    app.add_middleware(Guard, names=names)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """The schemas of bodies that are read as streams, which the framework does not see."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            for model in (*imports.BODY_MODELS, *older.BODY_MODELS, problems.ProblemDocument):
                described = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(described.pop("$defs", {}))
                schemas[model.__name__] = described
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
