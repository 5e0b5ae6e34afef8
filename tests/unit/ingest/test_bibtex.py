"""BibTeX and BibLaTeX as Zotero, Better BibTeX, JabRef and Mendeley write them: what they say stands in the documents."""

from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_by_child, read_now, validated
from tests.unit.ingest.pdf_makers import SAYS, TEXT
from tests.unit.ingest.raw_pdf import a_page

from eventlog.events import AttachmentStatus, ChunkKind, CreatorRole, DocumentRejectionReason, SourceKind
from ingest import limits
from ingest.parser import ScanFailed
from ingest.sources.tex import tex_to_text

PDF = a_page(TEXT).classic()
ZOTERO = r"""
@article{skele_carbon_2020,
	title = {Carbon in {Salt} marshes: {\"U}ber 50\% of \textit{Spartina} \& $\alpha$-diversity},
	volume = {12},
	issn = {1234-5679},
	url = {https://example.org/marsh\_7?a=1\&b=2},
	doi = {10.1000/Marsh\_7},
	abstract = {We measured 5\% more {CO}$_2$.

A second paragraph.},
	language = {en},
	number = {3},
	urldate = {2021-01-01},
	journal = {Journal of Marshes},
	author = {{\v{S}}{\c{k}}{\=e}le, Zo{\"e} and van den Berg, Jan and {World Marsh Council} and King, Jr., Martin and others},
	editor = {Zeller, Ed},
	month = mar,
	year = {2020},
	note = {Read again},
	keywords = {carbon, salt marsh},
	pages = {101--120},
	file = {Full Text PDF:files/12/Skele 2020.pdf:application/pdf;Snapshot:files/13/page.html:text/html},
}
"""


def read(tmp_path: Path, text: str | bytes, **files: bytes) -> Read:
    data = text if isinstance(text, bytes) else text.encode()
    return read_now(
        tmp_path, {"refs.bib": data, **{name.replace("__", "/"): one for name, one in files.items()}}
    )


def test_every_field_of_an_entry_stands_in_its_document(tmp_path: Path) -> None:
    found = read_now(
        tmp_path, {"refs.bib": ZOTERO.encode(), "files/12/Skele 2020.pdf": PDF, "files/13/page.html": b"x"}
    )
    fields = {
        "item_type": "journalArticle", "title": "Carbon in Salt marshes: Über 50% of Spartina & α-diversity",  # noqa: RUF001 - Greek is meant
        "year": 2020,
        "date": "2020-03", "doi": "10.1000/marsh_7", "issns": ("1234-5679",), "url": "https://example.org/marsh_7?a=1&b=2",
        "venue": "Journal of Marshes", "volume": "12", "issue": "3", "pages": "101-120", "language": "en",
        "abstract": "We measured 5% more CO_2.\n\nA second paragraph.", "notes": ("Read again",),
        "source_items": ("refs.bib: line 2 (skele_carbon_2020)",),
    }  # fmt: skip
    assert found.summary.kind is SourceKind.BIBTEX
    assert {name: getattr(found.document, name) for name in fields} == fields
    assert [tag.name for tag in found.document.tags] == ["carbon", "salt marsh"]
    assert [(one.family, one.given, one.role) for one in found.document.creators] == [
        ("Šķēle", "Zoë", CreatorRole.AUTHOR),
        ("van den Berg", "Jan", CreatorRole.AUTHOR),
        ("World Marsh Council", "", CreatorRole.AUTHOR),
        ("King", "Martin, Jr.", CreatorRole.AUTHOR),
        ("Zeller", "Ed", CreatorRole.EDITOR),
    ]
    assert [(one.path, one.status) for one in found.document.attachments] == [
        ("files/12/Skele 2020.pdf", AttachmentStatus.FOUND),
        ("files/13/page.html", AttachmentStatus.UNSUPPORTED),
    ]
    assert any(
        SAYS in text for text in found.texts("refs.bib: line 2 (skele_carbon_2020)", ChunkKind.PASSAGE)
    )
    assert [one.code for one in found.document.warnings] == ["creators_incomplete", "attachment_unsupported"]
    assert [(one.code, one.subject) for one in found.warnings] == [("field_not_kept", "urldate")]


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("PDF:files/12/a.pdf:application/pdf", "files/12/a.pdf"),  # Zotero
        ("/home/me/Zotero/storage/12/a.pdf", "files/12/a.pdf"),  # Better BibTeX
        (":Smith2020 - Marsh; mud.pdf:PDF", None),  # a semicolon that nobody escaped divides
        (r":Smith2020 - Marsh\; mud.pdf:PDF", "Smith2020 - Marsh; mud.pdf"),  # JabRef
        (r"a note\: with a colon:12/a.pdf:PDF", "files/12/a.pdf"),
        (r":C\:\\Users\\me\\12\\a.pdf:PDF", "files/12/a.pdf"),
        (r":C$\backslash$:/Users/me/Mendeley/Smith{\_}2020.pdf:pdf", "Smith_2020.pdf"),  # Mendeley
        (":home/me/Mendeley/Smith{\\_}2020.pdf:pdf", "Smith_2020.pdf"),
        ("files/99/a.pdf", None),
    ],
)
def test_an_entry_s_file_is_found_however_its_program_names_it(
    tmp_path: Path, field: str, path: str | None
) -> None:
    files = {"files/12/a.pdf": PDF, "Smith2020 - Marsh; mud.pdf": PDF, "Smith_2020.pdf": PDF}
    entry = f"@article{{a, title={{A}}, file={{{field}}}}}"
    found = read_now(tmp_path, {"refs.bib": entry.encode(), **files})
    document = found.documents["refs.bib: line 1 (a)"]
    there = [one.path for one in document.attachments if one.status is AttachmentStatus.FOUND]
    assert there == ([path] if path else [])
    assert ("attachment_missing" in [one.code for one in document.warnings]) is (path is None)


def test_biblatex_s_fields_and_types_are_known(tmp_path: Path) -> None:
    text = """@thesis{a, type={phdthesis}, title={Mud}, subtitle={A life}, date={2019-04/2019-05}, institution={Oslo University},
      author={family=Berg, given=Anna, prefix=van den}, langid={norwegian}, keywords={a; b}, annotation={good}}
    @online{b, title={Tides}, eprint={2001.00001}, eprinttype={arxiv}, date={2020}, journaltitle={J}, journalsubtitle={S}}
    @inbook{c, title={Chapter}, booktitle={Book}, booksubtitle={Sub}, translator={A B}, isbn={0-306-40615-2}, eid={e12}}"""
    thesis, online, chapter = read(tmp_path, text).documents.values()
    assert (thesis.item_type, thesis.title, thesis.year, thesis.publisher) == (
        "thesis", "Mud: A life", 2019, "Oslo University",
    )  # fmt: skip
    assert [(one.family, one.given) for one in thesis.creators] == [("van den Berg", "Anna")]
    assert (thesis.language, [tag.name for tag in thesis.tags], thesis.notes) == (
        "norwegian",
        ["a", "b"],
        ("good",),
    )
    assert (online.item_type, online.url, online.venue) == (
        "webpage",
        "https://arxiv.org/abs/2001.00001",
        "J: S",
    )
    assert (chapter.item_type, chapter.venue, chapter.pages) == ("bookSection", "Book: Sub", "e12")
    assert chapter.isbns == ("9780306406157",)
    assert [one.role for one in chapter.creators] == [CreatorRole.TRANSLATOR]


def test_macros_and_joined_strings_are_resolved(tmp_path: Path) -> None:
    text = """@string{jm = "Journal of " # wet}
    @string(wet = {Wetlands})
    @string{jm2 = "Journal of " # wet}
    @article{a, title = "A {"}B{"} title", journal = jm2 # { (new)}, month = 7 # "~" # jan, year = 2020}"""
    document = read(tmp_path, text).document
    assert (document.title, document.venue, document.year) == (
        'A "B" title',
        "Journal of Wetlands (new)",
        2020,
    )


async def test_macros_that_double_each_other_stay_small(tmp_path: Path) -> None:
    doubling = "".join(f"@string{{a{n + 1} = a{n} # a{n}}}\n" for n in range(20))
    copies = "".join(f'@string{{b{n} = "x" # a20}}\n' for n in range(400))
    text = f'@string{{a0 = "ha"}}\n{doubling}{copies}@book{{a, title = b399}}\n@book{{b, title = {{B}}}}'
    assert len((await read_by_child(tmp_path, {"refs.bib": text.encode()})).documents) == 2


def test_an_entry_inherits_from_one_that_stands_anywhere(tmp_path: Path) -> None:
    text = """@inproceedings{a, title={First}, crossref={P1}}
    @proceedings{p1, title={Proceedings}, year={2011}, editor={Ed, A.}, xdata={x}}
    @xdata{x, publisher={Press}}
    @inproceedings{b, title={Second}, crossref={P1}, year={2012}}
    @inproceedings{c, title={Third}, crossref={nowhere}}
    @inproceedings{d, title={Fourth}, crossref={d}}"""
    found = read(tmp_path, text)
    by_title = {one.title: one for one in found.documents.values()}
    assert by_title.keys() == {"Proceedings", "First", "Second", "Third", "Fourth"}
    first = by_title["First"]
    assert (first.venue, first.year, first.publisher) == ("Proceedings", 2011, "Press")
    assert by_title["Second"].year == 2012
    assert [one.code for one in by_title["Third"].warnings] == ["crossref_missing"]


def test_of_very_many_entries_that_inherit_those_behind_the_parent_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.sources import bibtex

    monkeypatch.setattr(bibtex, "_WAITING_CHARACTERS_MAX", 10)
    entry = "@inproceedings{{{0}, title={{The {0} paper}}, crossref={{p}}}}\n"
    text = entry.format("first") + "@proceedings{p, title={Proceedings}}\n" + entry.format("second")
    first, _, second = read(tmp_path, text).documents.values()
    assert ([one.code for one in first.warnings], first.venue) == (["crossref_missing"], "")
    assert (second.warnings, second.venue) == ((), "Proceedings")


def test_a_damaged_entry_is_rejected_by_its_line_and_its_neighbours_go_through(tmp_path: Path) -> None:
    text = """Some words of a program.
@article{a, title = {A}, year = 2020}

@article{b, title = {never closed, year = 2020

@article{c, title = {C}, title = {D}}
@article{c, title = {C again}}
article{d, title = {no at sign}}
@article{e}
"""
    found = read(tmp_path, text)
    assert [one.title for one in found.documents.values()] == ["A", "C", "C again"]
    assert {item: one.reason for item, one in found.rejected.items()} == {
        "refs.bib: line 4": DocumentRejectionReason.ITEM_INVALID,
        "refs.bib: line 9 (e)": DocumentRejectionReason.ITEM_EMPTY,
    }
    codes = [one.code for document in found.documents.values() for one in document.warnings]
    assert codes == ["field_twice", "key_twice"]
    assert [(one.code, one.subject) for one in found.warnings] == [("text_not_read", "refs.bib: line 8")]


def test_lines_are_right_however_long_the_file_is(tmp_path: Path) -> None:
    entry = "@article{{k{0}, title = {{Number {0}}},\n  abstract = {{{1}}}}}\n\n"
    text = "".join(entry.format(number, "x" * 3_000) for number in range(300))
    found = read(tmp_path, text)
    assert list(found.documents)[::100] == [f"refs.bib: line {1 + 3 * n} (k{n})" for n in (0, 100, 200)]
    assert len(found.documents) == 300


@pytest.mark.parametrize(
    ("data", "guessed"),
    [
        ("Über Käse".encode(), False), ("Über Käse".encode("utf-8-sig"), False), ("Über Käse".encode("utf-16"), False),
        ("Über Käse".encode("cp1252"), True),
    ],
)  # fmt: skip
def test_a_file_is_read_in_its_encoding_and_a_guess_is_said(
    tmp_path: Path, data: bytes, guessed: bool
) -> None:
    wrapped = {2: b"", 3: b"\xef\xbb\xbf"}
    encoding = "utf-16" if data[:2] == b"\xff\xfe" else "utf-8-sig" if data[:3] == wrapped[3] else "utf-8"
    encoding = "cp1252" if guessed else encoding
    found = read(tmp_path, ("@book{a, title = {" + data.decode(encoding) + "}}").encode(encoding))
    assert found.document.title == "Über Käse"
    assert ("encoding_guessed" in [one.code for one in found.warnings]) is guessed


def test_bibtex_is_known_under_another_name(tmp_path: Path) -> None:
    found = read_now(
        tmp_path, {"export.txt": b"% by hand\n@book{a, title={A}}", "b.txt": b"mail me@home {now}"}
    )
    assert found.summary.kind is SourceKind.BIBTEX
    assert list(found.documents) == ["export.txt: line 2 (a)", "b.txt"]


@pytest.mark.parametrize(
    "data",
    [
        b"@article{a, title={" + b"{" * 2_000_000,
        b"@a{" * 500_000,
        b"just words",
        b"@comment{nothing}",
        b"@article{a, title=" + b'"{}' * 300_000,
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ScanFailed) as failed:
        read(tmp_path, data)
    assert failed.value.code in {"bibtex_damaged", "bibtex_without_entries"}
    found = validated(tmp_path, {"refs.bib": data})
    assert [one.is_fatal for one in found.problems] == [True]


async def test_hostile_tex_costs_the_child_neither_its_life_nor_its_time(tmp_path: Path) -> None:
    hostile = (
        "{" * 3_000 + "}" * 3_000, "$" * 30_000, r"\begin{a}" * 3_000, r"\frac" * 3_000, r"\sqrt[" * 3_000, "$" + "^_" * 9_000 + "$",
        r"\'" * 5_000, r"\newcommand{\a}{\a\a}\a", r"\input{/etc/passwd}", r"\write18{id}", "a # " * 9_000,
    )  # fmt: skip
    text = "".join(
        f"@book{{k{n}, year={{2000}}, title={{Work {n} {one}}}}}\n" for n, one in enumerate(hostile)
    )
    found = await read_by_child(tmp_path, {"refs.bib": text.encode()})
    assert len(found.documents) == len(hostile)
    assert not any("root:" in one.title for one in found.documents.values())


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"{\"u}ber \'etude Erd{\H o}s {\o} {\ss}", "über étude Erdős ø ß"),
        (r"The {NASA} {B}ook of $\beta$ and $x^2$", "The NASA Book of β and x^2"),
        (r"\emph{E. coli} and \textbf{more than one word}", "E. coli and more than one word"),
        ("``quoted'' --- 1--2~km", "“quoted” — 1–2 km"),  # noqa: RUF001 - dashes are meant
        (r"5\% \& \$7 \#1 \_", "5% & $7 #1 _"),
        (r"\unknown{kept}", "kept"),
        ("plain % not a comment", "plain % not a comment"),
        ("unbalanced } {", "unbalanced"),
    ],
)
def test_tex_becomes_plain_text(tex: str, text: str) -> None:
    assert tex_to_text(tex) == text


def test_more_entries_than_a_library_may_have_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ITEMS_MAX", 2)
    found = read(tmp_path, "".join(f"@book{{k{n}, title={{Title {n}}}}}\n" for n in range(4)))
    assert len(found.documents) == 2
    assert {item: one.reason for item, one in found.rejected.items()} == {
        "refs.bib: after entry 2": DocumentRejectionReason.FILE_DAMAGED
    }
