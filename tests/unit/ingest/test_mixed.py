"""A folder of all kinds: each file is read as what it is, doubles become one document, and bad files cost themselves."""

from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_by_child, read_now, validated
from tests.unit.ingest.mixed_library import FILES, MERGED, REJECTED, TITLES
from tests.unit.ingest.pdf_makers import TITLE

from eventlog.events import ChunkKind, Part, SourceKind


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Read:
    return read_now(tmp_path_factory.mktemp("mixed"), FILES)


def test_forty_files_of_all_kinds_are_one_library(mixed: Read) -> None:
    assert len(FILES) == 40
    assert mixed.summary.kind is SourceKind.MIXED
    assert {one.title for one in mixed.documents.values()} == TITLES
    assert len(mixed.documents) == len(TITLES)


def test_bad_files_of_each_kind_are_rejected_by_code_among_good_ones(mixed: Read) -> None:
    assert {item: one.reason for item, one in mixed.rejected.items()} == REJECTED


def test_doubles_of_two_kinds_are_one_document_with_both_parts_counted_once_and_named(mixed: Read) -> None:
    assert {one.subject for one in mixed.warnings if one.code == "item_merged"} == MERGED
    assert mixed.summary.merged_count == len(MERGED)
    assert mixed.summary.document_count == len(TITLES)
    document = next(one for one in mixed.documents.values() if one.title == TITLE)
    assert document.source_items == ("zotero.ris: line 9", "tidal.pdf")
    assert document.year == 1999
    assert [one.part for one in document.parts] == [Part.BIBLIOGRAPHIC, Part.FULL_TEXT]
    assert all(one.chunk_ids for one in document.parts)


def test_what_two_exports_say_of_one_work_is_united(mixed: Read) -> None:
    document = next(one for one in mixed.documents.values() if one.title.startswith("Sediment accretion"))
    assert document.doi == "10.1000/accretion.1"
    assert [tag.name for tag in document.tags] == ["mud", "accretion", "tide"]
    assert document.collections == ("Coasts",)
    assert [one.path for one in document.attachments] == ["Mueller2020 - Sediment accretion.pdf"]


def test_passages_say_on_which_page_and_in_which_section_they_stand(mixed: Read) -> None:
    for item, page, section in (
        ("draft.docx", None, "Results"),
        ("birds.epub", None, "Waders"),
        ("lagoon.pdf", 1, ""),
    ):
        passages = [one for one in mixed.chunks[item] if one.kind is ChunkKind.PASSAGE]
        assert (passages[-1].page_first, passages[-1].section in (section, "Introduction", "Methods")) == (
            page,
            True,
        )


async def test_the_limited_child_reads_the_same(mixed: Read, tmp_path: Path) -> None:
    read = await read_by_child(tmp_path, FILES)
    assert read.documents == mixed.documents
    assert {item: one.reason for item, one in read.rejected.items()} == REJECTED


def test_a_validation_of_it_says_what_is_in_it_and_what_is_wrong(tmp_path: Path) -> None:
    found = validated(tmp_path, FILES)
    assert found.kind is SourceKind.MIXED
    assert found.items == len(TITLES) + len(MERGED)
    said = {one.subject: one.code for one in reversed(found.problems)}  # rejections come first
    assert {item: said[item] for item in REJECTED} == {item: str(one) for item, one in REJECTED.items()}
    assert not any(one.is_fatal for one in found.problems)
