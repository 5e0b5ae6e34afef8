"""Which documents of one library are the same work, though no identifier says so: an entry of a RIS file and the PDF beside it.

Only what comes from different files is joined, for an export that lists two items means two. Titles must be equal, and
nothing may speak against it; where two documents could be meant, none is. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eventlog.ids import normalise_name
from ingest.sources.item import Item, identity

TITLE_LETTERS_MIN = 20
"""“Introduction” and “Editorial” are titles of many works."""
DOCUMENTS_MAX = 50
"""Of one title; where there are more, it is no title of a work."""

_TYPES = {
    "article-journal": "journalarticle", "paper-conference": "conferencepaper", "chapter": "booksection",
    "article": "journalarticle", "article-magazine": "magazinearticle", "article-newspaper": "newspaperarticle",
    "entry-encyclopedia": "encyclopediaarticle", "software": "computerprogram",
}  # fmt: skip
"""Names that CSL has for what Zotero calls otherwise."""
_UNSPECIFIC = {"document", "", "webpage", "preprint"}
_RANKS = ("doi:", "isbn:", "uri:http", "sha256:")
"""Of two identities the document takes the one that other imports will most likely find again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A document as far as it is known before it is joined: its id, and the items that make it."""

    id: bytes
    items: tuple[Item, ...]


def work_key(item: Item) -> str:
    """Letters and digits of the title, empty where they are too few to tell a work by."""
    key = "".join(character for character in normalise_name(item.title) if character.isalnum())
    return key if len(key) >= TITLE_LETTERS_MIN else ""


def joined(documents: Sequence[Known]) -> list[list[Known]]:
    """Documents of one title, those that are one work together; a document that fits two works stays alone."""
    works: list[list[Known]] = []
    alone: list[list[Known]] = []
    for document in documents[: DOCUMENTS_MAX + 1]:
        fitting = [work for work in works if all(_may_be_one(document, other) for other in work)]
        if len(fitting) == 1:
            fitting[0].append(document)
        elif fitting:
            alone.append([document])
        else:
            works.append([document])
    return [] if len(documents) > DOCUMENTS_MAX else works + alone


def best_known(work: Sequence[Known]) -> bytes:
    """The id that the work takes."""
    return min(work, key=_rank).id


def _rank(document: Known) -> int:
    told = identity(document.items[0])
    return next((rank for rank, prefix in enumerate(_RANKS) if told.startswith(prefix)), len(_RANKS))


def _may_be_one(one: Known, other: Known) -> bool:
    return all(_agree(a, b) for a in one.items for b in other.items)


def _agree(one: Item, other: Item) -> bool:
    files = _is_file(one) + _is_file(other)
    if files == 2 or _origin(one) == _origin(other):
        return False
    if one.doi and other.doi and one.doi != other.doi:
        return False
    if one.isbns and other.isbns and not set(one.isbns) & set(other.isbns):
        return False
    families = [{normalise_name(creator.family) for creator in item.creators} for item in (one, other)]
    if all(families) and not families[0] & families[1]:
        return False
    if files:
        return True  # Of its year and type a file tells what its program thought.
    types = {_type(one), _type(other)} - _UNSPECIFIC
    return len(types) <= 1 and (one.year is None or other.year is None or one.year == other.year)


def _is_file(item: Item) -> bool:
    return item.name in item.bodies


def _origin(item: Item) -> str:
    """The file that names the item: `path: line 7` and `path: #item_3` begin with it."""
    return item.name if _is_file(item) else item.name.partition(": ")[0]


def _type(item: Item) -> str:
    kind = item.item_type.casefold()
    return _TYPES.get(kind, kind)
