"""Zotero's RDF as it is in the wild: what it says stands in the documents, and what cannot be used is said by name."""

from pathlib import Path

import pytest
from tests.unit.ingest.libraries import Read, read_now, validated

from eventlog.events import AttachmentStatus, ChunkKind, CreatorRole, DocumentRejectionReason, SourceKind
from ingest.parser import ScanFailed, SpooledDocument

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:z="http://www.zotero.org/namespaces/export#"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/"
 xmlns:bib="http://purl.org/net/biblio#" xmlns:foaf="http://xmlns.com/foaf/0.1/"
 xmlns:link="http://purl.org/rss/1.0/modules/link/" xmlns:vcard="http://nwalsh.com/rdf/vCard#"
 xmlns:prism="http://prismstandard.org/namespaces/1.2/basic/">
"""
ARTICLE = """
<bib:Memo rdf:about="#item_9"><rdf:value>&lt;h1&gt;My note&lt;/h1&gt;&lt;p&gt;Read &amp;amp; again&lt;script&gt;x()&lt;/script&gt;&lt;/p&gt;</rdf:value></bib:Memo>
<z:Attachment rdf:about="#item_2"><z:itemType>attachment</z:itemType><dc:title>Full text</dc:title>
  <rdf:resource rdf:resource="files/2/Carbon%20in%20marshes.txt"/><link:type>text/plain</link:type></z:Attachment>
<bib:Article rdf:about="http://example.org/a paper [draft]|1">
  <z:itemType>journalArticle</z:itemType>
  <dcterms:isPartOf><bib:Journal rdf:about="urn:issn:1234-5679">
    <prism:volume>12</prism:volume><prism:number>3</prism:number><dc:title>Journal of Marshes</dc:title>
    <dc:identifier>DOI 10.1000/Marsh.(2020)7</dc:identifier><dc:identifier>ISSN 1234-5679</dc:identifier>
  </bib:Journal></dcterms:isPartOf>
  <dc:publisher><foaf:Organization><vcard:adr><vcard:Address><vcard:locality>Oslo</vcard:locality></vcard:Address></vcard:adr>
    <foaf:name>Marsh Press</foaf:name></foaf:Organization></dc:publisher>
  <bib:authors><rdf:Seq>
    <rdf:li><foaf:Person><foaf:surname>Šķēle</foaf:surname><foaf:givenName>Zoë</foaf:givenName></foaf:Person></rdf:li>
    <rdf:li><foaf:Person><foaf:surname>World Marsh Council</foaf:surname></foaf:Person></rdf:li>
    <rdf:li><foaf:Person><foaf:surname>Adams</foaf:surname><foaf:givenName>Amy</foaf:givenName></foaf:Person></rdf:li>
  </rdf:Seq></bib:authors>
  <bib:editors><rdf:Seq>
    <rdf:li><foaf:Person><foaf:surname>Zeller</foaf:surname><foaf:givenName>Ed</foaf:givenName></foaf:Person></rdf:li>
    <rdf:li><foaf:Person><foaf:surname>Baker</foaf:surname><foaf:givenName>Bo</foaf:givenName></foaf:Person></rdf:li>
  </rdf:Seq></bib:editors>
  <z:reviewedAuthors><rdf:Seq>
    <rdf:li><foaf:Person><foaf:surname>Reviewed</foaf:surname></foaf:Person></rdf:li></rdf:Seq></z:reviewedAuthors>
  <dc:subject>carbon</dc:subject>
  <dc:subject><z:AutomaticTag><rdf:value>blue carbon</rdf:value></z:AutomaticTag></dc:subject>
  <dc:subject><dcterms:LCC><rdf:value>QH541.5</rdf:value></dcterms:LCC></dc:subject>
  <dc:title>Carbon in salt marshes</dc:title>
  <dcterms:abstract>We measured &lt;i&gt;carbon&lt;/i&gt; in forty marshes.</dcterms:abstract>
  <dc:date>Spring 2020 [printed 2021]</dc:date>
  <z:language>en</z:language>
  <bib:pages>101-120</bib:pages>
  <dc:identifier><dcterms:URI><rdf:value>https://example.org/marsh?a=1&amp;b=2</rdf:value></dcterms:URI></dc:identifier>
  <dc:description>PMID: 123456</dc:description>
  <z:citationKey>skele2020</z:citationKey>
  <link:link rdf:resource="#item_2"/><link:link rdf:resource="#item_3"/><link:link rdf:resource="#item_4"/>
  <link:link rdf:resource="#item_5"/><link:link rdf:resource="#item_6"/>
  <dcterms:isReferencedBy rdf:resource="#item_9"/>
</bib:Article>
<z:Attachment rdf:about="#item_3"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="files/3/second.txt"/></z:Attachment>
<z:Attachment rdf:about="#item_4"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="files/4/lost.pdf"/></z:Attachment>
<z:Attachment rdf:about="#item_5"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="files/5/data.xlsx"/></z:Attachment>
<z:Attachment rdf:about="#item_6"><z:itemType>attachment</z:itemType><dc:title>Publisher</dc:title><z:linkMode>3</z:linkMode>
  <dc:identifier><dcterms:URI><rdf:value>https://example.org/page</rdf:value></dcterms:URI></dc:identifier></z:Attachment>
<z:Collection rdf:about="#collection_1"><dc:title>Wetlands</dc:title>
  <dcterms:hasPart rdf:resource="http://example.org/a paper [draft]|1"/></z:Collection>
"""
TEXT = b"Marsh sediments hold most of the carbon below one metre."
FILES: dict[str, bytes | Path] = {
    "lib/files/2/Carbon in marshes.txt": TEXT,
    "lib/files/3/second.txt": b"Another text.",
    "lib/files/5/data.xlsx": b"PK",
}


def export(*resources: str) -> bytes:
    return (HEAD + "".join(resources) + "</rdf:RDF>").encode()


def book(number: int, inside: str) -> str:
    return f'<bib:Book rdf:about="#item_{number}"><z:itemType>book</z:itemType>{inside}</bib:Book>'


@pytest.fixture(scope="module")
def article(tmp_path_factory: pytest.TempPathFactory) -> Read:
    return read_now(tmp_path_factory.mktemp("rdf"), {"lib/export.rdf": export(ARTICLE), **FILES})


def test_every_field_of_an_item_stands_in_its_document(article: Read) -> None:
    document = article.document
    assert article.summary.kind is SourceKind.ZOTERO_RDF
    fields = {
        "item_type": "journalArticle", "title": "Carbon in salt marshes", "year": 2020,
        "date": "Spring 2020 [printed 2021]", "doi": "10.1000/marsh.(2020)7", "issns": ("1234-5679",), "isbns": (),
        "url": "https://example.org/marsh?a=1&b=2", "venue": "Journal of Marshes", "volume": "12", "issue": "3",
        "pages": "101-120", "publisher": "Marsh Press", "language": "en",
        "abstract": "We measured carbon in forty marshes.", "collections": ("Wetlands",),
        "notes": ("My note\nRead & again", "PMID: 123456"),
    }  # fmt: skip
    assert {name: getattr(document, name) for name in fields} == fields
    assert [(one.name, one.is_automatic) for one in document.tags] == [
        ("carbon", False),
        ("blue carbon", True),
    ]


def test_people_stand_in_their_order_with_their_roles(article: Read) -> None:
    assert [(one.family, one.given, one.role) for one in article.document.creators] == [
        ("Šķēle", "Zoë", CreatorRole.AUTHOR),
        ("World Marsh Council", "", CreatorRole.AUTHOR),
        ("Adams", "Amy", CreatorRole.AUTHOR),
        ("Zeller", "Ed", CreatorRole.EDITOR),
        ("Baker", "Bo", CreatorRole.EDITOR),
        ("Reviewed", "", CreatorRole.OTHER),
    ]


def test_every_attachment_is_named_with_what_became_of_it(article: Read) -> None:
    found = {one.path: one.status for one in article.document.attachments}
    assert found == {
        "lib/files/2/Carbon in marshes.txt": AttachmentStatus.FOUND,
        "lib/files/3/second.txt": AttachmentStatus.FOUND,
        "files/4/lost.pdf": AttachmentStatus.MISSING,
        "lib/files/5/data.xlsx": AttachmentStatus.UNSUPPORTED,
        "https://example.org/page": AttachmentStatus.LINK,
    }
    assert {(one.code, one.subject) for one in article.document.warnings} == {
        ("attachment_missing", "files/4/lost.pdf"),
        ("attachment_unsupported", "lib/files/5/data.xlsx"),
        ("attachment_not_read", "lib/files/3/second.txt"),
    }


def test_the_full_text_is_that_of_the_first_attachment_that_has_one(article: Read) -> None:
    (name,) = article.documents
    assert article.texts(name, ChunkKind.PASSAGE) == [TEXT.decode()]
    assert article.texts(name, ChunkKind.TITLE) == ["Carbon in salt marshes"]
    assert article.texts(name, ChunkKind.ABSTRACT) == ["We measured carbon in forty marshes."]
    assert article.texts(name, ChunkKind.NOTE) == ["My note\nRead & again", "PMID: 123456"]
    assert {"carbon", "blue carbon"} <= set(article.texts(name, ChunkKind.CONCEPT))


def test_fields_that_no_document_holds_are_named(article: Read) -> None:
    left_out = {one.subject.rpartition("#")[2] for one in article.warnings if one.code == "field_not_kept"}
    assert left_out == {"citationKey", "locality"}


def one_book(tmp_path: Path, inside: str, *others: str) -> SpooledDocument:
    return read_now(
        tmp_path, {"a.rdf": export(book(1, f"<dc:title>A book</dc:title>{inside}"), *others)}
    ).document


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("2019", 2019), ("2019-03-12", 2019), ("12/03/2019", 2019), ("March 12, 2019", 2019), ("ca. 1850", 1850),
        ("[1978?]", 1978), ("1978/79", 1978), ("20150312", 2015), ("٢٠١٥", 2015), ("2015年3月", 2015), ("n.d.", None),
        ("forthcoming", None), ("12345", None), ("", None), ("Հունվար 1978", 1978), ("2019-00-00 2019", 2019),
    ],
)  # fmt: skip
def test_the_year_is_read_from_any_form_of_date(tmp_path: Path, date: str, year: int | None) -> None:
    document = one_book(tmp_path, f"<dc:date>{date}</dc:date>")
    assert document.year == year
    assert document.date == date


def test_a_person_nested_in_a_person_is_found(tmp_path: Path) -> None:
    nested = """<bib:authors><rdf:Seq><rdf:li><foaf:Person><foaf:Person><rdf:Description>
      <foaf:surname>Inner</foaf:surname></rdf:Description></foaf:Person></foaf:Person></rdf:li>
      <rdf:li><foaf:Person><foaf:surname>Outer</foaf:surname></foaf:Person></rdf:li></rdf:Seq></bib:authors>"""
    assert [one.family for one in one_book(tmp_path, nested).creators] == ["Inner", "Outer"]


def test_an_isbn_is_kept_with_thirteen_digits_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    document = one_book(
        tmp_path,
        "<dc:identifier>ISBN 0-306-40615-2</dc:identifier><dc:identifier>ISBN 978-0-00-000000-0</dc:identifier>",
    )
    assert document.isbns == ("9780306406157",)
    assert [(one.code, one.subject) for one in document.warnings] == [
        ("identifier_not_kept", "ISBN 978-0-00-000000-0")
    ]


def test_a_section_has_its_book_for_a_venue(tmp_path: Path) -> None:
    section = """<bib:BookSection rdf:about="#item_1"><z:itemType>bookSection</z:itemType><dc:title>A chapter</dc:title>
      <dcterms:isPartOf><bib:Book><dc:title>The book</dc:title><dc:identifier>ISBN 9780306406157</dc:identifier>
        <dcterms:isPartOf><bib:Series><dc:title>A series</dc:title></bib:Series></dcterms:isPartOf></bib:Book>
      </dcterms:isPartOf></bib:BookSection>"""
    document = read_now(tmp_path, {"a.rdf": export(section)}).document
    assert (document.venue, document.isbns) == ("The book", ("9780306406157",))


def test_an_attachment_without_an_item_is_a_document_and_one_without_a_file_is_rejected(
    tmp_path: Path,
) -> None:
    lone = '<z:Attachment rdf:about="#item_{0}"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="files/{0}/a.txt"/></z:Attachment>'
    files = {"a.rdf": export(lone.format(7), lone.format(8)), "files/7/a.txt": TEXT}
    read = read_now(tmp_path, files)
    assert read.documents.keys() == {"files/7/a.txt"}
    assert {name: one.reason for name, one in read.rejected.items()} == {
        "a.rdf: #item_8": DocumentRejectionReason.FILE_MISSING
    }


def test_a_note_without_an_item_is_a_document(tmp_path: Path) -> None:
    memo = '<bib:Memo rdf:about="#item_1"><rdf:value>&lt;p&gt;An idea&lt;/p&gt;&lt;p&gt;and more&lt;/p&gt;</rdf:value></bib:Memo>'
    document = read_now(tmp_path, {"a.rdf": export(memo)}).document
    assert (document.item_type, document.title, document.notes) == ("note", "An idea", ("An idea\nand more",))


@pytest.mark.parametrize(
    "iri",
    [
        "http://example.org/a b",
        "http://[::bad",
        "urn:",
        "",
        "%zz",
        "http://e.org/é|^`{}",
        "isbn:978 3",
        "a&lt;b&gt;",
    ],
)
def test_a_broken_iri_costs_nothing(tmp_path: Path, iri: str) -> None:
    item = f'<bib:Book rdf:about="{iri}"><z:itemType>book</z:itemType><dc:title>A book</dc:title></bib:Book>'
    assert read_now(tmp_path, {"a.rdf": export(item)}).document.title == "A book"


@pytest.mark.parametrize(
    ("inside", "title"),
    [
        ("<bib:authors><rdf:Seq><rdf:li><foaf:Person><foaf:surname>A</foaf:surname></foaf:Person></rdf:li></rdf:Seq></bib:authors>", ""),
        ("<dc:title>كتاب عن المستنقعات</dc:title>", "كتاب عن المستنقعات"),
        ("<dc:title>E\u0301tude  sur\n les \u0302marais</dc:title>", "\u00c9tude sur les \u0302marais"),
        ("<dc:title>\U00010348arsh 湿地 👩\u200d🔬</dc:title>", "\U00010348arsh 湿地 👩\u200d🔬"),
    ],
)  # fmt: skip
def test_an_item_is_imported_with_what_there_is(tmp_path: Path, inside: str, title: str) -> None:
    assert read_now(tmp_path, {"a.rdf": export(book(1, inside))}).document.title == title


def test_an_item_with_nothing_at_all_is_rejected_by_name(tmp_path: Path) -> None:
    read = read_now(
        tmp_path, {"a.rdf": export(book(1, "<dc:date>2001</dc:date>"), book(2, "<dc:title>B</dc:title>"))}
    )
    assert {name: one.reason for name, one in read.rejected.items()} == {
        "a.rdf: #item_1": DocumentRejectionReason.ITEM_EMPTY
    }
    assert read.documents.keys() == {"a.rdf: #item_2"}
    assert read.summary.item_count == 2


def test_two_items_with_one_doi_are_one_document_and_the_merge_is_named(tmp_path: Path) -> None:
    one = "<dc:title>Marshes</dc:title><dc:identifier>DOI 10.1000/X</dc:identifier><dc:subject>a</dc:subject>"
    other = "<dc:title>Marshes.</dc:title><dc:identifier>DOI https://doi.org/10.1000/x</dc:identifier><dc:subject>b</dc:subject>"
    read = read_now(tmp_path, {"a.rdf": export(book(1, one), book(2, other))})
    assert read.document.source_items == ("a.rdf: #item_1", "a.rdf: #item_2")
    assert [tag.name for tag in read.document.tags] == ["a", "b"]
    assert (read.summary.merged_count, read.summary.item_count) == (1, 2)
    assert [(w.code, w.subject) for w in read.warnings] == [("item_merged", "a.rdf: #item_2")]


def test_the_journal_s_doi_belongs_to_nobody_when_two_articles_share_the_journal(tmp_path: Path) -> None:
    journal = '<bib:Journal rdf:about="urn:issn:1234-5679"><dc:title>J</dc:title><dc:identifier>DOI 10.1000/x</dc:identifier></bib:Journal>'
    items = [
        f'<bib:Article rdf:about="#item_{n}"><z:itemType>journalArticle</z:itemType><dc:title>Paper {n}</dc:title>'
        '<dcterms:isPartOf rdf:resource="urn:issn:1234-5679"/></bib:Article>'
        for n in (1, 2)
    ]
    read = read_now(tmp_path, {"a.rdf": export(journal, *items)})
    assert len(read.documents) == 2
    assert all(one.doi is None and one.venue == "J" for one in read.documents.values())


def test_an_export_of_old_versions_names_its_types_by_classes_alone(tmp_path: Path) -> None:
    item = '<bib:Thesis rdf:about="http://example.org/t"><dc:title>A thesis</dc:title></bib:Thesis>'
    assert read_now(tmp_path, {"a.rdf": export(item)}).document.item_type == "thesis"


def test_diacritics_of_file_names_match_however_they_are_encoded(tmp_path: Path) -> None:
    attached = (
        book(1, '<dc:title>A</dc:title><link:link rdf:resource="#item_2"/>')
        + '<z:Attachment rdf:about="#item_2"><z:itemType>attachment</z:itemType>'
        '<rdf:resource rdf:resource="files/2/\u00c9tude.txt"/></z:Attachment>'
    )
    read = read_now(tmp_path, {"a.rdf": export(attached), "files/2/E\u0301tude.txt": TEXT})
    assert [one.status for one in read.document.attachments] == [AttachmentStatus.FOUND]


HOSTILE = {
    "entities": (HEAD.replace("<rdf:RDF", '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><rdf:RDF') + "</rdf:RDF>").encode(),
    "external entity": (HEAD.replace("<rdf:RDF", '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><rdf:RDF') + "</rdf:RDF>").encode(),
    "dtd": (HEAD.replace("<rdf:RDF", '<!DOCTYPE r SYSTEM "http://127.0.0.1:1/x.dtd"><rdf:RDF') + "</rdf:RDF>").encode(),
    "dtd over the end of a read": export(" " * (256 * 1024 - 4 - len(HEAD.encode())), "<!DOCTYPE x>"),
    "lower case": export("<!doctype x>"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_xml_with_entities_or_a_dtd_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScanFailed) as failed:
        read_now(tmp_path, {"a.rdf": HOSTILE[name]})
    assert failed.value.code == "xml_entities"
    found = validated(tmp_path, {"a.rdf": HOSTILE[name]})
    assert [one.code for one in found.problems if one.is_fatal] == ["xml_entities"]


@pytest.mark.parametrize(
    "data",
    [
        export(ARTICLE)[:-200],
        export(ARTICLE)[: -len("</rdf:RDF>")],
        export(ARTICLE).replace(b"</dc:title>", b"</dc:titel>", 1),
        export(ARTICLE).decode().encode("utf-16"),
        export('<!--" -- -->', "&nbsp;"),
        b"\xff\xfe\x00",
    ],
)
def test_xml_that_is_damaged_or_breaks_off_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ScanFailed) as failed:
        read_now(tmp_path, {"a.rdf": data})
    assert failed.value.code == "rdf_damaged"
    assert "export" in str(failed.value)


def test_of_damaged_xml_file_line_and_column_are_named(tmp_path: Path) -> None:
    attached = '<z:Attachment><rdf:resource rdf:resource="files/1/a.pdf"/></z:Attachment>'
    before, damaged = export(ARTICLE, attached + "</none>").split(b"</none>")
    with pytest.raises(ScanFailed) as failed:
        read_now(tmp_path, {"lib/a.rdf": before + b"</none>" + damaged})
    line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2]) + len("</") + 1
    assert failed.value.subject == f"lib/a.rdf: line {line}, column {column}"


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "files/../../../etc/passwd"]
)
def test_an_attachment_s_path_is_looked_up_among_the_files_alone(tmp_path: Path, path: str) -> None:
    attached = (
        book(1, '<dc:title>A</dc:title><link:link rdf:resource="#item_2"/>')
        + f'<z:Attachment rdf:about="#item_2"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="{path}"/></z:Attachment>'
    )
    document = read_now(tmp_path, {"a.rdf": export(attached)}).document
    assert [one.status for one in document.attachments] == [AttachmentStatus.MISSING]
    assert [one.code for one in document.warnings] == ["attachment_missing"]


def test_the_same_library_gives_the_same_ids_whatever_the_order_of_its_files(tmp_path: Path) -> None:
    def ids(name: str, files: dict[str, bytes | Path]) -> list[tuple[object, str]]:
        (tmp_path / name).mkdir()
        read = read_now(tmp_path / name, files)
        return [(one.document_id, one.content_hash) for one in read.documents.values()]

    files = {"lib/export.rdf": export(ARTICLE), **FILES}
    assert ids("a", files) == ids("b", dict(reversed(files.items())))
