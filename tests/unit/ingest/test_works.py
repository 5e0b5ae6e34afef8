"""Documents of different files that are one work: joined where nothing speaks against it, and left alone where something does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.ingest.libraries import read_now
from tests.unit.ingest.pdf_makers import TEXT, TITLE
from tests.unit.ingest.raw_pdf import a_page

from eventlog.events import Creator, Part
from ingest.sources.item import Item
from ingest.sources.works import Known, best_known, joined, work_key

PDF = a_page("\n".join(TEXT.split("\n")[:-2])).classic()
ADA = (Creator(family="Lovelace", given="Ada"),)
RIS = Item(name="a.ris: line 1", item_type="journalArticle", title=TITLE, creators=ADA, year=2020)
BIB = replace(RIS, name="b.bib: line 7 (k)", doi="10.1000/a", venue="Journal")
FILE = Item(name="a.pdf", title=TITLE, year=1999, bodies=("a.pdf",), uri="sha256:1")


def known(*items: Item) -> list[Known]:
    return [Known(id=bytes([number]), items=(item,)) for number, item in enumerate(items)]


def count(*items: Item) -> int:
    return len(joined(known(*items)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RIS, BIB),
        (RIS, FILE),
        (
            BIB,
            replace(
                FILE, creators=(Creator(family="LOVELACE", given="A."), Creator(family="Hopper", given=""))
            ),
        ),
        (RIS, replace(BIB, item_type="article-journal")),  # CSL's name for the same type
        (RIS, replace(BIB, year=None, creators=(), item_type="document")),
    ],
)
def test_one_work_of_two_files_is_one_document(one: Item, other: Item) -> None:
    assert count(one, other) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (replace(RIS, doi="10.1000/b"), BIB),
        (replace(RIS, isbns=("9780306406157",)), replace(BIB, isbns=("9783161484100",))),
        (RIS, replace(BIB, year=2021)),
        (RIS, replace(BIB, item_type="conferencePaper")),
        (RIS, replace(BIB, creators=(Creator(family="Hopper", given="Grace"),))),
        (RIS, replace(BIB, name="a.ris: line 9")),  # an export that lists two means two
        (FILE, replace(FILE, name="b.pdf", bodies=("b.pdf",))),
    ],
)
def test_what_something_speaks_against_stays_apart(one: Item, other: Item) -> None:
    assert count(one, other) == 2


def test_a_file_that_could_belong_to_two_works_stays_alone() -> None:
    assert count(replace(RIS, year=2019), replace(BIB, year=2020), FILE) == 3


def test_a_title_of_everything_joins_nothing() -> None:
    assert work_key(replace(RIS, title="Editorial")) == ""
    assert joined(known(*(replace(RIS, name=f"{n}.ris: line 1") for n in range(51)))) == []


def test_the_document_takes_the_identity_that_is_best_known() -> None:
    (work,) = joined(known(RIS, FILE, BIB))
    assert best_known(work) == known(RIS, FILE, BIB)[2].id
    assert best_known(known(FILE, RIS)) == known(FILE, RIS)[1].id


def test_an_entry_and_a_pdf_without_identifiers_are_one_document_that_a_later_import_finds_again(
    tmp_path: Path,
) -> None:
    csl = json.dumps(
        [{"id": "x", "type": "article-journal", "title": TITLE, "author": [{"family": "Lovelace"}]}]
    )
    alone = read_now(tmp_path, {"a.json": csl.encode()}).document
    both = read_now(tmp_path, {"a.json": csl.encode(), "scan-0001.pdf": PDF})
    assert both.document.document_id == alone.document_id
    assert both.document.source_items == ("a.json: x", "scan-0001.pdf")
    assert [one.part for one in both.document.parts] == [Part.BIBLIOGRAPHIC, Part.FULL_TEXT]
    assert (both.summary.document_count, both.summary.merged_count) == (1, 1)
    assert [(one.code, one.subject) for one in both.warnings] == [("item_merged", "scan-0001.pdf")]


def test_the_same_article_in_four_exports_is_one_document(tmp_path: Path) -> None:
    files = {
        "a.bib": f"@article{{a, title={{{TITLE}}}, author={{Lovelace, Ada}}, year=2020, doi={{10.1000/A}}}}",
        "a.ris": f"TY  - JOUR\nTI  - {TITLE}\nAU  - Lovelace, Ada\nPY  - 2020\nER  - \n",
        "a.csv": f'"Key","Item Type","Title","Author","Date"\n"K","journalArticle","{TITLE}","Lovelace, Ada","2020"\n',
        "a.nbib": f"\nPMID- 1\nTI  - {TITLE}\nFAU - Lovelace, Ada\nDP  - 2020 Mar\nLID - 10.1000/a [doi]\n",
    }
    found = read_now(tmp_path, {name: text.encode() for name, text in files.items()})
    assert found.document.doi == "10.1000/a"
    assert len(found.document.source_items) == 4
    assert found.summary.merged_count == 3
