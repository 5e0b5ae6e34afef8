"""From an item to a document: which one it is, what of it becomes a chunk, and how far it may go."""

import tracemalloc
from dataclasses import replace

import pytest

from eventlog.events import Attachment, AttachmentStatus, ChunkKind, Creator, Part, Remark, Tag
from eventlog.ids import ChunkId, concept_id, document_id, embedding_key, project_id
from ingest import limits
from ingest.cleaning import clean, html_to_text, one_line
from ingest.concepts import keyphrases, mentions, name_concepts
from ingest.document import Body, build
from ingest.sources.item import (
    Item,
    bounded,
    dump_item,
    find_doi,
    find_dois,
    find_isbns,
    find_year,
    first_warnings,
    identity,
    load_item,
    merge,
)
from ingest.spool import SpooledChunk, SpooledDocument

PROJECT = project_id("Wetlands")
ITEM = Item(
    name="a.rdf: #item_1",
    title="Carbon in salt marshes",
    creators=(Creator(family="Lovelace", given="Ada"),),
    year=2020,
    abstract="We measured soil carbon in forty salt marshes of two oceans.",
    tags=(Tag(name="Blue Carbon"), Tag(name="blue  carbon", is_automatic=True), Tag(name="湿地")),
    notes=("Read again.",),
)


def built(item: Item, body: Body | None = None) -> tuple[SpooledDocument, list[SpooledChunk]]:
    document, chunks = build(
        PROJECT, document_id(PROJECT, identity(item)), item, body, source_items=(item.name,)
    )
    return document, list(chunks)


# --- identity ----------------------------------------------------------------------------------------------------


def test_a_doi_comes_before_an_isbn_a_uri_and_the_record() -> None:
    item = replace(ITEM, doi="10.1000/x", isbns=("9780306406157",), uri="http://example.org/1")
    assert identity(item) == "doi:10.1000/x"
    item = replace(item, doi=None)
    assert identity(item) == "isbn:9780306406157|carbon in salt marshes"
    item = replace(item, isbns=())
    assert identity(item) == "uri:http://example.org/1|carbon in salt marshes"
    assert identity(replace(item, uri="")).startswith("sha256:")


def test_chapters_of_one_book_are_different_documents() -> None:
    book = replace(ITEM, isbns=("9780306406157",))
    assert identity(book) != identity(replace(book, title="Another chapter"))


def test_the_record_decides_by_what_it_says_not_by_how_it_is_written() -> None:
    assert identity(ITEM) == identity(
        replace(ITEM, title="CARBON in  salt marshes", name="other.rdf: #item_9")
    )
    assert identity(ITEM) != identity(replace(ITEM, year=2021))
    assert identity(ITEM) != identity(replace(ITEM, creators=()))


@pytest.mark.parametrize(
    ("text", "doi"),
    [
        ("DOI 10.1000/ABC.d", "10.1000/abc.d"), ("https://doi.org/10.1000/abc.", "10.1000/abc"), ("(10.1000/a(1)b)", "10.1000/a(1)b"),
        ("10.1002/(SICI)1097-4571(199806)49:8<693::AID-ASI4>3.0.CO;2-O", "10.1002/(sici)1097-4571(199806)49:8<693::aid-asi4>3.0.co;2-o"), ("<a>10.1000/x</a>", "10.1000/x"), ("11.1000/x", None), ("10.1/x", None), ("", None),
    ],
)  # fmt: skip
def test_a_doi_is_found_and_normalised(text: str, doi: str | None) -> None:
    assert find_doi(text) == doi


def test_every_doi_of_a_text_is_found_once() -> None:
    assert find_dois("doi:10.1000/a, and 10.1000/B; 10.1000/A.") == ["10.1000/a", "10.1000/b"]


def test_isbns_of_both_lengths_are_one_and_wrong_ones_are_none() -> None:
    assert find_isbns("0-306-40615-2, 978-0-306-40615-7; 978-0-306-40615-8 080442957X") == (
        "9780306406157",
        "9780804429573",
    )


def test_a_year_is_four_digits_alone() -> None:
    assert [find_year(text) for text in ("c1999", "19990", "20201345", "0999", "2150", "MCMXC 1990")] == [
        1999,
        None,
        None,
        None,
        None,
        1990,
    ]


def test_of_merged_items_the_first_that_says_something_is_believed_and_lists_are_united() -> None:
    other = replace(
        ITEM,
        name="b",
        title="Other",
        venue="J",
        tags=(Tag(name="x"), Tag(name="湿地", is_automatic=True)),
        notes=("More.",),
    )
    merged = merge([ITEM, other])
    assert (merged.title, merged.venue, merged.notes) == (ITEM.title, "J", ("Read again.", "More."))
    assert set(merged.tags) == {*ITEM.tags, Tag(name="x")}


def test_an_item_is_read_back_as_it_was_written() -> None:
    item = replace(
        ITEM,
        attachments=(Attachment(path="a", status=AttachmentStatus.FOUND),),
        bodies=("a",),
        doi="10.1000/x",
    )
    assert load_item(dump_item(item)) == item


def test_what_is_cut_is_said_by_name() -> None:
    item = replace(
        ITEM,
        creators=ITEM.creators * (limits.CREATORS_MAX + 1),
        notes=("x" * (limits.NOTE_CHARACTERS_MAX + 1),),
        abstract="x" * (limits.ABSTRACT_CHARACTERS_MAX + 1),
        collections=tuple(f"c{n}" for n in range(limits.COLLECTIONS_MAX + 1)),
    )
    cut = bounded(item)
    assert len(cut.creators) == limits.CREATORS_MAX
    assert len(cut.abstract) == limits.ABSTRACT_CHARACTERS_MAX
    assert [one.code for one in cut.warnings] == [
        "creators_cut",
        "collections_cut",
        "abstract_cut",
        "note_cut",
    ]


def test_of_too_many_warnings_the_last_says_how_many_more_there_are() -> None:
    warnings = tuple(Remark(code="attachment_missing", subject=str(n)) for n in range(80))
    cut = bounded(replace(ITEM, warnings=warnings)).warnings
    assert len(cut) == limits.WARNINGS_PER_DOCUMENT_MAX
    assert (cut[-1].code, cut[-1].message) == ("warnings_cut", "and 31 more")
    assert first_warnings(iter(warnings), "", 80) == warnings
    assert first_warnings(iter(warnings), "", 79)[-2:] == (
        warnings[77],
        Remark(code="warnings_cut", message="and 2 more"),
    )


# --- chunks ------------------------------------------------------------------------------------------------------


def test_title_abstract_notes_concepts_and_passages_are_chunks_of_their_own_kinds_in_order() -> None:
    document, chunks = built(ITEM, Body(text="1 Introduction\nMarshes.\n\n2 Results\nDeep."))
    kinds = [chunk.kind for chunk in chunks]
    assert kinds[:3] == [ChunkKind.TITLE, ChunkKind.ABSTRACT, ChunkKind.NOTE]
    assert kinds[-1] is ChunkKind.PASSAGE
    assert [chunk.chunk_index for chunk in chunks] == list(range(len(chunks)))
    bibliographic, full_text = document.parts
    assert bibliographic.chunk_ids + full_text.chunk_ids == tuple(chunk.chunk_id for chunk in chunks)
    assert {chunk.part for chunk in chunks if chunk.kind is ChunkKind.PASSAGE} == {Part.FULL_TEXT}


def test_a_passage_knows_its_section_and_the_one_above_it() -> None:
    sentence = "Forty marshes of two oceans were visited. "
    _, chunks = built(ITEM, Body(text=f"2 Methods\n{sentence * 3}\n2.1 Participants\n{sentence * 3}"))
    passages = [chunk for chunk in chunks if chunk.kind is ChunkKind.PASSAGE]
    assert [(one.section, one.parent_section) for one in passages] == [
        ("Methods", None),
        ("Participants", "Methods"),
    ]


def test_a_heading_without_a_text_of_its_own_begins_the_next_passage() -> None:
    body = (
        "2 Methods\n\n2.1 Participants\nForty marshes of two oceans were visited by three people.\n3 Results"
    )
    _, chunks = built(ITEM, Body(text=body))
    passages = [chunk for chunk in chunks if chunk.kind is ChunkKind.PASSAGE]
    assert [one.section for one in passages] == ["Participants", "Results"]
    assert "".join(one.text for one in passages) == body
    assert all(body[one.char_start : one.char_end] == one.text for one in passages)


def test_a_title_longer_than_a_chunk_is_several() -> None:
    _, chunks = built(replace(ITEM, title="long title " * 400))
    titles = [chunk for chunk in chunks if chunk.kind is ChunkKind.TITLE]
    assert len(titles) > 1
    assert all(len(one.text.encode()) <= limits.CHUNK_BYTES for one in titles)


def test_a_document_without_a_file_has_no_full_text_part() -> None:
    document, _ = built(ITEM)
    assert [part.part for part in document.parts] == [Part.BIBLIOGRAPHIC]


def test_the_same_text_has_the_same_key_in_every_document_and_another_chunk_id() -> None:
    _, one = built(ITEM)
    _, other = built(replace(ITEM, doi="10.1000/other"))
    assert one[0].embedding_key == other[0].embedding_key == embedding_key(PROJECT, ITEM.title)
    assert one[0].chunk_id != other[0].chunk_id


def test_a_text_that_is_abstract_and_passage_is_two_chunks() -> None:
    _, chunks = built(replace(ITEM, title="", abstract="One sentence.", tags=()), Body(text="One sentence."))
    alike = [one for one in chunks if one.text == "One sentence."]
    assert [one.part for one in alike] == [Part.BIBLIOGRAPHIC, Part.FULL_TEXT]
    assert alike[0].chunk_id != alike[1].chunk_id


def test_a_note_more_renames_no_passage() -> None:
    def passages(item: Item) -> list[ChunkId]:
        _, chunks = built(item, Body(text="A text.\n\n" * 500))
        return [one.chunk_id for one in chunks if one.part is Part.FULL_TEXT]

    assert len(passages(ITEM)) > 1
    item = replace(ITEM, doi="10.1000/x")
    assert passages(replace(item, notes=(*item.notes, "Again."))) == passages(item)


def test_the_content_hash_follows_the_content_and_not_the_export() -> None:
    document, _ = built(ITEM)
    assert built(replace(ITEM, name="another export"))[0].content_hash == document.content_hash
    assert built(replace(ITEM, pages="1-2"))[0].content_hash != document.content_hash
    assert built(ITEM, Body(text="A text."))[0].content_hash != document.content_hash


def test_damaged_pages_and_files_that_were_not_read_are_named() -> None:
    item = replace(ITEM, bodies=("a.pdf", "b.pdf", "c.pdf"))
    body = Body(text="A text.", page_starts=(0,), unread_pages=(3, 7))
    document, _ = build(
        PROJECT,
        document_id(PROJECT, "x"),
        item,
        body,
        source_items=(),
        body_path="b.pdf",
        unreadable=frozenset({"a.pdf"}),
    )
    assert [(one.code, one.subject) for one in document.warnings] == [
        ("pages_not_read", "b.pdf"),
        ("attachment_not_read", "c.pdf"),
    ]


# --- concepts ----------------------------------------------------------------------------------------------------


def test_tags_and_keyphrases_are_concepts_and_one_name_is_one_concept() -> None:
    document, chunks = built(ITEM)
    names = [one.name for one in document.concepts]
    assert names[:2] == ["Blue Carbon", "湿地"]
    assert "salt marshes" in names
    assert [one.text for one in chunks if one.kind is ChunkKind.CONCEPT] == [
        name.casefold() for name in names
    ]
    assert document.concepts[0].concept_id == concept_id(PROJECT, "BLUE carbon")
    assert all(0 < one.score <= 1 for one in document.concepts)


def test_keyphrases_are_runs_of_words_that_say_something() -> None:
    found = [
        one.key
        for one in keyphrases(
            "Carbon in salt marshes", "The salt marshes of the two oceans are older than the land."
        )
    ]
    assert "salt marshes" in found
    assert not {"the", "of the", "are older"} & set(found)
    assert keyphrases("", "") == []


def test_a_concept_is_mentioned_at_word_boundaries_and_anywhere_in_scripts_without_them() -> None:
    texts = [
        (0, "Salt  Marsh soils"),
        (1, "basalt marshes"),
        (2, "中国湿地研究"),
        (3, "(salt marsh)"),
        (4, "salt marshsalt marsh, salt marsh"),
    ]
    assert mentions(["salt marsh", "湿地研究", "xy"], texts) == {
        "salt marsh": (0, 3, 4),
        "湿地研究": (2,),
        "xy": (),
    }


def test_names_are_no_longer_than_a_name() -> None:
    found = name_concepts(["x" * 500], "", "")
    assert [len(one.key) for one in found] == [80]


# --- texts -------------------------------------------------------------------------------------------------------


def test_text_is_kept_but_for_what_no_text_holds() -> None:
    assert clean("a\r\nb\rc\x0cd\x00\ud800\x1b\ufffee\u0301 \u200f\u05d0") == "a\nb\nc\nd\u00e9 \u200f\u05d0"
    assert one_line("  a \n\t b  ", 3) == "a b"


def test_what_is_ascii_is_cleaned_as_it_is_beside_other_letters():
    for code in range(128):
        text = f"a{chr(code)}b"
        assert clean(f"{text}\u00e9") == f"{clean(text)}\u00e9"
    assert clean("\x00\t\x7f\n\x1b") == "\t\n"


def test_a_note_is_its_text_without_its_markup() -> None:
    note = "<h1>One</h1><p>a &amp; b<br/>c</p><style>x{}</style><!-- no --><script>alert(1)</script><ul><li>d</li></ul> 1 < 2"
    assert html_to_text(note) == "One\na & b\nc\nd\n1 < 2"
    assert html_to_text("&lt;script&gt;") == "<script>"
    assert html_to_text("a<SCRIPT>x</Script >b<!-- <p> -- >c-->d<style>e") == "abde"


@pytest.mark.parametrize(
    "markup", ["<script>", "<!--", "<a", "<head" + "x" * 50, "<" + "a" * 1_000, "</p", "<p "]
)
def test_markup_that_never_ends_takes_no_longer_than_its_length(markup: str) -> None:
    """What takes minutes where a search begins anew at each opening; the suite's time limit would end it."""
    assert len(html_to_text(markup * (1_000_000 // len(markup)) + "end")) <= 1_000_003


@pytest.mark.parametrize("line", ["a line of it\n", "a line without an end ", "水は流れる。"])
def test_a_body_is_held_once_whatever_its_lines(line: str) -> None:
    body = Body(text=line * (2_000_000 // len(line)))
    tracemalloc.start()
    try:
        _, chunks = build(PROJECT, document_id(PROJECT, identity(ITEM)), ITEM, body, source_items=())
        count = sum(1 for _ in chunks)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count > 1_000
    assert peak < 700 * count, "a chunk's ids and place; its text alone has from 1,200 to 1,800 bytes"
