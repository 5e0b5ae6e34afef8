"""What one library, one file and one document may cost. Each figure says what it protects."""

ADDRESS_SPACE_BYTES = 224 * 1024 * 1024
"""Of the parser's child, so that no file can eat the container (measured: 2,000 dense pages of PDF need 94 MB, a DOCX whose
styles are as large as they may be 120, Zotero RDF of 70 MB 71)."""
CPU_S_PER_DOCUMENT = 60
WALL_S_PER_DOCUMENT = 90
WALL_S_PER_SCAN = 900
SPOOL_BYTES = 2 * 1024 * 1024 * 1024
"""The largest file that the child may write: a library's cross-references, a document's chunks."""
BODIES_TRIED_MAX = 3
"""Of an item's files, until one gives a text; each may take the time of a document."""

PDF_BYTES_MAX = 100 * 1024 * 1024
PDF_PAGES_MAX = 2_000
TEXT_FILE_BYTES_MAX = 50 * 1024 * 1024
PACKAGE_BYTES_MAX = 200 * 1024 * 1024
"""Of a DOCX or EPUB with its pictures, which are not unpacked."""
PACKAGE_ENTRIES_MAX = 20_000
PACKAGE_TEXT_BYTES_MAX = 128 * 1024 * 1024
"""Unpacked, of what is read of one, a piece or a chapter at a time."""
PACKAGE_CHAPTER_BYTES_MAX = 16 * 1024 * 1024
PACKAGE_TREE_BYTES_MAX = 6 * 1024 * 1024
"""Of the parts that are read as a tree, which takes 25 times as much memory (measured)."""
BODY_CHARACTERS_MAX = 12_000_000
"""A thousand-page book has about three million."""
TEXT_BYTES_MIN = 100
"""A PDF with less is scanned, as far as we can tell; bytes, since a Chinese sentence has thirty characters."""

ITEMS_MAX = 200_000
ITEM_CHARACTERS_MAX = 1_000_000
FIELD_CHARACTERS_MAX = 2_000
ABSTRACT_CHARACTERS_MAX = 50_000
NOTES_MAX = 50
NOTE_CHARACTERS_MAX = 20_000
NOTE_CHARACTERS_IN_EVENT = 2_000
"""Notes stand whole in chunks; the event carries their beginnings."""
CREATORS_MAX = 500
TAGS_MAX = 500
ATTACHMENTS_MAX = 100
SECTIONS_MAX = 1_000
MENTIONS_MAX = 2_000
"""Chunks that a concept is said to be mentioned in."""
SOURCE_ITEMS_MAX = 500
IDENTIFIERS_MAX = 50
COLLECTIONS_MAX = 100
DOCUMENT_LINE_BYTES_MAX = 4_000_000
"""Of a document's own line, chunks apart: what the log takes in one record is 4 MiB, and ids are shorter there."""
CONCEPTS_MAX = 60
KEYPHRASES_MAX = 8
WARNINGS_PER_DOCUMENT_MAX = 50

CHUNK_BYTES = 1_800
"""At most 400 tokens of English, about 360 on average; 700 in Chinese and formulas (docs/decisions/0009)."""
CHUNK_OVERLAP_BYTES = 240
"""50 tokens of English."""
