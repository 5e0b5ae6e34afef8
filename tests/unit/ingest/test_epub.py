"""EPUB: its chapters in reading order, what its package document says, and hostile or protected books."""

import io
import zipfile
from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_by_child, read_now
from tests.unit.ingest.office_makers import epub, rezipped, zipped

from eventlog.events import ChunkKind, CreatorRole, DocumentRejectionReason
from ingest import limits

METADATA = (
    '<dc:identifier id="id">urn:isbn:978-0-306-40615-7</dc:identifier><dc:creator id="c1">Ada van den Berg</dc:creator>'
    '<meta refines="#c1" property="role">aut</meta><meta refines="#c1" property="file-as">van den Berg, Ada</meta>'
    '<dc:creator opf:role="edt" opf:file-as="Zeller, Ed">Ed Zeller</dc:creator><dc:contributor opf:role="bkp">calibre</dc:contributor>'
    "<dc:date>2019-05-01</dc:date><dc:language>en</dc:language><dc:publisher>Marsh Press</dc:publisher>"
    "<dc:subject>marsh</dc:subject><dc:description>&lt;p&gt;About &lt;b&gt;mud&lt;/b&gt;.&lt;/p&gt;</dc:description>"
)
CHAPTERS = [
    "<h1>One &amp; only</h1><p>First <b>bold</b> words<br/>of the book.</p><script>alert('no')</script>",
    "<h1>Two</h1><div>Loose text<h2>Within</h2><ul><li>a</li><li>b</li></ul><table><tr><td>1</td><td>2</td></tr></table></div>",
]


def read(tmp_path: Path, data: bytes) -> Read:
    return read_now(tmp_path, {"a.epub": data})


def test_what_a_book_says_of_itself_stands_in_its_facts(tmp_path: Path) -> None:
    document = read(tmp_path, epub("The Marsh Book", CHAPTERS, metadata=METADATA)).document
    fields = {
        "item_type": "book", "title": "The Marsh Book", "year": 2019, "date": "2019-05-01", "isbns": ("9780306406157",),
        "language": "en", "publisher": "Marsh Press", "abstract": "About mud.",
    }  # fmt: skip
    assert {name: getattr(document, name) for name in fields} == fields
    assert [(one.family, one.given, one.role) for one in document.creators] == [
        ("van den Berg", "Ada", CreatorRole.AUTHOR),
        ("Zeller", "Ed", CreatorRole.EDITOR),
    ]
    assert [tag.name for tag in document.tags] == ["marsh"]


def test_chapters_are_read_in_order_with_their_headings_as_sections(tmp_path: Path) -> None:
    found = read(tmp_path, epub("B", CHAPTERS))
    assert [one.title for one in found.document.sections] == ["One & only", "Two", "Within"]
    text = "\n".join(found.texts("a.epub", ChunkKind.PASSAGE))
    assert [line for line in text.split("\n") if line] == [
        "One & only", "First bold words of the book.", "Two", "Loose text", "Within", "a", "b", "1 | 2",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_a_chapter_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><html><body><p>Über Käse</p></body></html>'
    data = epub("B", ["x"], extra={"OEBPS/text/ch 0.xhtml": text.encode(encoding)})
    assert read(tmp_path, data).texts("a.epub", ChunkKind.PASSAGE) == ["Über Käse"]


def test_a_book_without_a_title_is_called_like_its_file(tmp_path: Path) -> None:
    assert read(tmp_path, epub("", CHAPTERS)).document.title == "a"


def test_entities_are_neither_followed_nor_expanded(tmp_path: Path) -> None:
    data = epub("Told &f; &c;", CHAPTERS)
    doctype = (
        b'<!DOCTYPE package [<!ENTITY f SYSTEM "file:///etc/passwd"><!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
        b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        package = archive.read("OEBPS/content.opf")
    found = read(
        tmp_path, rezipped(data, {"OEBPS/content.opf": package.replace(b"<package", doctype + b"<package")})
    )
    assert found.document.title.startswith("Told")
    assert "root:" not in found.document.title
    assert "ha" not in found.document.title


def encryption(*names: str) -> dict[str, str]:
    hidden = "".join(
        f'<e:EncryptedData xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:CipherData><e:CipherReference URI="{name}"/>'
        "</e:CipherData></e:EncryptedData>"
        for name in names
    )
    return {"META-INF/encryption.xml": f"<encryption>{hidden}</encryption>"}


def test_a_book_whose_fonts_alone_are_disguised_is_read(tmp_path: Path) -> None:
    assert (
        read(tmp_path, epub("Fonts", CHAPTERS, extra=encryption("OEBPS/fonts/a.otf"))).document.title
        == "Fonts"
    )


async def test_hostile_and_protected_books_cost_themselves(tmp_path: Path) -> None:
    good = epub("Well", CHAPTERS)
    entity = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
    climbing = '<html><body><p>x</p><img src="../../../../etc/passwd"/><iframe src="file:///etc/passwd"></iframe></body></html>'
    files = {
        "protected.epub": epub("P", CHAPTERS, extra=encryption("OEBPS/text/ch%200.xhtml")),
        "bomb.epub": epub("B", ["x"], extra={"OEBPS/text/ch 0.xhtml": bytes(64 * 1024**2)}),
        "many.epub": epub("M", ["x"], extra={f"x/{n}": "" for n in range(limits.PACKAGE_ENTRIES_MAX)}),
        "climbing.epub": epub("C", [climbing]),
        "outside.epub": epub("O", CHAPTERS, opf="OEBPS/other.opf", extra={"META-INF/container.xml": (
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfile full-path="../../etc/passwd"/></container>'
        )}),
        "entities.epub": rezipped(good, {"META-INF/container.xml": (entity + "<a>&f;&a;</a>").encode()}),
        "nested.epub": epub("N", ["<div>" * 100_000 + "deep" + "</div>" * 100_000]),
        "marks.epub": epub("M", ["<!--" * 100_000, "<" * 100_000, "<a b='" * 50_000]),
        "no-chapter.epub": rezipped(good, {"OEBPS/text/ch 1.xhtml": None}),
        "no-container.epub": zipped({"mimetype": "application/epub+zip"}),
        "silent.epub": epub("S", ["<p> </p>"]),
        "words.epub": b"just words",
        "empty.epub": b"",
        "well.epub": good,
    }  # fmt: skip
    found = await read_by_child(tmp_path, files)
    reasons = {item: one.reason for item, one in found.rejected.items()}
    marks = reasons.pop("marks.epub", None)  # what is in no element's text is no text, or some of it is
    assert marks in (None, DocumentRejectionReason.FILE_EMPTY)
    assert reasons == {
        "protected.epub": DocumentRejectionReason.FILE_ENCRYPTED,
        "bomb.epub": DocumentRejectionReason.TEXT_TOO_LONG,
        "many.epub": DocumentRejectionReason.FILE_DAMAGED,
        "outside.epub": DocumentRejectionReason.FILE_DAMAGED,
        "entities.epub": DocumentRejectionReason.FILE_DAMAGED,
        "no-chapter.epub": DocumentRejectionReason.FILE_DAMAGED,
        "no-container.epub": DocumentRejectionReason.FILE_DAMAGED,
        "silent.epub": DocumentRejectionReason.FILE_EMPTY,
        "words.epub": DocumentRejectionReason.FILE_DAMAGED,
        "empty.epub": DocumentRejectionReason.FILE_EMPTY,
    }
    assert found.documents.keys() - {"marks.epub"} == {"climbing.epub", "nested.epub", "well.epub"}
