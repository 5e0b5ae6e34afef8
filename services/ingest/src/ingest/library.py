"""The files of a source as the parser wants them: paths on this machine. It knows the blob store, not the parser's work."""

import asyncio
import json

from eventlog.events import Source, SourceFile
from ingest.blobs import Blobs
from ingest.parser import LocalFile


async def source_files(blobs: Blobs, source: Source) -> tuple[SourceFile, ...]:
    """Raises FileNotFoundError when the manifest is gone, ValueError when it is no list of files."""
    if source.manifest_sha256 is None:
        return source.files
    path = await blobs.local(source.manifest_sha256)
    try:
        rows = json.loads(await asyncio.to_thread(path.read_bytes))
        return tuple(
            SourceFile(path=row["path"], sha256=row["sha256"], size_bytes=row["size_bytes"]) for row in rows
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"the manifest is not a list of files: {type(error).__name__}") from None


async def local_files(blobs: Blobs, source: Source) -> list[LocalFile]:
    """Raises FileNotFoundError for the first file that the blob store has not."""
    return [
        LocalFile(
            path=file.path,
            local=await blobs.local(file.sha256),
            sha256=file.sha256,
            size_bytes=file.size_bytes,
        )
        for file in await source_files(blobs, source)
    ]
