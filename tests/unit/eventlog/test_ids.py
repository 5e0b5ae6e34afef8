"""Ids are derived the same way for ever: the values here were written once and do not change."""

import random
import unicodedata
from uuid import UUID

import pytest

from eventlog import ids
from eventlog.ids import DocumentId, ProjectId

PROJECT = ProjectId(UUID("11111111-1111-5111-8111-111111111111"))
DOCUMENT = DocumentId(UUID("22222222-2222-5222-8222-222222222222"))

GOLDEN = {
    "namespace": ids.NAMESPACE,
    "project": ids.project_id("Reading list"),
    "import of a key": ids.import_id_of_key("anonymous", "k1"),
    "import of a command": ids.import_id_of_command("urn:producer", "42"),
    "import of coordinates": ids.import_id_of_coordinates("import-requests", 0, 17),
    "document": ids.document_id(PROJECT, "doi:10.1000/182"),
    "section": ids.section_id(DOCUMENT, 2, "Results"),
    "chunk": ids.chunk_id(DOCUMENT, "1", "full_text", 7, "Some text."),
    "embedding key": ids.embedding_key(PROJECT, "Some text."),
    "concept": ids.concept_id(PROJECT, "Machine  Learning"),
    "author": ids.author_id(PROJECT, "García Márquez", "Gabriel"),
    "author by ORCID": ids.author_id(PROJECT, "García", "G.", "0000-0002-1825-009x"),
    "edge": ids.edge_id(DOCUMENT, "HAS_AUTHOR", PROJECT, DOCUMENT, "bibliographic"),
    "event": ids.event_id("ImportFailed", "s", 1, b"body"),
}
WRITTEN = {
    "namespace": "0926018a-0177-553d-b381-a864f692edf4",
    "project": "a74ba559-e13b-564c-8152-72a30b90b915",
    "import of a key": "0bea7b9a-4631-5bc3-96ab-6f0b47cdb191",
    "import of a command": "dcd4af5f-e0d7-5ab3-a1bb-e945f413ba71",
    "import of coordinates": "d9b5355c-b40e-5ddb-b349-c8ca5b619bcb",
    "document": "285cc58a-a6ab-5613-9249-89b26f11a475",
    "section": "7d1f824c-9bd1-5715-bb6b-9165c7a587dc",
    "chunk": "e01e8e1e-3d0e-563c-a51d-bbebeb68add7",
    "embedding key": "9da063a9-f787-5d5e-a570-83d3c54621e1",
    "concept": "7e43a72c-e0a1-5026-8d4d-f992814fd43a",
    "author": "22bd724a-cc67-5e05-8883-87b17104ca77",
    "author by ORCID": "5c6842a7-e72c-5d86-ba28-3b10769e7f9d",
    "edge": "85838236-9900-5abf-b233-65188bb59fc5",
    "event": "f0351430-3135-5fb3-8709-be0b80c60cab",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_an_id_is_derived_as_it_always_was(name: str):
    assert str(GOLDEN[name]) == WRITTEN[name]


def test_every_golden_id_is_another_one():
    assert len(set(GOLDEN.values())) == len(GOLDEN) == len(WRITTEN)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Reading List", "reading list"),
        (" Lecture ", "Lecture"),
        ("Cafe\u0301", "CAFÉ"),
        ("STRASSE", "straße"),
    ],
)
def test_a_project_is_one_under_every_spelling_of_its_name(one: str, other: str):
    assert ids.project_id(one) == ids.project_id(other)


def test_projects_of_different_names_differ():
    assert len({ids.project_id(name) for name in ("a", "b", "a b", "ab", "")}) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Machine Learning", "machine\u00a0\u2009learning"),
        ("ﬁeld", "FIELD"),
        ("\uff27\uff45\uff4e\uff45", "gene"),
        ("e\u0301tude", "Étude"),
        ("  x\ty\n", "x y"),
    ],
)
def test_a_concept_is_one_under_every_spelling(one: str, other: str):
    assert ids.normalise_name(one) == ids.normalise_name(other)
    assert ids.concept_id(PROJECT, one) == ids.concept_id(PROJECT, other)


def test_what_is_ascii_is_normalised_as_it_is_beside_other_letters():
    for code in range(128):
        name = f"{chr(code)}a{chr(code)}B {chr(code)}"
        assert ids.normalise_name(f"{name} \u00e9").removesuffix("\u00e9").rstrip(" ") == ids.normalise_name(
            name
        )


def test_normalising_twice_changes_nothing_more():
    rng = random.Random(7)
    for _ in range(3000):
        text = "".join(chr(rng.choice((rng.randrange(0x250), rng.randrange(0xD800)))) for _ in range(8))
        once = ids.normalise_name(text)
        assert ids.normalise_name(once) == once, [unicodedata.name(c, hex(ord(c))) for c in text]
        person = ids.normalise_person(text, text)
        assert ids.normalise_person(*person.split(", ", 1)) == person if ", " in person else True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("O'Neil", "Cathy"), ("o\u2019neil", "cathy")),
        (("Müller", "A. B."), ("MÜLLER", "A B")),
        (("Silva,", "João"), ("silva", "joão")),
    ],
)
def test_an_author_is_one_under_every_punctuation(one: tuple[str, str], other: tuple[str, str]):
    assert ids.author_id(PROJECT, *one) == ids.author_id(PROJECT, *other)


def test_authors_keep_their_script_and_diacritics():
    names = [
        ("Müller", "A"),
        ("Muller", "A"),
        ("Мюллер", "Б"),
        ("A", "Müller"),
        ("毛", "泽东"),
        ("", "Plato"),
    ]
    assert len({ids.author_id(PROJECT, *name) for name in names}) == len(names)


def test_an_orcid_identifies_before_the_name():
    by_orcid = ids.author_id(PROJECT, "Curie", "Marie", "0000-0002-1825-0097")
    assert ids.author_id(PROJECT, "Sklodowska", "M.", "0000-0002-1825-0097") == by_orcid
    assert ids.author_id(PROJECT, "Curie", "Marie") != by_orcid


def test_parts_of_an_id_do_not_run_together():
    assert ids.import_id_of_key("a", "bc") != ids.import_id_of_key("ab", "c")
    assert ids.import_id_of_key("a", "b") != ids.import_id_of_command("a", "b")
    assert ids.author_id(PROJECT, "Ana", "Lee") != ids.author_id(PROJECT, "Ana Lee", "")


def test_the_same_text_in_another_place_is_another_chunk_with_the_same_embedding_key():
    one = ids.chunk_id(DOCUMENT, "1", "full_text", 0, "t")
    assert one != ids.chunk_id(DOCUMENT, "1", "full_text", 1, "t")
    assert one != ids.chunk_id(DOCUMENT, "2", "full_text", 0, "t")
    assert one != ids.chunk_id(DOCUMENT, "1", "bibliographic", 0, "t")
    assert ids.embedding_key(PROJECT, "t") != ids.embedding_key(ids.project_id("other"), "t")


def test_a_drawn_import_id_is_new_each_time():
    assert ids.new_import_id() != ids.new_import_id()
