"""DOCX and EPUB files as Word, LibreOffice, Calibre and publishers write them, and as nobody should."""

import io
import zipfile
from collections.abc import Mapping, Sequence

import docx
from docx.oxml import OxmlElement

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="{opf}" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
_XHTML = (
    '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title>'
    "<script/><style>p {{}}</style></head><body>{body}</body></html>"
)


def zipped(entries: Mapping[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


def rezipped(data: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """The same zip with other entries; null leaves one out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries: dict[str, bytes] = {name: archive.read(name) for name in archive.namelist()}
    for name, changed in changes.items():
        entries.pop(name, None)
        if changed is not None:
            entries[name] = changed
    return zipped(entries)


def word(
    title: str,
    sections: Sequence[tuple[str, str]],
    *,
    author: str = "",
    styled_title: bool = True,
    page_breaks: bool = False,
) -> bytes:
    """Headings and paragraphs; with `page_breaks` Word's mark of a new page before each section's text."""
    document = docx.Document()
    document.core_properties.title = title
    document.core_properties.author = author or "python-docx"
    document.core_properties.keywords = "marsh; carbon"
    if styled_title:
        document.add_heading(title or "Untitled", 0)
    for heading, text in sections:
        document.add_heading(heading, 1)
        paragraph = document.add_paragraph("")
        run = paragraph.add_run()
        if page_breaks:
            run._r.append(OxmlElement("w:lastRenderedPageBreak"))
        paragraph.add_run(text)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def word_of(body: str, **parts: bytes) -> bytes:
    """A document with this body, written by hand."""
    xml = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return rezipped(word("", []), {"word/document.xml": xml.encode(), **parts})


def epub(
    title: str,
    chapters: Sequence[str],
    *,
    metadata: str = "",
    extra: Mapping[str, bytes | str] | None = None,
    opf: str = "OEBPS/content.opf",
) -> bytes:
    items = "".join(
        f'<item id="c{number}" href="text/ch%20{number}.xhtml" media-type="application/xhtml+xml"/>'
        for number in range(len(chapters))
    )
    order = "".join(f'<itemref idref="c{number}"/>' for number in range(len(chapters)))
    package = (
        '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:opf="http://www.idpf.org/2007/opf">'
        f"<dc:title>{title}</dc:title>{metadata}</metadata><manifest>"
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
        f'{items}<item id="out" href="../../../etc/passwd" media-type="application/xhtml+xml"/></manifest>'
        f'<spine><itemref idref="nav"/>{order}</spine></package>'
    )
    entries: dict[str, bytes | str] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": _CONTAINER.format(opf=opf),
        opf: package,
        "OEBPS/nav.xhtml": _XHTML.format(body="<nav>Contents</nav>"),
    }
    for number, body in enumerate(chapters):
        entries[f"OEBPS/text/ch {number}.xhtml"] = _XHTML.format(body=body)
    return zipped(entries | dict(extra or {}))
