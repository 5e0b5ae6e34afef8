"""CSL-JSON, ScholaRAG folders and single texts: what they say stands in the documents."""

import json
from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_now, validated
from tests.unit.ingest.pdf_makers import SAYS, TEXT
from tests.unit.ingest.raw_pdf import a_page

from eventlog.events import (
    AttachmentStatus,
    ChunkKind,
    CreatorRole,
    DocumentRejectionReason,
    Remark,
    SourceKind,
)
from ingest import limits
from ingest.parser import ScanFailed

ARTICLE = {
    "id": "skele2020", "type": "article-journal", "title": "Carbon in <i>salt</i> marshes", "DOI": "10.1000/Marsh.7",
    "ISSN": ["1234-5679", "2049-3630"], "ISBN": "0-306-40615-2", "URL": "https://doi.org/10.1000/Marsh.7",
    "container-title": ["Journal of Marshes"], "volume": 12, "issue": "3", "page": "101-120",
    "publisher": "Marsh Press", "language": "en", "abstract": "<jats:p>We measured carbon.</jats:p>",
    "keyword": "carbon, salt marsh", "note": "Read again", "issued": {"date-parts": [[2020, 3]]},
    "author": [
        {"family": "Berg", "given": "Anna", "non-dropping-particle": "van den", "ORCID": "https://orcid.org/0000-0001-2345-6789"},
        {"literal": "World Marsh Council"},
    ],
    "editor": [{"family": "Zeller", "given": "Ed"}], "archive": "somewhere",
}  # fmt: skip


def csl(*items: object) -> bytes:
    return json.dumps(items, ensure_ascii=False).encode()


def test_every_field_of_a_csl_item_stands_in_its_document(tmp_path: Path) -> None:
    read = read_now(tmp_path, {"library.json": csl(ARTICLE)})
    fields = {
        "item_type": "article-journal", "title": "Carbon in salt marshes", "year": 2020, "date": "2020-03",
        "doi": "10.1000/marsh.7", "isbns": ("9780306406157",), "issns": ("1234-5679", "2049-3630"),
        "url": "https://doi.org/10.1000/Marsh.7", "venue": "Journal of Marshes", "volume": "12", "issue": "3",
        "pages": "101-120", "publisher": "Marsh Press", "language": "en", "abstract": "We measured carbon.",
        "notes": ("Read again",), "source_items": ("library.json: skele2020",),
    }  # fmt: skip
    assert read.summary.kind is SourceKind.CSL_JSON
    assert {name: getattr(read.document, name) for name in fields} == fields
    assert [tag.name for tag in read.document.tags] == ["carbon", "salt marsh"]
    assert [(one.family, one.given, one.role, one.orcid) for one in read.document.creators] == [
        ("van den Berg", "Anna", CreatorRole.AUTHOR, "0000-0001-2345-6789"),
        ("World Marsh Council", "", CreatorRole.AUTHOR, ""),
        ("Zeller", "Ed", CreatorRole.EDITOR, ""),
    ]
    assert [(one.code, one.subject) for one in read.warnings] == [("field_not_kept", "archive")]


@pytest.mark.parametrize(
    ("issued", "year"),
    [
        ({"date-parts": [["1999", 1]]}, 1999), ({"raw": "ca. 1850"}, 1850), ({"literal": "Spring 2001"}, 2001),
        ("2003-04", 2003), ({"date-parts": [[]]}, None), ({"date-parts": "x"}, None), ([], None), (None, None),
    ],
)  # fmt: skip
def test_a_csl_date_may_have_any_form(tmp_path: Path, issued: object, year: int | None) -> None:
    assert read_now(tmp_path, {"a.json": csl({"title": "A", "issued": issued})}).document.year == year


def test_what_is_no_csl_item_is_rejected_by_name_and_its_neighbours_go_through(tmp_path: Path) -> None:
    odd = [
        7,
        None,
        [],
        {"id": "x"},
        {"title": {"a": 1}, "author": "Doe, J."},
        {"title": 5, "author": [{}, 3, {"family": ""}]},
    ]
    read = read_now(tmp_path, {"a.json": csl({"title": "A"}, *odd)})
    assert {name: one.reason for name, one in read.rejected.items()} == {
        "a.json: item 2": DocumentRejectionReason.ITEM_INVALID,
        "a.json: item 3": DocumentRejectionReason.ITEM_INVALID,
        "a.json: item 4": DocumentRejectionReason.ITEM_INVALID,
        "a.json: x": DocumentRejectionReason.ITEM_EMPTY,
    }
    assert [one.title for one in read.documents.values()] == ["A", "", "5"]
    assert read.summary.item_count == 7


def test_what_stands_before_the_damage_of_a_list_is_imported_and_the_damage_is_named(tmp_path: Path) -> None:
    read = read_now(tmp_path, {"a.json": csl({"title": "A"}, {"title": "B"}, {"title": "C"})[:-10]})
    assert [one.title for one in read.documents.values()] == ["A", "B"]
    assert {name: one.reason for name, one in read.rejected.items()} == {
        "a.json: after item 2": DocumentRejectionReason.FILE_DAMAGED
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"[" * 100_000, "json_nested"),
        (b"[]", "json_without_items"),
        (b'"a"', "json_unexpected"),
        (b'[{"title": "' + b"x" * (limits.ITEM_CHARACTERS_MAX + 200_000) + b'"}]', "json_damaged"),
    ],
)
def test_a_list_of_which_nothing_can_be_used_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(ScanFailed) as failed:
        read_now(tmp_path, {"a.json": data}, SourceKind.CSL_JSON)
    assert failed.value.code == code


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("files/1/a.pdf", "lib/files/1/a.pdf"),
        ("/home/me/Zotero/storage/1/a.pdf", "lib/files/1/a.pdf"),
        (r"C:\Users\me\storage\3\loose.pdf", "lib/loose.pdf"),
        ("/home/me/Zotero/storage/9/a.pdf", None),
    ],
)
def test_an_item_s_pdf_is_found_by_its_folder_or_beside_the_list_never_by_its_name_alone(
    tmp_path: Path, named: str, path: str | None
) -> None:
    pdf = a_page(TEXT).classic()
    files = {
        "lib/a.json": csl({"id": "a", "title": "A", "file": named}),
        "lib/files/1/a.pdf": pdf,
        "lib/loose.pdf": pdf,
    }
    document = read_now(tmp_path, files).documents["lib/a.json: a"]
    found, status = (path, AttachmentStatus.FOUND) if path else (named, AttachmentStatus.MISSING)
    assert [(one.path, one.status) for one in document.attachments] == [(found, status)]
    assert [one.code for one in document.warnings] == ([] if path else ["attachment_missing"])


@pytest.mark.parametrize("beyond", range(-3, 4))
def test_a_list_may_end_anywhere_in_what_is_read_at_once(tmp_path: Path, beyond: int) -> None:
    padding = 64 * 1024 + beyond - len(csl({"title": ""}, {"title": "B"}))
    read = read_now(
        tmp_path, {"a.json": csl({"title": "x" * padding}, {"title": "B"}) + b"\n"}, SourceKind.CSL_JSON
    )
    assert [one.title[:1] for one in read.documents.values()] == ["x", "B"]
    assert not read.rejected


def test_a_single_item_is_a_list_of_one(tmp_path: Path) -> None:
    assert read_now(tmp_path, {"a.json": json.dumps(ARTICLE).encode()}).document.year == 2020


def test_text_of_any_script_and_lone_surrogates_and_nul_are_imported(tmp_path: Path) -> None:
    title = '"\\u0643\\u062a\\u0627\\u0628 \\ud800 \\u0000 e\\u0301"'
    read = read_now(tmp_path, {"a.json": b'[{"title": %b, "note": %b}]' % (title.encode(), title.encode())})
    assert read.document.title == "كتاب \u00e9"
    assert read.document.notes == ("كتاب \u00e9",)


# --- ScholaRAG ---------------------------------------------------------------------------------------------------

TABLE = """paperId,title,authors,year,doi,decision,abstract,journal,keywords,pdf_path
p1,Tidal carbon,"Lovelace, Ada; Hopper, Grace",2019,https://doi.org/10.1000/A,include,Measured.,J. Marsh,carbon; marsh,
p2,Not about marshes,A. Nobody,2018,,Auto-Exclude,,,,
p3,Salt marsh soils and what they hold for us,"Ada Lovelace, Grace Hopper",2020,,,,,,pdfs/gone.pdf
p4,,,,,include,,,,
"""
PROJECT_FILE = b"project: {}\nsearch: {}\nprisma: {}\n"
FOLDER: dict[str, bytes | Path] = {
    "review/config.yaml": b"project: {name: Marshes}\nsearch:\n  query: (marsh* AND *carbon) & soil\nprisma: {}\n",
    "review/data/02_screening/relevant_papers.csv": TABLE.encode(),
    "review/data/02_screening/all_screened_papers.csv": b"title\nanother\n",
    "review/data/03_pdfs/p1.pdf": a_page(TEXT).classic(),
    "review/data/03_pdfs/unlisted.pdf": a_page(TEXT.replace("Tidal wetlands", "Mangrove forests")).classic(),
    "review/rag/chroma_db/index.bin": b"\x00",
    "review/README.md": b"How this review is run",
}


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Read:
    return read_now(tmp_path_factory.mktemp("review"), FOLDER)


def test_a_folder_gives_the_papers_that_screening_kept(review: Read) -> None:
    assert review.summary.kind is SourceKind.SCHOLARAG
    first, second, lone = review.documents.values()
    assert (first.title, first.year, first.doi, first.venue) == (
        "Tidal carbon",
        2019,
        "10.1000/a",
        "J. Marsh",
    )
    assert [(one.family, one.given) for one in first.creators] == [("Lovelace", "Ada"), ("Hopper", "Grace")]
    assert [(one.family, one.given) for one in second.creators] == [("Lovelace", "Ada"), ("Hopper", "Grace")]
    assert [tag.name for tag in first.tags] == ["carbon", "marsh"]
    assert lone.title.startswith("Mangrove forests")


def test_a_paper_s_pdf_is_found_by_its_id(review: Read) -> None:
    name = next(iter(review.documents))
    assert any(SAYS in text for text in review.texts(name, ChunkKind.PASSAGE))
    second = list(review.documents.values())[1]
    assert [one.status for one in second.attachments] == [AttachmentStatus.MISSING]
    assert [one.code for one in second.warnings] == ["attachment_missing"]


def test_what_screening_left_out_and_what_says_nothing_is_named(review: Read) -> None:
    assert [one.subject for one in review.warnings if one.code == "screened_out"] == [
        "review/data/02_screening/relevant_papers.csv: row 2"
    ]
    assert [one.subject for one in review.warnings if one.code == "files_not_read"] == ["review/README.md"]
    assert {name: one.reason for name, one in review.rejected.items()} == {
        "review/data/02_screening/relevant_papers.csv: row 4": DocumentRejectionReason.ITEM_EMPTY
    }


def test_a_column_that_no_document_holds_is_named(tmp_path: Path) -> None:
    files = {"config.yaml": PROJECT_FILE, "relevant_papers.csv": b"title,citations,year\nA,7,2020\n"}
    assert [(one.code, one.subject) for one in read_now(tmp_path, files).warnings] == [
        ("field_not_kept", "citations")
    ]


def test_of_two_columns_of_one_name_the_last_is_read_and_that_is_said(tmp_path: Path) -> None:
    table = b"title,Year,year \nA,1920,2020\n"
    read = read_now(tmp_path, {"config.yaml": b"project: {}\n", "relevant_papers.csv": table})
    assert read.document.year == 2020
    assert ("column_repeated", "year") in [(one.code, one.subject) for one in read.warnings]


def test_cells_that_stand_under_no_column_are_named(tmp_path: Path) -> None:
    table = b"title,year\nA,2020,,\nB,2021,more, ,and more\nC\n"
    read = read_now(tmp_path, {"config.yaml": b"project: {}\n", "relevant_papers.csv": table})
    assert [one.title for one in read.documents.values()] == ["A", "B", "C"]
    assert [one for document in read.documents.values() for one in document.warnings] == [
        Remark(
            code="cells_not_kept",
            subject="relevant_papers.csv: row 2",
            message="2 cells beyond the last column were left out, “more” first",
        )
    ]


@pytest.mark.parametrize("damage", [b'"C,2021\n', b'"C"x,2021\n'])
def test_rows_before_the_damage_of_a_table_are_imported_and_the_damage_is_named(
    tmp_path: Path, damage: bytes
) -> None:
    table = b"title,year\nA,2020\nB,2020\n" + damage + b"D,2022\n"
    read = read_now(tmp_path, {"config.yaml": b"project: {}\n", "relevant_papers.csv": table})
    assert [one.title for one in read.documents.values()] == ["A", "B"]
    assert {name: one.reason for name, one in read.rejected.items()} == {
        "relevant_papers.csv: after row 2": DocumentRejectionReason.FILE_DAMAGED
    }


def test_a_folder_has_what_the_replaced_system_asked_for(tmp_path: Path) -> None:
    """BASELINE.md section 3: the project file's parts, the marker, both folders of tables, PDFs, the vectors, decisions, ids."""
    table = (
        'title,authors,openalex_id,doi,decision\nA,"Doe, J.; Roe, R.",https://openalex.org/W1,10.1000/a,include\n'
        'B,"Jane Doe, Rick Roe",,,Maybe\n'
        + "".join(
            f"{word},,,,{word}\n"
            for word in ("No", "EXCLUDE", "excluded", "reject", "Rejected", "auto-exclude")
        )
    )
    files = {
        "r/config.yaml": b"project: {}\nsearch: {}\n",
        "r/.scholarag": b"",
        "r/data/01_identification/deduplicated.csv": table.encode(),
        "r/data/03_pdfs/W1.pdf": a_page(TEXT).classic(),
        "r/data/04_rag/chroma_db/chroma.sqlite3": b"x",
        "r/data/04_rag/chroma_db/0/data.bin": b"x",
    }
    read = read_now(tmp_path, files)
    first, second = read.documents.values()
    assert (first.title, first.doi, [one.status for one in first.attachments]) == (
        "A",
        "10.1000/a",
        [AttachmentStatus.FOUND],
    )
    assert [one.family for one in (*first.creators, *second.creators)] == ["Doe", "Roe", "Doe", "Roe"]
    assert not read.rejected
    codes = [one.code for one in read.warnings]
    assert codes.count("screened_out") == 6
    assert [
        (one.code, one.subject)
        for one in read.warnings
        if one.code in {"config_incomplete", "vectors_not_read"}
    ] == [
        ("config_incomplete", "r/config.yaml"),
        ("vectors_not_read", "r/"),
    ]


def test_a_review_within_a_larger_folder_takes_its_own_files_alone(tmp_path: Path) -> None:
    files = {
        **FOLDER,
        "refs.bib": b"@book{a, title={A book}}",
        "other.txt": b"A text that is well",
        "data.csv": b"a,b\n1,2\n",
    }
    read = read_now(tmp_path, files)
    assert read.summary.kind is SourceKind.MIXED
    assert {"refs.bib: line 1 (a)", "other.txt"} <= read.documents.keys()
    assert read.rejected["data.csv"].reason is DocumentRejectionReason.FILE_UNSUPPORTED


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"config.yaml": b"a: &x 1\nb: *x\n"}, "config_damaged"),
        ({"config.yaml": b"a: [1\n"}, "config_damaged"),
        ({"config.yaml": b"just words"}, "config_damaged"),
        ({"config.yaml": b"a: !!python/object/apply:os.system [id]\n"}, "config_damaged"),
        ({"relevant_papers.csv": b""}, "papers_empty"),
        ({"relevant_papers.csv": None, "other.csv": b"a\n"}, "papers_missing"),
        ({"config.yaml": None}, "config_missing"),
    ],
)
def test_a_folder_without_its_parts_is_refused(
    tmp_path: Path, files: dict[str, bytes | None], code: str
) -> None:
    whole = {"config.yaml": b"project: {}\n", "relevant_papers.csv": TABLE.encode(), **files}
    present = {path: data for path, data in whole.items() if data is not None}
    found = validated(tmp_path, present, SourceKind.SCHOLARAG)
    assert [one.code for one in found.problems if one.is_fatal] == [code]


# --- texts and what is neither -----------------------------------------------------------------------------------


def test_a_single_text_is_a_document(tmp_path: Path) -> None:
    read = read_now(
        tmp_path, {"notes/marsh.md": b"\xef\xbb\xbf# Salt marshes\n\nSee doi:10.1000/x.\n\n## Soils\n\nDeep."}
    )
    assert read.summary.kind is SourceKind.TEXT
    assert (read.document.title, read.document.doi) == ("Salt marshes", "10.1000/x")
    assert [section.title for section in read.document.sections] == ["Salt marshes", "Soils"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_a_text_is_read_in_its_encoding_and_a_guess_is_said(tmp_path: Path, encoding: str) -> None:
    read = read_now(tmp_path, {"a.txt": "Über Salzwiesen\n\nSchön.".encode(encoding)})
    assert read.document.title == "Über Salzwiesen"
    guessed = [one.subject for one in read.document.warnings if one.code == "encoding_guessed"]
    assert guessed == (["a.txt"] if encoding == "latin-1" else [])


def test_the_front_matter_of_a_markdown_file_is_what_it_says_of_itself(tmp_path: Path) -> None:
    front = """---
title: "Minutes: May"
author: [Ada Lovelace, {name: "Hopper, Grace"}]
date: 2020-05-01
tags: [minutes, '#eelgrass']
doi: 10.1000/minutes
abstract: What was said.
---
# First

We read about eelgrass.
"""
    read = read_now(tmp_path, {"a.md": front.encode()})
    document = read.document
    assert (document.title, document.year, document.doi, document.abstract) == (
        "Minutes: May", 2020, "10.1000/minutes", "What was said.",
    )  # fmt: skip
    assert [(one.family, one.given) for one in document.creators] == [
        ("Lovelace", "Ada"),
        ("Hopper", "Grace"),
    ]
    assert [tag.name for tag in document.tags] == ["minutes", "eelgrass"]
    assert [section.title for section in document.sections] == ["First"]
    assert not any("tags:" in text for text in read.texts("a.md", ChunkKind.PASSAGE))


@pytest.mark.parametrize(
    "front",
    ["---\na: &x 1\nb: *x\n---\n", "---\n[\n---\n", "---\njust words\n---\n", "---\nno end\n", "---\n---\n"],
)
def test_what_is_no_front_matter_is_text(tmp_path: Path, front: str) -> None:
    read = read_now(tmp_path, {"a.md": f"{front}\nWords that follow it.".encode()})
    assert any("Words that follow" in text for text in read.texts("a.md", ChunkKind.PASSAGE))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", DocumentRejectionReason.FILE_EMPTY),
        ("a.txt", b" \n ", DocumentRejectionReason.FILE_EMPTY),
        ("a.txt", b"\x00\x01" * 500, DocumentRejectionReason.FILE_UNSUPPORTED),
        ("a.docx", b"PK\x03\x04", DocumentRejectionReason.FILE_DAMAGED),
        ("a.odt", b"PK\x03\x04", DocumentRejectionReason.FILE_UNSUPPORTED),
    ],
)
def test_what_is_no_text_is_rejected_and_its_neighbours_go_through(
    tmp_path: Path, name: str, data: bytes, reason: DocumentRejectionReason
) -> None:
    read = read_now(tmp_path, {name: data, "b.txt": b"A text that is well"})
    assert {item: one.reason for item, one in read.rejected.items()} == {name: reason}
    assert read.documents.keys() == {"b.txt"}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (SourceKind.ZOTERO_RDF, "rdf_missing"), (SourceKind.BIBTEX, "bibtex_missing"), (SourceKind.RIS, "ris_missing"),
        (SourceKind.ZOTERO_CSV, "csv_missing"), (SourceKind.CSL_JSON, "json_missing"), (SourceKind.SCHOLARAG, "config_missing"),
    ],
)  # fmt: skip
def test_a_kind_that_is_told_and_not_there_is_said(tmp_path: Path, kind: SourceKind, code: str) -> None:
    found = validated(tmp_path, {"a.txt": b"A text that is well"}, kind)
    assert [one.code for one in found.problems] == [code]


def test_a_file_in_an_export_s_own_folder_is_an_attachment_whatever_it_is(tmp_path: Path) -> None:
    files = {
        "lib/a.bib": b"@book{a, title={A}, file={Data:files/1/inner.ris:text/plain}}",
        "lib/files/1/inner.ris": b"TY  - BOOK\nTI  - Inner\nER  - \n",
        "lib/files/2/stray.ris": b"TY  - BOOK\nTI  - Stray\nER  - \n",
        "lib/other/inner.ris": b"TY  - BOOK\nTI  - Other\nER  - \n",
    }
    read = read_now(tmp_path, files)
    assert [one.title for one in read.documents.values()] == ["A", "Other"]
    assert read.rejected["lib/files/2/stray.ris"].reason is DocumentRejectionReason.FILE_UNSUPPORTED
    assert [one.status for one in read.documents["lib/a.bib: line 1 (a)"].attachments] == [
        AttachmentStatus.UNSUPPORTED
    ]


def test_an_export_that_fails_alone_fails_the_import_and_beside_others_costs_itself(tmp_path: Path) -> None:
    broken = {"a.bib": b"@book{a, title={A", "files/1/a.txt": b"Its attachment"}
    with pytest.raises(ScanFailed) as failed:
        read_now(tmp_path, broken)
    assert failed.value.code == "bibtex_without_entries"
    read = read_now(tmp_path, {**broken, "b.txt": b"A text that is well"})
    assert read.documents.keys() == {"b.txt", "files/1/a.txt"}
    assert read.rejected["a.bib"].reason is DocumentRejectionReason.FILE_DAMAGED


def test_what_systems_leave_behind_is_no_part_of_a_library(tmp_path: Path) -> None:
    files = {
        "a.txt": b"A text",
        ".DS_Store": b"x",
        "__MACOSX/._a.txt": b"x",
        "sub/.hidden.txt": b"x",
        "Thumbs.db": b"x",
    }
    read = read_now(tmp_path, files)
    assert read.documents.keys() == {"a.txt"}
    assert not read.rejected


def test_two_texts_of_one_content_are_one_document(tmp_path: Path) -> None:
    read = read_now(tmp_path, {"a.txt": b"A text that is well", "b/a.txt": b"A text that is well"})
    assert read.document.source_items == ("a.txt", "b/a.txt")
    assert [one.code for one in read.warnings] == ["item_merged"]


def test_facts_that_are_more_than_a_record_holds_reject_their_document_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOCUMENT_LINE_BYTES_MAX", 20_000)
    read = read_now(
        tmp_path,
        {"a.json": csl({"id": "a", "title": "A", "abstract": "x" * 30_000}, {"id": "b", "title": "B"})},
    )
    assert {name: one.reason for name, one in read.rejected.items()} == {
        "a.json: a": DocumentRejectionReason.ITEM_TOO_LARGE
    }
    assert read.documents.keys() == {"a.json: b"}
