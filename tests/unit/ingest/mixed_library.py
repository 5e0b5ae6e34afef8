"""Forty files of all kinds in one folder, good ones and bad ones, and what is to come of them."""

import json
from pathlib import Path

from tests.unit.ingest.office_makers import epub, rezipped, word, zipped
from tests.unit.ingest.pdf_makers import TEXT, TITLE
from tests.unit.ingest.raw_pdf import a_page

from eventlog.events import DocumentRejectionReason as Reason


def paper(title: str, says: str) -> bytes:
    """A PDF of one page, without a DOI."""
    text = TEXT.replace(TITLE, title).replace("Marsh sediments hold most of it below one metre", says)
    return a_page("\n".join(text.split("\n")[:-2])).classic()


_RDF = """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:z="http://www.zotero.org/namespaces/export#"
 xmlns:bib="http://purl.org/net/biblio#" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:link="http://purl.org/rss/1.0/modules/link/">
<bib:Book rdf:about="#item_1"><z:itemType>book</z:itemType><dc:title>Peat and its keepers in the lowlands</dc:title>
 <dc:date>2001</dc:date><link:link rdf:resource="#item_2"/></bib:Book>
<z:Attachment rdf:about="#item_2"><z:itemType>attachment</z:itemType><rdf:resource rdf:resource="files/2/peat.pdf"/></z:Attachment>
</rdf:RDF>"""
_JABREF = r"""% Encoding: UTF-8

@Article{Mueller2020,
  author   = {M{\"u}ller, Karl and {World Marsh Council} and others},
  title    = {Sediment accretion under rising tides in the {Wadden Sea}},
  journal  = {Journal of Marshes},
  year     = {2020},
  doi      = {10.1000/accretion.1},
  file     = {:Mueller2020 - Sediment accretion.pdf:PDF},
  keywords = {accretion, tide},
  groups   = {Coasts},
}

@Article{Broken2019,
  title = {An entry whose braces never close,
  year  = {2019},

@Comment{jabref-meta: databaseType:bibtex;}
"""
_BIBLATEX = r"""@inproceedings{okonjo2021,
  author = {Okonjo, Ada}, title = {Mapping seagrass meadows with drones}, crossref = {coast2021}, pages = {3--9},
}
@proceedings{coast2021, title = {Proceedings of the Coastal Workshop}, date = {2021-06}, publisher = {Coast Press}}
"""
_RIS = """TY  - JOUR
TI  - Mangrove roots slow the flow of water at the coast
AU  - Tanaka, Yuki
PY  - 2018
T2  - Hydrology Letters
L1  - file:///C:/Users/y/Zotero/storage/KEY1/Mangrove%20roots.pdf
ER  -

TY  - JOUR
TI  - Tidal wetlands store carbon for centuries
AU  - Lovelace, Ada
PY  - 1999
ER  -
"""
_ENDNOTE = """TY  - BOOK
AU  - Haddad, Leila
PY  - 2011
TI  - Dunes of the southern shore
KW  - dunes
sand
ER  -
"""
_PUBMED = """
PMID- 30000001
DP  - 2019 Mar
TI  - Naps after learning and the memory of
      places.
FAU - Silva, Rosa
LID - 10.1000/naps.1 [doi]
JT  - Sleep Studies
OT  - nap
"""
_WOS = """FN Clarivate Analytics Web of Science
VR 1.0
PT J
AU Ivanov, P
AF Ivanov, Petr
TI Freezing soils and the release of methane
SO PERMAFROST REPORTS
PY 2016
ER

EF
"""
_CSV = (
    '"Key","Item Type","Publication Year","Author","Title","DOI","File Attachments","Manual Tags"\n'
    '"AAAA1111","journalArticle","2020","Müller, Karl","Sediment accretion under rising tides in the Wadden Sea","","","mud"\n'
    '"BBBB2222","report","2015","Costa, Ines","Flood maps of the river delta","","files/7/flood.docx",""\n'
)
_CSL = [
    {
        "id": "kim2017",
        "type": "article-journal",
        "title": "갯벌의 탄소 저장량",
        "issued": {"date-parts": [[2017]]},
    },
    {
        "id": "wang2014",
        "type": "book",
        "title": "Salt and rice: fields at the sea",
        "issued": {"date-parts": [[2014]]},
    },
]
_TABLE = """paperId,title,authors,year,decision,abstract
s1,Oyster reefs as breakwaters in shallow bays,"Reef, Ann",2020,include,Reefs break waves.
s2,Nothing about the coast,"No, One",2020,exclude,
"""
_ENCRYPTED_DOCX = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2_000) + "EncryptedPackage".encode("utf-16-le") + bytes(500)
)

FILES: dict[str, bytes | Path] = {
    # exports, and what they name
    "zotero/My Library.rdf": _RDF.encode(),
    "zotero/files/2/peat.pdf": paper("Peat and its keepers", "Peat keeps pollen for ten thousand years"),
    "jabref.bib": _JABREF.encode(),
    "Mueller2020 - Sediment accretion.pdf": paper(
        "Sediment accretion", "Mud settles where the plants stand close"
    ),
    "biblatex.bib": _BIBLATEX.encode("utf-8-sig"),
    "zotero.ris": _RIS.replace("\n", "\r\n").encode(),
    "KEY1/Mangrove roots.pdf": paper("Mangrove roots", "Roots take half of the speed out of a wave"),
    "endnote.txt": _ENDNOTE.encode(),
    "pubmed.nbib": _PUBMED.encode(),
    "savedrecs.ciw": _WOS.encode("utf-8-sig"),
    "zotero.csv": _CSV.encode("utf-8-sig"),
    "files/7/flood.docx": word("Flood maps", [("Maps", "The delta floods where the dikes are oldest.")]),
    "csl.json": json.dumps(_CSL).encode(),
    "review/config.yaml": b"project: {name: Reefs}\nsearch: {}\nprisma: {}\n",
    "review/.scholarag": b"",
    "review/data/02_screening/relevant_papers.csv": _TABLE.encode(),
    "review/data/03_pdfs/s1.pdf": paper("Oyster reefs", "Reefs grow as fast as the sea rises"),
    "review/rag/chroma_db/chroma.sqlite3": b"SQLite format 3\x00",
    # documents of their own
    "tidal.pdf": paper(TITLE, "Marsh sediments hold most of it below one metre"),
    "lagoon.pdf": paper("Lagoons behind barrier islands", "Barrier islands wander landwards"),
    "draft.docx": word(
        "Beaver dams and groundwater", [("Results", "Groundwater rose by half a metre above the dams.")]
    ),
    "notes.docm": word(
        "Field notes from the estuary", [("June", "The estuary smelled of sulphur at low tide.")]
    ),
    "birds.epub": epub(
        "Birds of the mudflats", ["<h1>Waders</h1><p>Dunlins feed at night when the flats are bare.</p>"]
    ),
    "ferns.epub": epub(
        "Ferns of wet forests", ["<h1>Spores</h1><p>Fern spores cross oceans on the wind.</p>"]
    ),
    "readme.md": b"---\ntitle: Reading group minutes\nauthor: Ada Okonjo\ntags: [minutes]\n---\n\nWe read about eelgrass and its meadows.",
    "plain.txt": b"Letters from the lighthouse\n\nThe keeper counted eleven ships in the fog.",
    "latin.txt": "Über Salzwiesen\n\nDie Wiesen am Meer blühen im September.".encode("latin-1"),
    "arabic.txt": "كتاب عن البحر\n\nالبحر واسع وعميق.".encode("utf-16"),  # noqa: RUF001 - Arabic is meant
    # and what cannot be used
    "bad/broken.bib": b"@article{a, title = {Never closed",
    "bad/broken.ris": b"This is no list of references.\n",
    "bad/broken.csv": b'"Key","Item Type","Title"\n"A","book","Unclosed',
    "bad/broken.json": b'[{"title": "Unclosed',
    "bad/broken.rdf": b"<rdf:RDF",
    "bad/broken.docx": b"PK\x03\x04 and nothing more",
    "bad/secret.docx": _ENCRYPTED_DOCX,
    "bad/bomb.docx": rezipped(word("Bomb", []), {"word/styles.xml": bytes(64 * 1024**2)}),
    "bad/broken.epub": zipped({"mimetype": "application/epub+zip"}),
    "bad/broken.pdf": b"%PDF-1.4 and nothing more",
    "bad/empty.txt": b"",
    "bad/old.doc": b"\xd0\xcf\x11\xe0 old",
}

TITLES = {
    "Peat and its keepers in the lowlands", "Sediment accretion under rising tides in the Wadden Sea",
    "Mapping seagrass meadows with drones", "Proceedings of the Coastal Workshop",
    "Mangrove roots slow the flow of water at the coast", TITLE, "Dunes of the southern shore",
    "Naps after learning and the memory of places.", "Freezing soils and the release of methane",
    "Flood maps of the river delta", "갯벌의 탄소 저장량", "Salt and rice: fields at the sea",
    "Oyster reefs as breakwaters in shallow bays", "Lagoons behind barrier islands", "Beaver dams and groundwater",
    "Field notes from the estuary", "Birds of the mudflats", "Ferns of wet forests", "Reading group minutes",
    "Letters from the lighthouse", "Über Salzwiesen", "كتاب عن البحر",
}  # fmt: skip
REJECTED = {
    "jabref.bib: line 14": Reason.ITEM_INVALID,
    "bad/broken.bib: line 1": Reason.ITEM_INVALID,
    "bad/broken.bib": Reason.FILE_DAMAGED,
    "bad/broken.ris": Reason.FILE_DAMAGED,
    "bad/broken.csv": Reason.FILE_DAMAGED,
    "bad/broken.json": Reason.FILE_DAMAGED,
    "bad/broken.rdf: line 1, column 1": Reason.FILE_DAMAGED,
    "bad/broken.docx": Reason.FILE_DAMAGED,
    "bad/secret.docx": Reason.FILE_ENCRYPTED,
    "bad/bomb.docx": Reason.TEXT_TOO_LONG,
    "bad/broken.epub": Reason.FILE_DAMAGED,
    "bad/broken.pdf": Reason.PDF_DAMAGED,
    "bad/empty.txt": Reason.FILE_EMPTY,
    "bad/old.doc": Reason.FILE_UNSUPPORTED,
}
MERGED = {"jabref.bib: line 3 (Mueller2020)", "tidal.pdf"}
"""Doubles: of an entry in another export, and of an entry without a file."""
FOUND_BY = {
    "pollen ten thousand years": "Peat and its keepers in the lowlands",
    "mud settles plants": "Sediment accretion under rising tides in the Wadden Sea",
    "speed of a wave": "Mangrove roots slow the flow of water at the coast",
    "dikes are oldest": "Flood maps of the river delta",
    "reefs grow as fast": "Oyster reefs as breakwaters in shallow bays",
    "sediments below one metre": TITLE,
    "groundwater above the dams": "Beaver dams and groundwater",
    "sulphur at low tide": "Field notes from the estuary",
    "dunlins feed at night": "Birds of the mudflats",
    "spores cross oceans": "Ferns of wet forests",
    "eelgrass meadows": "Reading group minutes",
    "eleven ships in the fog": "Letters from the lighthouse",
    "blühen im September": "Über Salzwiesen",
}
"""Words that stand in one full text alone, and the title of its document."""
