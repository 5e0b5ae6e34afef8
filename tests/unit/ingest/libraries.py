"""A library read as ingest reads it: scanned and parsed by the real child, its documents and chunks in memory."""

import asyncio
import hashlib
import sys
from collections.abc import Mapping, Sequence
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
from ingest.sources.item import Rejection

PROJECT = project_id("Wetlands")
CHILD = (sys.executable, "-m", "ingest.parser_child")


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
    folder: Path,
    files: Mapping[str, bytes | Path],
    kind: SourceKind = SourceKind.AUTO,
    *,
    argv: Sequence[str] = CHILD,
) -> Read:
    """Raises ScanFailed."""
    scan, spool = folder / "scan.sqlite", folder / "document.jsonl"
    async with Parser(argv=argv) as parser:
        local = local_files(folder / "blobs", files)
        read = Read(
            summary=await parser.scan(project_id=PROJECT, kind=kind, files=local, options={}, out=scan)
        )
        for number, _, name in read_documents(scan):
            answer = await parser.parse(scan=scan, number=number, out=spool, project_id=PROJECT)
            if isinstance(answer, Rejected):
                read.rejected[name] = answer
                continue
            read.rejected |= {one.item: one for one in answer.rejected_attachments}
            read.documents[name] = read_document(spool)
            read.chunks[name] = list(read_chunks(spool))
    read.rejected |= {one.item: one for one in read_rejections(scan)}
    read.warnings = list(read_warnings(scan))
    return read


def read_now(folder: Path, files: Mapping[str, bytes | Path], kind: SourceKind = SourceKind.AUTO) -> Read:
    return asyncio.run(read_library(folder, files, kind))


async def validated(
    folder: Path, files: Mapping[str, bytes | Path], kind: SourceKind = SourceKind.AUTO
) -> Validation:
    async with Parser() as parser:
        return await parser.validate(files=local_files(folder / "blobs", files), kind=kind)
