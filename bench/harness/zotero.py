"""A Zotero RDF export of a wanted size: articles with people, tags, an abstract, a note and a journal, made from seeds."""

import random
from itertools import count
from pathlib import Path

from harness.corpus import vocabulary

_HEAD = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:z="http://www.zotero.org/namespaces/export#"
 xmlns:dcterms="http://purl.org/dc/terms/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:bib="http://purl.org/net/biblio#" xmlns:foaf="http://xmlns.com/foaf/0.1/">
"""


def write_zotero(path: Path, size_bytes: int) -> int:
    """The number of items."""
    words, weights = vocabulary()
    rng = random.Random(size_bytes)
    path.parent.mkdir(parents=True, exist_ok=True)

    def prose(length: int) -> str:
        return " ".join(rng.choices(words, cum_weights=weights, k=length)).capitalize() + "."

    with path.open("w", encoding="utf-8") as file:
        file.write(_HEAD)
        for number in count(1):
            people = "".join(
                f"<rdf:li><foaf:Person><foaf:surname>{rng.choice(words).title()}</foaf:surname>"
                f"<foaf:givenName>{rng.choice('ABCDEFGH')}.</foaf:givenName></foaf:Person></rdf:li>"
                for _ in range(rng.randint(1, 6))
            )
            tags = "".join(f"<dc:subject>{rng.choice(words)}</dc:subject>" for _ in range(4))
            file.write(
                f'<bib:Article rdf:about="#item_{number}"><z:itemType>journalArticle</z:itemType>'
                f'<dcterms:isPartOf rdf:resource="urn:issn:1234-{number % 300:04}"/>'
                f"<bib:authors><rdf:Seq>{people}</rdf:Seq></bib:authors>{tags}"
                f'<dcterms:isReferencedBy rdf:resource="#note_{number}"/>'
                f"<dc:title>{prose(9)} {number}</dc:title><dcterms:abstract>{prose(220)}</dcterms:abstract>"
                f"<dc:date>{rng.randint(1960, 2025)}</dc:date>"
                f"<dc:identifier>DOI 10.5555/{number}</dc:identifier></bib:Article>\n"
                f'<bib:Memo rdf:about="#note_{number}"><rdf:value>{prose(200)}</rdf:value></bib:Memo>\n'
            )
            if file.tell() >= size_bytes:
                break
        for journal in range(300):
            file.write(
                f'<bib:Journal rdf:about="urn:issn:1234-{journal:04}"><dc:title>{prose(3)}</dc:title></bib:Journal>\n'
            )
        file.write("</rdf:RDF>\n")
    return number
