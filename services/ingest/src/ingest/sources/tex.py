"""TeX as BibTeX fields have it, as plain text: accents, Greek letters, braces and a few commands. Nothing is executed.

A command that nobody knows loses its name and keeps its argument.
"""

import logging
import re
from collections.abc import Iterator
from functools import lru_cache

from pylatexenc.latex2text import LatexNodes2Text

from ingest.cleaning import clean

_MARKUP = re.compile(r"[\\{}$~]|--|``|''")
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_URL_ESCAPE = re.compile(r"\\([#$%&_{}~^])(?:\{\})?")
_DELIMITER = re.compile(r"\\.|[{}$]", re.DOTALL)
_WANTS_MORE = re.compile(r"\\(?:[A-Za-z]+|[\"'`^~=.])$")
_WORDS_AT_ONCE = 500
_CONVERTED_CHARACTERS_MAX = 5_000
"""Beyond, what looks like TeX is no title, and would take the parser longer than all the rest."""

logging.getLogger("pylatexenc").setLevel(logging.CRITICAL + 1)  # it quotes what it reads
_TO_TEXT = LatexNodes2Text(math_mode="text", keep_comments=True)


def tex_to_text(text: str) -> str:
    """Paragraphs stay paragraphs; other line ends are blanks, as they are in TeX."""
    paragraphs = (" ".join(_in_words(one)) for one in _PARAGRAPH.split(clean(text)))
    return "\n\n".join(one for one in paragraphs if one)


def _in_words(text: str) -> Iterator[str]:
    """Word by word, where braces and mathematics do not hold several together: the parser is slow, and most words are plain."""
    held: list[str] = []
    depth = dollars = 0
    for word in text.split():
        if not held and not _MARKUP.search(word):
            yield word
            continue
        held.append(word)
        for mark in _DELIMITER.findall(word):
            depth += (mark == "{") - (mark == "}")
            dollars += mark == "$"
        is_whole = depth <= 0 and dollars % 2 == 0 and not _WANTS_MORE.search(word)
        if is_whole or len(held) == _WORDS_AT_ONCE:
            yield from _converted(" ".join(held)).split()
            held, depth, dollars = [], 0, 0
    if held:
        yield from _converted(" ".join(held)).split()


@lru_cache(maxsize=4_096)
def _converted(text: str) -> str:
    if len(text) <= _CONVERTED_CHARACTERS_MAX:
        try:
            return clean(str(_TO_TEXT.latex_to_text(text)))
        except Exception:  # noqa: BLE001, S110 - a stranger's TeX raises anything; its words are worth having all the same
            pass
    return re.sub(r"[{}$\\]", "", text)


def unescaped(text: str) -> str:
    r"""An address or a path with TeX's escapes taken out, as programs put them in: `\_`, `{\_}`, `$\backslash$`."""
    text = text.replace("$\\backslash$", "\\").replace("{\\_}", "_").replace("{\\&}", "&")
    text = (
        text.replace("\\textasciitilde{}", "~")
        .replace("{\\textasciitilde}", "~")
        .replace("\\textasciitilde", "~")
    )
    return _URL_ESCAPE.sub(r"\1", text)
