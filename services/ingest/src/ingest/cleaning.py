"""Text as we keep it: NFC, without NUL, lone surrogates and control characters; scripts and directions untouched.

Arabic letters that stand for their shapes, as some PDFs and what was pasted from them have, become the letters.
"""

import html
import re
import unicodedata

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ASCII_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127))
_SHAPES = re.compile("[\ufb50-\ufdff\ufe70-\ufefc]+")
_SPACES = re.compile(r"\s+")
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)\b[^<>]*>")
_HIDDEN = re.compile(r"<(?:(?P<tag>script|style|head)\b|!--)", re.IGNORECASE)
_BREAKS = frozenset("p br div li ul ol tr h1 h2 h3 h4 h5 h6 blockquote table".split())  # noqa: SIM905 - easier to read


def clean(text: str) -> str:
    """Line ends are newlines, form feeds and vertical tabs too."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0b", "\n").replace("\x0c", "\n")
    if text.isascii():
        return text.translate(_ASCII_CONTROL)  # the same at a twentieth of the time
    text = _SHAPES.sub(lambda run: unicodedata.normalize("NFKC", run[0]), _CONTROL.sub("", text))
    return unicodedata.normalize("NFC", text)


def one_line(text: str, length_max: int) -> str:
    """Cleaned, white space folded, cut at `length_max` characters."""
    return _SPACES.sub(" ", clean(text)).strip()[:length_max]


def html_to_text(text: str) -> str:
    """A note's HTML as plain text: blocks become lines, scripts and styles vanish, entities are resolved once."""
    text = _TAG.sub(lambda tag: "\n" if tag[2].lower() in _BREAKS else "", _without_hidden(text))
    lines = (" ".join(line.split()) for line in clean(html.unescape(text)).split("\n"))
    return "\n".join(line for line in lines if line)


def _without_hidden(text: str) -> str:
    """No comments, scripts and styles; one that is never closed stays. Linear, whatever the markup."""
    lower = text.lower()
    if len(lower) != len(text):  # some capitals are two small letters, and positions would differ
        lower = text
    pieces: list[str] = []
    at = 0
    unclosed: set[str] = set()
    for opening in _HIDDEN.finditer(text):
        ending = f"</{opening['tag'].lower()}" if opening["tag"] else "-->"
        if opening.start() < at or ending in unclosed:
            continue
        end = lower.find(ending, opening.end())
        if end < 0:
            unclosed.add(ending)
            continue
        pieces.append(text[at : opening.start()])
        at = end + len(ending) if ending == "-->" else end
    return "".join((*pieces, text[at:]))
