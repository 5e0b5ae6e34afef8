"""What the process of ingest keeps beside its services: here, what a validation leaves on the disk."""

import asyncio
from pathlib import Path
from typing import Any

from tests.unit.ingest.story import SOURCE

from eventlog.events import SourceKind
from ingest.app import Validator
from ingest.parser import Validation


class Files:
    async def local(self, sha256: str) -> Path:
        return Path(sha256)


class Parser:
    def __init__(self) -> None:
        self.was_there = False

    async def validate(self, *, files: Any, kind: SourceKind, out: Path) -> Validation:
        self.was_there = _write(out)
        return Validation(kind=kind, items=len(files), pdfs_found=0, pdfs_missing=0, problems=())


def _write(out: Path) -> bool:
    return out.write_text("an index") > 0


def test_what_a_killed_process_left_of_a_validation_is_gone_at_the_next_start(tmp_path: Path):
    folder = tmp_path / "validation"
    folder.mkdir()
    (folder / "scan.sqlite").write_text("half an index")
    Validator(Parser(), Files(), folder)  # type: ignore[arg-type]  # as much of them as it asks for
    assert not folder.exists()


def test_a_validation_leaves_nothing_behind(tmp_path: Path):
    parser = Parser()
    validator = Validator(parser, Files(), tmp_path / "validation")  # type: ignore[arg-type]  # as above
    assert asyncio.run(validator(SOURCE)).items == 1
    assert parser.was_there
    assert list(tmp_path.iterdir()) == []
