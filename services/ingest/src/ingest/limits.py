"""What one library, one file and one document may cost. Each figure says what it protects."""

ADDRESS_SPACE_BYTES = 256 * 1024 * 1024
"""Of the parser's child, so that no file can eat the container (measured: PDFs of 1,500 pages need 110 MB)."""
CPU_S_PER_DOCUMENT = 60
WALL_S_PER_DOCUMENT = 90
WALL_S_PER_SCAN = 900
SPOOL_BYTES = 512 * 1024 * 1024
"""The largest file that the child may write."""

PDF_BYTES_MAX = 100 * 1024 * 1024
PDF_PAGES_MAX = 2_000
TEXT_FILE_BYTES_MAX = 50 * 1024 * 1024
BODY_CHARACTERS_MAX = 12_000_000
"""A thousand-page book has about three million."""
TEXT_CHARACTERS_MIN = 100
"""A PDF with less is scanned, as far as we can tell (BASELINE.md section 3)."""

ITEMS_MAX = 200_000
ITEM_CHARACTERS_MAX = 1_000_000
FIELD_CHARACTERS_MAX = 2_000
ABSTRACT_CHARACTERS_MAX = 50_000
NOTES_MAX = 50
NOTE_CHARACTERS_MAX = 20_000
NOTE_CHARACTERS_IN_EVENT = 2_000
"""Notes stand whole in chunks; the event carries their beginnings."""
CREATORS_MAX = 500
TAGS_MAX = 200
ATTACHMENTS_MAX = 100
SECTIONS_MAX = 1_000
CONCEPTS_MAX = 60
KEYPHRASES_MAX = 8
WARNINGS_PER_DOCUMENT_MAX = 50

CHUNK_BYTES = 1_600
"""About 400 tokens at 4 bytes of UTF-8 a token (docs/decisions/0009)."""
CHUNK_OVERLAP_BYTES = 200
CHUNK_CHARACTERS_MAX = 6_000
"""No provider refuses so much: at most some 6,000 tokens in any script."""
