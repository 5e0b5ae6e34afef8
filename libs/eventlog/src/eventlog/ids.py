"""Identities: distinct types over UUID, and how each is derived.

Nothing here draws an id twice for one thing: every derived id is a `uuid5` of stable parts (DESIGN.md, Ids),
so that a repeat of the same work lands on what the first try left. Only `new_import_id` draws.
"""

import hashlib
import re
import unicodedata
import uuid
from functools import lru_cache
from typing import NewType
from uuid import UUID

ImportId = NewType("ImportId", UUID)
ProjectId = NewType("ProjectId", UUID)
DocumentId = NewType("DocumentId", UUID)
ChunkId = NewType("ChunkId", UUID)
EmbeddingKey = NewType("EmbeddingKey", UUID)
ConceptId = NewType("ConceptId", UUID)
AuthorId = NewType("AuthorId", UUID)
SectionId = NewType("SectionId", UUID)
EdgeId = NewType("EdgeId", UUID)
StoreId = NewType("StoreId", UUID)
EventId = NewType("EventId", UUID)

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:paperlog")
"""The root of every derived id; changing it makes every library a stranger to its own history."""

_NOT_WORD = re.compile(r"[^\w]+")


def _derive(namespace: UUID, *parts: object) -> UUID:
    # A unit separator keeps ("a", "bc") and ("ab", "c") apart.
    return uuid.uuid5(namespace, "\x1f".join(str(part) for part in parts))


@lru_cache(maxsize=4096)
def id_text(id_: UUID) -> str:
    """`str(id_)`, kept: a record names its ids three times, and its neighbours are of the same import."""
    return str(id_)


def text_sha256(text: str) -> str:
    """Hex SHA-256 of the text in UTF-8; raises UnicodeEncodeError on lone surrogates."""
    return hashlib.sha256(text.encode()).hexdigest()


def normalise_name(name: str) -> str:
    """NFKC, casefolded, white space folded: the form under which a project or a concept is one thing."""
    if name.isascii():
        return " ".join(name.lower().split())  # the same, quicker
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def normalise_person(family: str, given: str) -> str:
    """`family, given` without case, punctuation or doubled spaces; scripts and diacritics are kept."""
    parts = (" ".join(_NOT_WORD.sub(" ", normalise_name(part)).split()) for part in (family, given))
    return ", ".join(part for part in parts if part)


def project_id(name: str) -> ProjectId:
    return ProjectId(_derive(NAMESPACE, "project", unicodedata.normalize("NFC", name.strip()).casefold()))


def import_id_of_key(caller: str, idempotency_key: str) -> ImportId:
    """The import of an idempotency key; `caller` is the authenticated principal or `anonymous`."""
    return ImportId(_derive(NAMESPACE, "import", "key", caller, idempotency_key))


def import_id_of_command(ce_source: str, ce_id: str) -> ImportId:
    """The import of a command that a producer may send again under the same CloudEvents identity."""
    return ImportId(_derive(NAMESPACE, "import", "command", ce_source, ce_id))


def import_id_of_coordinates(topic: str, partition: int, offset: int) -> ImportId:
    """The import of a command that carries no identity but its place in the log."""
    return ImportId(_derive(NAMESPACE, "import", "coordinates", topic, partition, offset))


def new_import_id() -> ImportId:
    """Drawn once, before the command is written; never on reading."""
    return ImportId(uuid.uuid4())


def document_id(project: ProjectId, identity: str) -> DocumentId:
    """`identity` is scheme and value, e.g. `doi:10.1000/182`, `isbn:978…|title`, `uri:…`, `sha256:…`."""
    return DocumentId(_derive(project, "document", identity))


def section_id(document: DocumentId, index: int, title: str) -> SectionId:
    return SectionId(_derive(document, "section", index, title))


def chunk_id(document: DocumentId, chunker_version: str, part: str, index: int, text: str) -> ChunkId:
    """`index` counts within the part: a tag more does not make other chunks of the passages."""
    return ChunkId(_derive(document, "chunk", chunker_version, part, index, text_sha256(text)))


def embedding_key(project: ProjectId, text: str) -> EmbeddingKey:
    """The same for every space: the same text always meets the same worker."""
    return EmbeddingKey(_derive(project, "text", text_sha256(text)))


def concept_id(project: ProjectId, name: str) -> ConceptId:
    return ConceptId(_derive(project, "Concept", normalise_name(name)))


def author_id(project: ProjectId, family: str, given: str, orcid: str = "") -> AuthorId:
    """An ORCID identifies first; otherwise the normalised name does."""
    if orcid:
        return AuthorId(_derive(project, "Author", "orcid", orcid.upper()))
    return AuthorId(_derive(project, "Author", normalise_person(family, given)))


def edge_id(source: UUID, type_: str, target: UUID, document: DocumentId, part: str) -> EdgeId:
    return EdgeId(_derive(source, "edge", type_, target, document, part))


def event_id(type_: str, subject: str, attempt: int, body: bytes) -> EventId:
    """`body` is the Avro body without its first field, `occurred_at`: a fact said again has the same id."""
    return EventId(_derive(NAMESPACE, "event", type_, subject, attempt, hashlib.sha256(body).hexdigest()))
