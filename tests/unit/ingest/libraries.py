"""A library read as ingest reads it, its documents and chunks in memory: by the real child, or faster without one."""

import asyncio
import hashlib
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eventlog.events import ChunkKind, Remark, SourceKind
from eventlog.ids import project_id
from ingest.parser import (
    LocalFile,
    Parser,
    Rejected,
    ScanSummary,
    SpooledChunk,
    SpooledDocument,
    Validation,
    read_chunks,
    read_document,
    read_documents,
    read_rejections,
    read_warnings,
)
from ingest.parser_child import Answers, answer
from ingest.sources.item import Rejection

PROJECT = project_id("Wetlands")


class ParserHere(Parser):
    """Answers as the child does, in this process, which has no limits."""

    async def _answer(self, line: bytes, wall_s: float) -> tuple[dict, str]:
        request = json.loads(line)
        request.pop("cpu_s")
        return answer(request, reading := _Reading()), reading.path


class _Reading(Answers):
    path = ""

    def __init__(self) -> None:
        super().__init__(io.StringIO())

    def reading(self, path: str) -> None:
        self.path = path


@dataclass(kw_only=True)
class Read:
    """What came of a library: documents by the name of their first item, rejections by theirs."""

    summary: ScanSummary
    documents: dict[str, SpooledDocument] = field(default_factory=dict)
    chunks: dict[str, list[SpooledChunk]] = field(default_factory=dict)
    rejected: dict[str, Rejected | Rejection] = field(default_factory=dict)
    warnings: list[Remark] = field(default_factory=list)

    @property
    def document(self) -> SpooledDocument:
        (only,) = self.documents.values()
        return only

    def texts(self, name: str, kind: ChunkKind) -> list[str]:
        return [chunk.text for chunk in self.chunks[name] if chunk.kind is kind]


def local_files(folder: Path, files: Mapping[str, bytes | Path]) -> list[LocalFile]:
    """Written under their hashes, as the blob store keeps them; a path is taken as it is."""
    folder.mkdir(exist_ok=True)
    out = []
    for path, data in files.items():
        if isinstance(data, Path):
            local, sha256 = data, hashlib.sha256(path.encode()).hexdigest()
        else:
            sha256 = hashlib.sha256(data).hexdigest()
            local = folder / sha256
            local.write_bytes(data)
        out.append(LocalFile(path=path, local=local, sha256=sha256, size_bytes=local.stat().st_size))
    return out


async def read_library(
    folder: Path, files: Mapping[str, bytes | Path], kind: SourceKind = SourceKind.AUTO, *, parser: Parser
) -> Read:
    """Raises ScanFailed."""
    scan, spool = folder / "scan.sqlite", folder / "document.jsonl"
    local = local_files(folder / "blobs", files)
    read = Read(summary=await parser.scan(project_id=PROJECT, kind=kind, files=local, options={}, out=scan))
    for number, _, name in read_documents(scan):
        parsed = await parser.parse(scan=scan, number=number, out=spool, project_id=PROJECT)
        if isinstance(parsed, Rejected):
            read.rejected[name] = parsed
            continue
        read.rejected |= {one.item: one for one in parsed.rejected_attachments}
        read.documents[name] = read_document(spool)
        read.chunks[name] = list(read_chunks(spool))
    read.rejected |= {one.item: one for one in read_rejections(scan)}
    read.warnings = list(read_warnings(scan))
    return read


async def read_by_child(folder: Path, files: Mapping[str, bytes | Path], code: str = "") -> Read:
    """`code` is what the child runs instead of its module."""
    argv = (sys.executable, *(("-c", code) if code else ("-m", "ingest.parser_child")))
    async with Parser(argv=argv) as parser:
        return await read_library(folder, files, parser=parser)


def read_now(folder: Path, files: Mapping[str, bytes | Path], kind: SourceKind = SourceKind.AUTO) -> Read:
    return asyncio.run(read_library(folder, files, kind, parser=ParserHere()))


def validated(
    folder: Path, files: Mapping[str, bytes | Path], kind: SourceKind = SourceKind.AUTO
) -> Validation:
    (folder / "validation").mkdir(exist_ok=True)
    out = folder / "validation" / "scan.sqlite"
    out.unlink(missing_ok=True)
    return asyncio.run(ParserHere().validate(files=local_files(folder / "blobs", files), kind=kind, out=out))
