"""DOCX: sections by styles, pages as Word last laid them out; revisions, text boxes and notes; and hostile packages."""

import io
import zipfile
from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_by_child, read_now
from tests.unit.ingest.office_makers import WORD, rezipped, word, word_of, zipped

from eventlog.events import ChunkKind, DocumentRejectionReason
from ingest import limits

SECTIONS = [
    ("Introduction", "Marshes store carbon, and nobody knows for how long they have done so. " * 3),
    ("Methods", "We took cores of three metres by hand and dated them by radiocarbon. " * 3),
]
MC = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def read(tmp_path: Path, data: bytes, name: str = "a.docx") -> Read:
    return read_now(tmp_path, {name: data})


def body(tmp_path: Path, xml: str, **parts: bytes) -> str:
    found = read(tmp_path, word_of(xml, **parts))
    return "\n".join(found.texts("a.docx", ChunkKind.PASSAGE))


def paragraph(inside: str) -> str:
    return f"<w:p>{inside}</w:p>"


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def test_what_a_document_says_of_itself_stands_in_its_facts(tmp_path: Path) -> None:
    found = read(tmp_path, word("Carbon in marshes", SECTIONS, author="Ada Lovelace; Hopper, Grace"))
    assert found.document.title == "Carbon in marshes"
    assert [(one.family, one.given) for one in found.document.creators] == [
        ("Lovelace", "Ada"),
        ("Hopper", "Grace"),
    ]
    assert [tag.name for tag in found.document.tags] == ["marsh", "carbon"]
    assert [one.title for one in found.document.sections] == ["", "Introduction", "Methods"]


@pytest.mark.parametrize("junk", ["", "Document1", "Microsoft Word - thesis.docx"])
def test_a_title_that_a_program_made_up_is_not_believed(tmp_path: Path, junk: str) -> None:
    data = word(junk, SECTIONS, styled_title=False, author="Microsoft Office User")
    document = read(tmp_path, data).document
    assert (document.title, document.creators) == ("Introduction", ())


def test_a_passage_says_its_section_and_its_page_as_word_last_laid_it_out(tmp_path: Path) -> None:
    found = read(tmp_path, word("T", SECTIONS, page_breaks=True))
    passages = [one for one in found.chunks["a.docx"] if one.kind is ChunkKind.PASSAGE]
    assert [(one.section, one.page_first, one.page_last) for one in passages] == [
        ("Introduction", 1, 2),
        ("Methods", 2, 3),
    ]


def test_a_document_of_another_program_has_no_pages(tmp_path: Path) -> None:
    found = read(tmp_path, word("T", SECTIONS))
    assert {one.page_first for one in found.chunks["a.docx"]} == {None}


def test_insertions_content_controls_links_and_text_boxes_are_read_and_deletions_are_not(
    tmp_path: Path,
) -> None:
    xml = (
        paragraph(
            run("One ")
            + f"<w:ins>{run('two ')}</w:ins><w:del><w:r><w:noBreakHyphen/><w:delText>gone</w:delText></w:r></w:del>"
        )
        + f"<w:sdt><w:sdtContent>{paragraph(run('three') + '<w:r><w:tab/></w:r>' + run('four'))}</w:sdtContent></w:sdt>"
        + paragraph(f"<w:hyperlink>{run('five')}</w:hyperlink><w:r><w:br/></w:r>{run('six')}")
        + paragraph(
            f'<w:r><mc:AlternateContent xmlns:mc="{MC}"><mc:Choice>{paragraph(run("seven"))}</mc:Choice>'
            f"<mc:Fallback>{paragraph(run('seven'))}</mc:Fallback></mc:AlternateContent></w:r>"
        )
        + f"<w:moveFrom>{run('gone')}</w:moveFrom>"
    )
    assert body(tmp_path, xml).split() == ["One", "two", "three", "four", "five", "six", "seven"]


def test_tables_are_read_row_by_row(tmp_path: Path) -> None:
    def cell(text: str) -> str:
        return f"<w:tc>{paragraph(run(text))}</w:tc>"

    xml = (
        f"<w:tbl><w:tr>{cell('depth')}{cell('carbon')}</w:tr><w:tr>{cell('1 m')}{cell('7 %')}</w:tr></w:tbl>"
    )
    assert body(tmp_path, xml) == "depth | carbon\n\n1 m | 7 %"


def test_macros_pictures_and_embedded_files_are_not_read(tmp_path: Path) -> None:
    extra = {"word/vbaProject.bin": bytes(30_000_000), "word/media/image1.png": bytes(30_000_000)}
    data = rezipped(word("T", SECTIONS), extra)
    assert read(tmp_path, data).document.title == "T"
    types = b'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"'
    macro = types.replace(
        b"openxmlformats-officedocument.wordprocessingml.document.", b"ms-word.document.macroEnabled."
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content_types = archive.read("[Content_Types].xml")
    changed = rezipped(data, {"[Content_Types].xml": content_types.replace(types, macro)})
    assert content_types.replace(types, macro) != content_types
    assert read(tmp_path, changed, "a.docm").document.title == "T"


ENTITIES = (
    b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">'
    b'<!ENTITY f SYSTEM "file:///etc/passwd">]>'
)


async def test_hostile_packages_cost_themselves(tmp_path: Path) -> None:
    good = word("Well", SECTIONS)
    inside = f"<w:body>{paragraph(run('before &amp;c;&amp;f; after'))}</w:body>".replace("&amp;", "&")
    xml = ENTITIES + f'<w:document xmlns:w="{WORD}">{inside}</w:document>'.encode()
    nested = "<w:sdt><w:sdtContent>" * 5_000 + "</w:sdtContent></w:sdt>" * 5_000
    files = {
        "bomb.docx": rezipped(good, {"word/styles.xml": bytes(64 * 1024**2)}),
        "many.docx": zipped({f"word/{number}.xml": b"x" for number in range(limits.PACKAGE_ENTRIES_MAX + 1)}),
        "entities.docx": rezipped(good, {"word/document.xml": xml}),
        "nested.docx": word_of(nested),
        "climbing.docx": rezipped(good, {"../../etc/cron.d/x.xml": b"<a/>", "/etc/y.xml": b"<a/>"}),
        "no-document.docx": rezipped(good, {"word/document.xml": None}),
        "no-types.docx": rezipped(good, {"[Content_Types].xml": None}),
        "words.docx": b"just words",
        "cut.docx": good[:-200],
        "sheet.docx": zipped({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": b"<a/>"}),
        "old.docx": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(3_000),
        "empty.docx": b"",
        "silent.docx": word_of(paragraph("")),
        "well.docx": good,
    }
    found = await read_by_child(tmp_path, files)
    assert {item: str(one.reason) for item, one in found.rejected.items()} == {
        "bomb.docx": DocumentRejectionReason.TEXT_TOO_LONG,
        "many.docx": DocumentRejectionReason.FILE_DAMAGED,
        "nested.docx": DocumentRejectionReason.FILE_DAMAGED,
        "no-document.docx": DocumentRejectionReason.FILE_DAMAGED,
        "no-types.docx": DocumentRejectionReason.FILE_DAMAGED,
        "words.docx": DocumentRejectionReason.FILE_DAMAGED,
        "cut.docx": DocumentRejectionReason.FILE_DAMAGED,
        "sheet.docx": DocumentRejectionReason.FILE_DAMAGED,
        "old.docx": DocumentRejectionReason.FILE_UNSUPPORTED,
        "empty.docx": DocumentRejectionReason.FILE_EMPTY,
        "silent.docx": DocumentRejectionReason.FILE_EMPTY,
    }
    assert found.documents.keys() == {"entities.docx", "climbing.docx", "well.docx"}
    assert not any("root:" in one or "haha" in one for one in found.texts("entities.docx", ChunkKind.PASSAGE))


def test_a_text_that_unpacks_to_more_than_it_may_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACKAGE_TEXT_BYTES_MAX", 2_000_000)
    found = read_now(
        tmp_path, {"a.docx": word_of(paragraph(run("ha" * 100)) * 10_000), "b.docx": word("T", SECTIONS)}
    )
    assert {item: one.reason for item, one in found.rejected.items()} == {
        "a.docx": DocumentRejectionReason.TEXT_TOO_LONG
    }
    assert found.documents.keys() == {"b.docx"}


def test_footnotes_are_read_behind_the_text(tmp_path: Path) -> None:
    types = b'<Override PartName="/word/footnotes.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"/></Types>'
    relation = (
        b'<Relationship Id="rId99" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes" '
        b'Target="footnotes.xml"/></Relationships>'
    )
    note = (
        f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:type="separator">{paragraph(run("rule"))}</w:footnote>'
    )
    note += f"<w:footnote>{paragraph(run('See the archive.'))}</w:footnote></w:footnotes>"
    data = word_of(paragraph(run("Text.")))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        changed = {
            "[Content_Types].xml": archive.read("[Content_Types].xml").replace(b"</Types>", types),
            "word/_rels/document.xml.rels": archive.read("word/_rels/document.xml.rels").replace(
                b"</Relationships>", relation
            ),
            "word/footnotes.xml": note.encode(),
        }
    found = read(tmp_path, rezipped(data, changed))
    assert found.texts("a.docx", ChunkKind.PASSAGE) == ["Text.\n\nSee the archive."]


async def test_a_long_thesis_with_a_run_for_every_word_fits_into_the_child_s_memory(tmp_path: Path) -> None:
    words = (
        '<w:r w:rsidRPr="00A77427"><w:rPr><w:lang w:val="en-US"/></w:rPr><w:t xml:space="preserve">word </w:t></w:r>'
        * 8
    )
    xml = f'<w:p w:rsidR="00A77427">{words}</w:p>' * 12_000
    assert len(xml) > 10_000_000
    found = await read_by_child(tmp_path, {"thesis.docx": word_of(xml)})
    assert len(found.chunks["thesis.docx"]) > 200
