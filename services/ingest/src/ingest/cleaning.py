"""Text as we keep it: NFC, without NUL, lone surrogates and control characters; scripts and directions untouched."""

import html
import re
import unicodedata

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_SPACES = re.compile(r"\s+")
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)[^<>]{0,2000}>")
_HIDDEN = re.compile(r"<(script|style|head)\b.{0,100000}?</\1\s*>", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"<!--.{0,100000}?-->", re.DOTALL)
_BREAKS = frozenset("p br div li ul ol tr h1 h2 h3 h4 h5 h6 blockquote table".split())  # noqa: SIM905 - easier to read


def clean(text: str) -> str:
    """Line ends are newlines, form feeds and vertical tabs too."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n").replace("\x0c", "\n")
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))


def one_line(text: str, length_max: int) -> str:
    """Cleaned, white space folded, cut at `length_max` characters."""
    return _SPACES.sub(" ", clean(text)).strip()[:length_max]


def html_to_text(text: str) -> str:
    """A note's HTML as plain text: blocks become lines, scripts and styles vanish, entities are resolved once."""
    text = _COMMENT.sub("", _HIDDEN.sub("", text))
    text = _TAG.sub(lambda tag: "\n" if tag[2].lower() in _BREAKS else "", text)
    lines = (" ".join(line.split()) for line in clean(html.unescape(text)).split("\n"))
    return "\n".join(line for line in lines if line)
