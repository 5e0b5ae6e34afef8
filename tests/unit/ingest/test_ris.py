"""RIS of Zotero, Mendeley, EndNote and Scopus, PubMed's and the Web of Science's formats: each field in its place."""

from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_now, validated
from tests.unit.ingest.pdf_makers import SAYS, TEXT
from tests.unit.ingest.raw_pdf import a_page

from eventlog.events import AttachmentStatus, ChunkKind, CreatorRole, DocumentRejectionReason, SourceKind
from ingest import limits
from ingest.parser import ScanFailed

PDF = a_page(TEXT).classic()
ZOTERO = """TY  - JOUR
TI  - Carbon in <i>salt</i> marshes
AU  - Šķēle, Zoë
AU  - World Marsh Council
A2  - Zeller, Ed
T2  - Journal of Marshes
J2  - J. Marsh.
AB  - We measured carbon.
IL - 6 is no tag here.
DA  - 2020/03/15/
PY  - 2020
DO  - 10.1000/Marsh.7
VL  - 12
IS  - 3
SP  - 101
EP  - 120
LA  - en
SN  - 1234-5679
UR  - https://example.org/marsh
L1  - files/12/Skele%202020.pdf
L2  - https://example.org/full
N1  - <p>Read again</p><p>and again</p>
KW  - carbon
KW  - salt marsh
Y2  - 2021/01/01/
ER  -


"""


def read(tmp_path: Path, text: str | bytes, name: str = "refs.ris", **files: bytes) -> Read:
    return read_now(tmp_path, {name: text if isinstance(text, bytes) else text.encode(), **files})


def test_every_field_of_a_reference_stands_in_its_document(tmp_path: Path) -> None:
    found = read_now(tmp_path, {"refs.ris": ZOTERO.encode(), "files/12/Skele 2020.pdf": PDF})
    fields = {
        "item_type": "journalArticle", "title": "Carbon in salt marshes", "year": 2020, "date": "2020-03-15",
        "doi": "10.1000/marsh.7", "issns": ("1234-5679",), "url": "https://example.org/marsh", "venue": "Journal of Marshes",
        "volume": "12", "issue": "3", "pages": "101-120", "language": "en",
        "abstract": "We measured carbon.\nIL - 6 is no tag here.", "notes": ("Read again\nand again",),
        "source_items": ("refs.ris: line 1",),
    }  # fmt: skip
    assert found.summary.kind is SourceKind.RIS
    assert {name: getattr(found.document, name) for name in fields} == fields
    assert [tag.name for tag in found.document.tags] == ["carbon", "salt marsh"]
    assert [(one.family, one.given, one.role) for one in found.document.creators] == [
        ("Šķēle", "Zoë", CreatorRole.AUTHOR),
        ("World Marsh Council", "", CreatorRole.AUTHOR),
        ("Zeller", "Ed", CreatorRole.EDITOR),
    ]
    assert [(one.path, one.status) for one in found.document.attachments] == [
        ("files/12/Skele 2020.pdf", AttachmentStatus.FOUND),
        ("https://example.org/full", AttachmentStatus.LINK),
    ]
    assert any(SAYS in text for text in found.texts("refs.ris: line 1", ChunkKind.PASSAGE))
    assert [(one.code, one.subject) for one in found.warnings] == [("field_not_kept", "Y2")]


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("file:///C:/Users/me/Zotero/storage/KEY1/My%20paper.pdf", "KEY1/My paper.pdf"),
        ("internal-pdf://KEY1/My paper.pdf", "KEY1/My paper.pdf"),  # EndNote
        (r"C:\Users\me\KEY1\My paper.pdf", "KEY1/My paper.pdf"),
        ("loose.pdf", "loose.pdf"),
        ("file:///home/me/other/My%20paper.pdf", None),
    ],
)
def test_a_linked_file_is_found_by_its_folder_or_beside_the_list(
    tmp_path: Path, named: str, path: str | None
) -> None:
    text = f"TY  - JOUR\nTI  - A\nL1  - {named}\nER  - \n"
    found = read_now(tmp_path, {"refs.ris": text.encode(), "KEY1/My paper.pdf": PDF, "loose.pdf": PDF})
    document = found.documents["refs.ris: line 1"]
    there = [one.path for one in document.attachments if one.status is AttachmentStatus.FOUND]
    assert there == ([path] if path else [])


def test_endnote_s_habits_are_known(tmp_path: Path) -> None:
    text = (
        "TY  - CHAP\r\nAU  - Haddad, Leila\r\nAU  - World Health Organization,\r\nPY  - 2011\r\nDA  - Mar 15\r\n"
        "TI  - Dunes\r\nT2  - The southern shore\r\nSN  - 978-0-306-40615-7\r\nSP  - 10-20\r\nKW  - dunes\r\nsand\r\nwind\r\n"
        "M3  - Edited\r\nDO  - https://doi.org/10.1000/Dunes\r\nID  - 77\r\nER  - \r\n"
    )
    found = read(tmp_path, b"\xef\xbb\xbf" + text.encode(), "My EndNote Library.txt")
    assert list(found.documents) == ["My EndNote Library.txt: line 1 (77)"]
    assert (found.document.item_type, found.document.venue) == ("bookSection", "The southern shore")
    assert [(one.family, one.given) for one in found.document.creators] == [
        ("Haddad", "Leila"),
        ("World Health Organization", ""),
    ]
    assert [tag.name for tag in found.document.tags] == ["dunes", "sand", "wind"]
    assert (found.document.pages, found.document.date, found.document.year) == ("10-20", "2011", 2011)
    assert (found.document.isbns, found.document.doi) == (("9780306406157",), "10.1000/dunes")
    assert [one.subject for one in found.warnings] == ["M3"]


def test_a_doi_in_the_place_of_the_pages_is_found(tmp_path: Path) -> None:
    text = "TY  - JOUR\nTI  - CO2 fluxes\nSP  - DOI: 10.1111/j.1757-1707.2011.01098.x\nER  -\n"
    assert read(tmp_path, text).document.doi == "10.1111/j.1757-1707.2011.01098.x"


def test_scopus_and_mendeley_s_habits_are_known(tmp_path: Path) -> None:
    text = """TY  - JOUR
T1  - Old tags of a Mendeley export
A1  - Silva, Rosa
A1  - et al.
Y1  - 2019///
JF  - Sleep Studies
JO  - Sleep Stud.
N2  - <jats:p>An abstract.</jats:p>
N1  - Export Date: 1 May 2020; Cited By: 12
C7  - e104
ER  -
TY  - CONF
T1  - Proceedings of naps
BT  - Naps
PY  - 2018/05/
ER  -"""
    first, second = read(tmp_path, text).documents.values()
    assert (first.title, first.venue, first.year, first.abstract) == (
        "Old tags of a Mendeley export", "Sleep Studies", 2019, "An abstract.",
    )  # fmt: skip
    assert (first.pages, first.notes) == ("e104", ("Export Date: 1 May 2020; Cited By: 12",))
    assert [one.code for one in first.warnings] == ["creators_incomplete"]
    assert (second.title, second.year, second.date) == ("Proceedings of naps", 2018, "2018-05")


def test_pubmed_s_format_is_read(tmp_path: Path) -> None:
    text = """
PMID- 30000001
OWN - NLM
DP  - 2019 Mar 15
TI  - Naps after learning and the
      memory of places.
PG  - 101-20
LID - 10.1000/naps.1 [doi]
AB  - BACKGROUND: We slept.
      RESULTS: We knew.
FAU - Silva, Rosa M
AU  - Silva RM
CN  - Nap Study Group
LA  - eng
PT  - Journal Article
JT  - Sleep studies
IS  - 1234-5679 (Electronic)
MH  - Humans
MH  - *Sleep/physiology
OT  - nap

PMID- 30000002
TI  - Second
"""
    first, second = read(tmp_path, text, "pubmed.nbib").documents.values()
    assert first.source_items == ("pubmed.nbib: line 2 (30000001)",)
    assert (first.title, first.doi, first.year, first.pages) == (
        "Naps after learning and the memory of places.", "10.1000/naps.1", 2019, "101-20",
    )  # fmt: skip
    assert first.abstract == "BACKGROUND: We slept. RESULTS: We knew."
    assert [(one.family, one.given) for one in first.creators] == [
        ("Silva", "Rosa M"),
        ("Nap Study Group", ""),
    ]
    assert [(tag.name, tag.is_automatic) for tag in first.tags] == [
        ("nap", False), ("Humans", True), ("Sleep", True),
    ]  # fmt: skip
    assert (first.issns, first.venue) == (("1234-5679",), "Sleep studies")
    assert second.url == "https://pubmed.ncbi.nlm.nih.gov/30000002/"


def test_the_web_of_science_s_format_is_read(tmp_path: Path) -> None:
    text = """FN Clarivate Analytics Web of Science
VR 1.0
PT J
AU Ivanov, P
   Petrova, A
AF Ivanov, Petr
   Petrova, Anna
TI Freezing soils and
   the release of methane
SO PERMAFROST REPORTS
DE soil; methane
ID ARCTIC TUNDRA
AB It thaws.
SN 1234-5679
PD MAR
PY 2016
BP 1
EP 9
DI 10.1000/thaw
UT WOS:000123
ER

EF"""
    found = read(tmp_path, "\ufeff" + text, "savedrecs.txt")
    assert found.document.source_items == ("savedrecs.txt: line 3 (WOS:000123)",)
    assert (found.document.title, found.document.pages) == (
        "Freezing soils and the release of methane",
        "1-9",
    )
    assert [(one.family, one.given) for one in found.document.creators] == [
        ("Ivanov", "Petr"),
        ("Petrova", "Anna"),
    ]
    assert [(tag.name, tag.is_automatic) for tag in found.document.tags] == [
        ("soil", False), ("methane", False), ("ARCTIC TUNDRA", True),
    ]  # fmt: skip
    assert not found.warnings


def test_an_odd_reference_costs_itself_and_its_neighbours_go_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ITEM_CHARACTERS_MAX", 1_000)
    text = (
        "A greeting\nTY  - JOUR\nTI  - First\nTY  - JOUR\nKW  - nothing else\nER  - \n"
        f"TY  - BOOK\nTI  - Large\nAB  - {'x' * 2_000}\nER  - \nTY  - BOOK\nTI  - Last\n"
    )
    found = read(tmp_path, text)
    assert [one.title for one in found.documents.values()] == ["First", "Last"]
    assert {item: one.reason for item, one in found.rejected.items()} == {
        "refs.ris: line 4": DocumentRejectionReason.ITEM_EMPTY,
        "refs.ris: line 7": DocumentRejectionReason.ITEM_TOO_LARGE,
    }
    assert [[one.code for one in document.warnings] for document in found.documents.values()] == [
        ["reference_not_ended"], ["reference_not_ended"],
    ]  # fmt: skip
    assert [one.code for one in found.warnings] == ["lines_not_read"]


def test_tags_with_one_blank_are_read_where_the_file_begins_so(tmp_path: Path) -> None:
    found = read(tmp_path, "TY - JOUR\nTI - One blank\nAU - Doe, J.\nER -\n")
    assert (found.document.title, found.document.creators[0].family) == ("One blank", "Doe")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_list_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    found = read(tmp_path, "TY  - BOOK\r\nTI  - Über Käse – ein Buch\r\nER  - \r\n".encode(encoding))  # noqa: RUF001 - a dash is meant
    assert found.document.title == "Über Käse – ein Buch"  # noqa: RUF001 - a dash is meant
    assert [one.code for one in found.warnings] == (["encoding_guessed"] if encoding == "cp1252" else [])


@pytest.mark.parametrize("data", [b"", b"words\n" * 10, b"ER  - \n" * 3, b"\x00" * 5_000, b"x" * 3_000_000])
def test_a_list_without_a_reference_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ScanFailed) as failed:
        read(tmp_path, data)
    assert (failed.value.code, failed.value.subject) == ("ris_without_references", "refs.ris")
    assert [one.code for one in validated(tmp_path, {"refs.ris": data}).problems if one.is_fatal] == [
        "ris_without_references"
    ]
