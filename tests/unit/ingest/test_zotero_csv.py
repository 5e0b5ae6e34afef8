"""Zotero's CSV, as Zotero writes it and as spreadsheets save it again."""

import csv
import io
from pathlib import Path

import pytest
from tests.unit.ingest.libraries import read_now
from tests.unit.ingest.pdf_makers import SAYS, TEXT
from tests.unit.ingest.raw_pdf import a_page

from eventlog.events import AttachmentStatus, ChunkKind, CreatorRole, DocumentRejectionReason, SourceKind
from ingest.parser import ScanFailed

PDF = a_page(TEXT).classic()
ROW = {
    "Key": "ABCD1234", "Item Type": "journalArticle", "Publication Year": "2020", "Author": "Šķēle, Zoë; World Marsh Council",
    "Title": 'Carbon in "salt"\nmarshes', "Publication Title": "Journal of Marshes", "ISBN": "", "ISSN": "1234-5679",
    "DOI": "", "Url": "https://example.org/marsh", "Abstract Note": "We <b>measured</b>.", "Date": "2020-03-15",
    "Date Added": "2021-01-01 10:00:00", "Pages": "101-120", "Issue": "3", "Volume": "12", "Publisher": "Marsh Press",
    "Language": "en", "Extra": "DOI: 10.1000/Marsh.7", "Notes": "<p>Read again</p>",
    "File Attachments": r"C:\Users\me\Zotero\storage\KEY1\Skele 2020.pdf; /home/me/storage/KEY9/gone.pdf",
    "Link Attachments": "https://example.org/full", "Manual Tags": "carbon; salt marsh", "Automatic Tags": "Wetlands",
    "Editor": "Zeller, Ed",
}  # fmt: skip


def table(*rows: dict[str, str], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(ROW), delimiter=delimiter, quoting=csv.QUOTE_ALL, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def test_every_field_of_a_row_stands_in_its_document(tmp_path: Path) -> None:
    files = {"My Library.csv": table(ROW).encode("utf-8-sig"), "KEY1/Skele 2020.pdf": PDF}
    found = read_now(tmp_path, files)
    fields = {
        "item_type": "journalArticle", "title": 'Carbon in "salt" marshes', "year": 2020, "date": "2020-03-15",
        "doi": "10.1000/marsh.7", "issns": ("1234-5679",), "url": "https://example.org/marsh", "venue": "Journal of Marshes",
        "volume": "12", "issue": "3", "pages": "101-120", "publisher": "Marsh Press", "language": "en",
        "abstract": "We measured.", "notes": ("Read again", "DOI: 10.1000/Marsh.7"),
        "source_items": ("My Library.csv: line 2 (ABCD1234)",),
    }  # fmt: skip
    assert found.summary.kind is SourceKind.ZOTERO_CSV
    assert {name: getattr(found.document, name) for name in fields} == fields
    assert [(tag.name, tag.is_automatic) for tag in found.document.tags] == [
        ("carbon", False), ("salt marsh", False), ("Wetlands", True),
    ]  # fmt: skip
    assert [(one.family, one.given, one.role) for one in found.document.creators] == [
        ("Šķēle", "Zoë", CreatorRole.AUTHOR),
        ("World Marsh Council", "", CreatorRole.AUTHOR),
        ("Zeller", "Ed", CreatorRole.EDITOR),
    ]
    assert [one.status for one in found.document.attachments] == [
        AttachmentStatus.FOUND, AttachmentStatus.MISSING, AttachmentStatus.LINK,
    ]  # fmt: skip
    assert any(SAYS in text for text in found.texts("My Library.csv: line 2 (ABCD1234)", ChunkKind.PASSAGE))
    assert [one.code for one in found.document.warnings] == ["attachment_missing"]
    assert [(one.code, one.subject) for one in found.warnings] == [("field_not_kept", "date added")]


def test_a_row_is_named_by_the_line_on_which_it_begins(tmp_path: Path) -> None:
    rows = (
        {**ROW, "Key": "A"},
        {"Key": "B", "Item Type": "book"},
        {"Key": "C", "Title": "C", "Item Type": "book"},
    )
    found = read_now(tmp_path, {"a.csv": table(*rows).encode()})
    assert list(found.documents) == ["a.csv: line 2 (A)", "a.csv: line 5 (C)"]
    assert {item: one.reason for item, one in found.rejected.items()} == {
        "a.csv: line 4 (B)": DocumentRejectionReason.ITEM_EMPTY
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_spreadsheet_may_have_saved_it_again(tmp_path: Path, delimiter: str, encoding: str) -> None:
    row = {"Key": "A", "Item Type": "book", "Title": "Käse", "Author": "Doe, J.; Roe, R."}
    found = read_now(tmp_path, {"a.csv": table(row, delimiter=delimiter).encode(encoding)})
    assert found.summary.kind is SourceKind.ZOTERO_CSV
    assert (found.document.title, len(found.document.creators)) == ("Käse", 2)


def test_rows_before_the_damage_are_imported_and_the_damage_is_named(tmp_path: Path) -> None:
    text = table({"Key": "A", "Title": "A"}) + '"B","book","never closed\n'
    found = read_now(tmp_path, {"a.csv": text.encode()})
    assert [one.title for one in found.documents.values()] == ["A"]
    assert {item: one.reason for item, one in found.rejected.items()} == {
        "a.csv: after row 1": DocumentRejectionReason.FILE_DAMAGED
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "csv_unexpected"),
        (b"a,b\n1,2\n", "csv_unexpected"),
        (table().encode(), "csv_without_items"),
        (b'"Key","Item Type","Title"\n"' + b"x" * 9_000_000, "csv_damaged"),
        (b"\x00" * 1_000, "csv_unexpected"),
    ],
)
def test_a_table_of_which_nothing_can_be_used_is_refused(tmp_path: Path, data: bytes, code: str) -> None:
    with pytest.raises(ScanFailed) as failed:
        read_now(tmp_path, {"a.csv": data}, SourceKind.ZOTERO_CSV)
    assert failed.value.code == code


def test_another_table_is_no_export_and_is_rejected_by_name(tmp_path: Path) -> None:
    found = read_now(tmp_path, {"a.csv": b"a,b\n1,2\n", "b.txt": b"A text that is well"})
    assert {item: one.reason for item, one in found.rejected.items()} == {
        "a.csv": DocumentRejectionReason.FILE_UNSUPPORTED
    }
