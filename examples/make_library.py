"""Writes `examples/library`: a Zotero RDF export with its files, from the texts in `papers.py`.

Run it from the checkout (`python examples/make_library.py`); the same texts give the same bytes.
"""

import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import cm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # Run as a script, from wherever.
from papers import DUPLICATE, PAPERS, Paper  # noqa: E402 - after the path is set

LIBRARY = HERE / "library"
NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "z": "http://www.zotero.org/namespaces/export#",
    "dcterms": "http://purl.org/dc/terms/",
    "link": "http://purl.org/rss/1.0/modules/link/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "bib": "http://purl.org/net/biblio#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "prism": "http://prismstandard.org/namespaces/1.2/basic/",
}
BROKEN = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\nthe copy stopped here"


def file_of(paper: Paper) -> str | None:
    """Where Zotero puts it: files/<key>/<authors> - <year> - <title>.pdf."""
    if not paper.sections and not paper.is_broken:
        return None
    year = re.search(r"\d{4}", paper.date)
    title = re.sub(r"[^\w\s-]", "", paper.title)[:50].strip()
    return f"files/{paper.key}/{paper.authors[0][0]} - {year[0] if year else ''} - {title}.pdf"


def write_pdf(paper: Paper, path: Path) -> None:
    styles = getSampleStyleSheet()
    body = ParagraphStyle(
        "body", parent=styles["BodyText"], fontName="Times-Roman", fontSize=10.5, leading=14
    )
    authors = ", ".join(f"{given} {family}" for family, given in paper.authors)
    story: list[Flowable] = [
        Paragraph(escape(paper.title), styles["Title"]),
        Paragraph(escape(authors), styles["Italic"]),
        Paragraph(
            escape(f"{paper.journal} {paper.volume}, {paper.pages}. doi:{paper.doi}"), styles["Normal"]
        ),
        Spacer(1, 0.5 * cm),
        Paragraph("Abstract", styles["Heading2"]),
        Paragraph(escape(paper.abstract), body),
    ]
    for heading, paragraphs in paper.sections:
        story.append(Paragraph(escape(heading), styles["Heading2"]))
        story += [Paragraph(escape(text), body) for text in paragraphs]
    document = SimpleDocTemplate(
        str(path),
        pagesize=A4,
        leftMargin=2.5 * cm,
        rightMargin=2.5 * cm,
        title=paper.title,
        author="; ".join(f"{family}, {given}" for family, given in paper.authors),
        subject=f"doi:{paper.doi}",
        invariant=1,
    )
    document.build(story)


def _element(name: str, text: str) -> str:
    return f"        <{name}>{escape(text)}</{name}>\n"


def _item(paper: Paper) -> str:
    """As Zotero writes a journal article; the journal, the files and the notes are resources of their own."""
    people = "".join(
        "                <rdf:li><foaf:Person>"
        f"<foaf:surname>{escape(family)}</foaf:surname><foaf:givenName>{escape(given)}</foaf:givenName>"
        "</foaf:Person></rdf:li>\n"
        for family, given in paper.authors
    )
    text = f'    <bib:Article rdf:about="#item_{paper.key}">\n' + _element("z:itemType", "journalArticle")
    text += f"        <dcterms:isPartOf rdf:resource={quoteattr(_journal_id(paper))}/>\n"
    text += f"        <bib:authors>\n            <rdf:Seq>\n{people}            </rdf:Seq>\n        </bib:authors>\n"
    if paper.note:
        text += f'        <dcterms:isReferencedBy rdf:resource="#item_{paper.key}1"/>\n'
    if file_of(paper):
        text += f'        <link:link rdf:resource="#item_{paper.key}2"/>\n'
    text += "".join(_element("dc:subject", tag) for tag in paper.tags)
    for tag in paper.automatic_tags:
        text += (
            "        <dc:subject>\n            <z:AutomaticTag>"
            f"<rdf:value>{escape(tag)}</rdf:value></z:AutomaticTag>\n        </dc:subject>\n"
        )
    text += _element("dc:title", paper.title)
    if paper.abstract:
        text += _element("dcterms:abstract", paper.abstract)
    text += _element("dc:date", paper.date) + _element("z:language", paper.language)
    text += _element("dc:identifier", f"DOI {paper.doi}") + _element("bib:pages", paper.pages)
    return text + "    </bib:Article>\n"


def _journal_id(paper: Paper) -> str:
    return f"urn:issn:{paper.issn}:{paper.volume}"


def _journals(papers: Iterable[Paper]) -> str:
    found = {_journal_id(paper): paper for paper in papers}
    return "".join(
        f"    <bib:Journal rdf:about={quoteattr(name)}>\n"
        + _element("dc:title", paper.journal)
        + _element("prism:volume", paper.volume)
        + _element("dc:identifier", f"ISSN {paper.issn}")
        + "    </bib:Journal>\n"
        for name, paper in sorted(found.items())
    )


def _note(paper: Paper) -> str:
    return (
        f'    <bib:Memo rdf:about="#item_{paper.key}1">\n'
        + _element("rdf:value", paper.note)
        + "    </bib:Memo>\n"
    )


def _attachment(paper: Paper, file: str) -> str:
    return (
        f'    <z:Attachment rdf:about="#item_{paper.key}2">\n'
        + _element("z:itemType", "attachment")
        + f"        <rdf:resource rdf:resource={quoteattr(file)}/>\n"
        + _element("dc:title", Path(file).name)
        + _element("link:type", "application/pdf")
        + "    </z:Attachment>\n"
    )


def _collections(papers: Iterable[Paper]) -> str:
    members: dict[str, list[int]] = {}
    for paper in papers:
        members.setdefault(paper.collection, []).append(paper.key)
    text = ""
    for number, (name, keys) in enumerate(members.items(), 1):
        parts = "".join(f'        <dcterms:hasPart rdf:resource="#item_{key}"/>\n' for key in keys)
        text += (
            f'    <z:Collection rdf:about="#collection_{number}">\n'
            + _element("dc:title", name)
            + parts
            + "    </z:Collection>\n"
        )
    return text


def rdf() -> str:
    papers = (*PAPERS, DUPLICATE)
    names = "\n".join(f' xmlns:{prefix}="{iri}"' for prefix, iri in NAMESPACES.items())
    parts = [_item(paper) for paper in papers]
    parts += [_note(paper) for paper in papers if paper.note]
    parts += [_attachment(paper, file) for paper in papers if (file := file_of(paper))]
    return f"<rdf:RDF\n{names}>\n{''.join(parts)}{_journals(papers)}{_collections(papers)}</rdf:RDF>\n"


def main() -> None:
    shutil.rmtree(LIBRARY / "files", ignore_errors=True)
    LIBRARY.mkdir(exist_ok=True)
    (LIBRARY / "library.rdf").write_text(rdf(), encoding="utf-8")
    for paper in PAPERS:
        if file := file_of(paper):
            path = LIBRARY / file
            path.parent.mkdir(parents=True)
            if paper.is_broken:
                path.write_bytes(BROKEN)
            else:
                write_pdf(paper, path)
    size = sum(path.stat().st_size for path in LIBRARY.rglob("*") if path.is_file())
    print(f"{len(PAPERS) + 1} items, {size / 1000:.0f} kB in {LIBRARY}")


if __name__ == "__main__":
    main()
