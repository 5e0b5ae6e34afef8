"""A folder of PDFs of many makers, broken ones among them: each is imported whole, or rejected with the right code."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_by_child, read_now
from tests.unit.ingest.pdf_makers import IMPORTED, REJECTED, SAYS, TEXT, TITLE
from tests.unit.ingest.raw_pdf import a_page

from eventlog.events import ChunkKind, DocumentRejectionReason, Part, SectionKind
from ingest.sources.pdf_front import _abstract

IN_OTHER_SCRIPTS = {
    "reportlab chinese": "其中大部分位于一米以下的深处",
    "reportlab japanese": "その大部分は一メートルより深い所にある",
    "reportlab korean": "대부분은 일 미터 아래에 있다",
    "hebrew": "מדדנו כמה פחמן אוצרות הקרקעות",
    "devanagari": "कार्बन जमा रखती है",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Every PDF of the tables, as one library."""
    files = {f"{name}.pdf": make() for name, make in IMPORTED.items()}
    files |= {f"{name}.pdf": make() for name, (make, _) in REJECTED.items()}
    work = tmp_path_factory.mktemp("pdfs")
    large = work / "large"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    return asyncio.run(read_by_child(work, {**files, "200 MB.pdf": large}))


@pytest.mark.parametrize("name", IMPORTED)
def test_what_can_be_read_is_imported_with_its_text(folder: Read, name: str) -> None:
    passages = " ".join(folder.texts(f"{name}.pdf", ChunkKind.PASSAGE))
    assert IN_OTHER_SCRIPTS.get(name, SAYS) in passages
    assert folder.documents[f"{name}.pdf"].title


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_read_is_rejected_with_its_code(folder: Read, name: str) -> None:
    rejected = folder.rejected[f"{name}.pdf"]
    assert rejected.reason is REJECTED[name][1]
    assert rejected.message
    assert rejected.file_sha256


def test_a_pdf_of_200_megabytes_is_too_large(folder: Read) -> None:
    assert folder.rejected["200 MB.pdf"].reason is DocumentRejectionReason.FILE_TOO_LARGE


def test_every_file_is_a_document_or_rejected_by_name(folder: Read) -> None:
    made = {f"{name}.pdf" for name in (*IMPORTED, *REJECTED, "200 MB")}
    assert len(made) >= 30
    assert folder.documents.keys() | folder.rejected.keys() == made
    assert not folder.documents.keys() & folder.rejected.keys()
    assert folder.summary.item_count == len(made)


def test_metadata_say_title_authors_and_doi(folder: Read) -> None:
    document = folder.documents["reportlab metadata.pdf"]
    assert document.title == "Carbon in tidal wetlands: a survey"
    assert [(one.family, one.given) for one in document.creators] == [
        ("Lovelace", "Ada"),
        ("Hopper", "Grace"),
    ]
    assert document.doi == "10.1000/wetlands.2024.7"


def test_without_metadata_the_first_page_says_title_authors_and_abstract(folder: Read) -> None:
    document = folder.documents["pdf 1.2.pdf"]
    assert document.title == TITLE
    assert [(one.family, one.given) for one in document.creators] == [
        ("Lovelace", "Ada"),
        ("Hopper", "Grace"),
    ]
    assert document.abstract.startswith("We measured how much carbon")
    assert document.abstract.endswith("the first ditch.")


def test_a_summary_within_a_sentence_is_no_abstract(tmp_path: Path) -> None:
    text = TEXT.replace("\nAbstract\n", "\nIn summary,\n")
    assert read_now(tmp_path, {"a.pdf": a_page(text).classic()}).document.abstract == ""


@pytest.mark.parametrize("text", ["Abstract" + "\n" * 20_000, "Abstract\n" * 2_200, "\n \t" * 7_000])
def test_an_abstract_is_sought_no_longer_than_the_page_is(text: str) -> None:
    assert _abstract(text) == ""


def test_a_program_s_placeholder_is_no_author(folder: Read) -> None:
    assert [one.family for one in folder.documents["reportlab.pdf"].creators] == ["Lovelace", "Hopper"]


def test_a_title_over_two_lines_is_told_by_its_size(folder: Read) -> None:
    assert folder.documents["pdfium.pdf"].title == TITLE


def test_of_several_dois_on_the_first_page_none_is_the_paper_s(folder: Read) -> None:
    assert folder.documents["pdf 1.2.pdf"].doi is None


def test_the_only_doi_of_the_first_page_is_the_paper_s(tmp_path: Path) -> None:
    text = TEXT.replace(" and doi:10.1000/marsh.2", "")
    assert read_now(tmp_path, {"a.pdf": a_page(text).classic()}).document.doi == "10.1000/marsh.1"


@pytest.mark.parametrize(
    ("line", "year"),
    [
        ("\u00a9 2019 The Authors", 2019),
        ("Received 3 May 2017; accepted 12 June 2018", 2018),
        ("arXiv:2001.01234v2 [cs.LG] 14 Jan 2020", 2020),
        ("No date at all", 2011),
    ],
)
def test_the_year_is_what_the_page_says_or_when_the_file_was_made(
    tmp_path: Path, line: str, year: int
) -> None:
    made = a_page(f"{TEXT}\n{line}", CreationDate="D:20110304120000Z").classic()
    assert read_now(tmp_path, {"a.pdf": made}).document.year == year


def test_sections_are_told_by_their_headings(folder: Read) -> None:
    document = folder.documents["pdf 1.2.pdf"]
    assert [(one.title, one.kind) for one in document.sections] == [
        ("", SectionKind.OTHER),
        ("Abstract", SectionKind.ABSTRACT),
        ("Introduction", SectionKind.INTRODUCTION),
        ("Methods", SectionKind.METHODOLOGY),
        ("References", SectionKind.REFERENCES),
    ]
    methods = next(one for one in folder.chunks["pdf 1.2.pdf"] if one.section == "Methods")
    assert "dated by radiocarbon" in methods.text


def test_passages_know_their_pages(folder: Read) -> None:
    passages = [one for one in folder.chunks["reportlab flowing.pdf"] if one.part is Part.FULL_TEXT]
    assert passages[0].page_first == 1
    assert passages[-1].page_last == 3
    assert all(one.page_first <= one.page_last for one in passages if one.page_first and one.page_last)


def test_ligatures_are_letters_and_words_divided_at_line_ends_are_whole(folder: Read) -> None:
    text = " ".join(folder.texts("latex.pdf", ChunkKind.PASSAGE))
    for word in ("Difficult", "flows", "efficient", "carbon balance", "offset", "fine"):
        assert word in text


def test_two_columns_are_read_one_after_the_other(folder: Read) -> None:
    text = " ".join(folder.texts("reportlab two columns.pdf", ChunkKind.PASSAGE))
    assert (
        text.index("Introduction") < text.index("Methods") < text.index("Results") < text.index("Conclusion")
    )


def test_what_a_font_claims_to_mean_is_cleaned(folder: Read) -> None:
    text = " ".join(chunk.text for chunk in folder.chunks["odd characters.pdf"])
    assert "😀" in text
    assert "é" in text
    assert not any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in text)


def test_metadata_that_are_no_text_cost_nothing(tmp_path: Path) -> None:
    broken = a_page(TEXT, Title="AAAA", Author="Ada Lovelace").classic().replace(b"00410041", b"d8000041", 1)
    document = read_now(tmp_path, {"a.pdf": broken}).document
    assert document.title == TITLE
    assert [one.family for one in document.creators] == ["Lovelace"]


def test_of_two_files_of_one_paper_the_one_with_a_text_gives_it(tmp_path: Path) -> None:
    doi = "doi:10.1000/marsh"
    files = {"a.pdf": a_page("", Subject=doi).classic(), "b.pdf": a_page(TEXT, Subject=doi).classic()}
    read = read_now(tmp_path, files)
    assert read.document.source_items == ("a.pdf", "b.pdf")
    assert any(SAYS in text for text in read.texts("a.pdf", ChunkKind.PASSAGE))
    assert {name: one.reason for name, one in read.rejected.items()} == {
        "a.pdf": DocumentRejectionReason.PDF_NO_TEXT
    }
