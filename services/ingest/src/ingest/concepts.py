"""Concepts of a document without any model: its tags, and keyphrases of title and abstract by term statistics.

Keyphrases are found as RAKE does it (Rose et al. 2010): runs of words between stop words and punctuation, scored by
how much their words keep company. What a language model would find comes from a function of the same shape as
`keyphrases`, text in and scored names out; the rest here does not care who named a concept.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eventlog.ids import normalise_name
from ingest import limits

NAME_CHARACTERS_MAX = 80
MENTION_CHARACTERS_MIN = 3
TAG_SCORE = 0.95
"""As the replaced system scored Zotero's tags (BASELINE.md section 5)."""

_STOP = frozenset(  # English, German, French and Spanish: what fills sentences, and papers
    """a about above after again against all also although am an and any are as at be because been before being below
    between both but by can cannot could did do does doing down due during each either et etc few for from further had
    has have having he her here hers him his how however i if in into is it its itself just may me might more most much
    must my nor not now of off on once one only or other our ours out over own per same shall she should since so some
    such than that the their theirs them then there these they this those three through thus to too two under until up
    upon us use used using via very was we well were what when where whether which while who whom why will with within
    without would yet you your al paper papers study studies article show shows shown found find results result new
    based propose proposed present presents presented approach however among across between many often several
    der die das und oder ein eine einer eines einem einen den dem des im in ist sind war waren mit von zu zur zum auf
    für als auch nicht bei nach aus wie durch über unter wird werden dass sich es an
    le la les un une des du de et ou est sont dans par pour sur avec au aux ce cette ces qui que dont plus
    el los las una unos unas y o es son en por para con del al se que como más su sus""".split()  # noqa: SIM905 - a list literal of 250 words is no easier to read
)
_PIECE = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*|[^\w\s]+|\n")
_WORD = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """`name` as it is written, `key` normalised; score from 0 to 1."""

    name: str
    key: str
    score: float


def keyphrases(title: str, text: str) -> list[Named]:
    """At most `KEYPHRASES_MAX`, best first; phrases of the title count more, and chance words do not count."""
    found: Counter[str] = Counter()
    spelling: dict[str, str] = {}
    frequency: Counter[str] = Counter()
    company: Counter[str] = Counter()
    for phrase in (*_phrases(title), *_phrases(text)):
        words = [word.casefold() for word in phrase]
        key = " ".join(words)
        found[key] += 1
        spelling.setdefault(key, " ".join(phrase))
        for word in words:
            frequency[word] += 1
            company[word] += len(words)
    in_title = normalise_name(title)
    scores = {
        key: sum(company[word] / frequency[word] for word in key.split())
        * count
        * (2 if key in in_title else 1)
        for key, count in found.items()
        if count > 1 or key in in_title or len(key.split()) > 1
    }
    best = sorted(scores.items(), key=lambda one: (-one[1], one[0]))[: limits.KEYPHRASES_MAX]
    top = best[0][1] if best else 1.0
    return [
        Named(name=spelling[key], key=normalise_name(spelling[key]), score=round(score / top, 4))
        for key, score in best
    ]


def _phrases(text: str) -> list[list[str]]:
    phrases: list[list[str]] = []
    current: list[str] = []
    for piece in (*_PIECE.findall(text), "\n"):
        is_word = piece[0].isalnum() and piece.casefold() not in _STOP and not piece.isdigit()
        if is_word:
            current.append(piece)
            continue
        if 1 <= len(current) <= 4 and len(" ".join(current)) > MENTION_CHARACTERS_MIN:
            phrases.append(current)
        current = []
    return phrases


def name_concepts(tags: Sequence[str], title: str, text: str) -> list[Named]:
    """Tags first, then keyphrases; one entry for each normalised name."""
    out: dict[str, Named] = {}
    for tag in tags:
        key = normalise_name(tag)[:NAME_CHARACTERS_MAX]
        if key and key not in out:
            out[key] = Named(name=tag[:NAME_CHARACTERS_MAX], key=key, score=TAG_SCORE)
    for phrase in keyphrases(title, text):
        if phrase.key and len(phrase.key) <= NAME_CHARACTERS_MAX:
            out.setdefault(phrase.key, phrase)
    return list(out.values())[: limits.CONCEPTS_MAX]


def mentions(keys: Sequence[str], texts: Sequence[tuple[int, str]]) -> dict[str, tuple[int, ...]]:
    """Which of the numbered texts contain each normalised name, at word boundaries where its script has them."""
    sought = [(key, _has_boundaries(key)) for key in keys if len(key) >= MENTION_CHARACTERS_MIN]
    found: dict[str, list[int]] = {key: [] for key in keys}
    for index, text in texts:
        folded = normalise_name(text)
        for key, has_boundaries in sought:
            if _occurs(key, folded, has_boundaries=has_boundaries):
                found[key].append(index)
    return {key: tuple(indexes) for key, indexes in found.items()}


def _has_boundaries(key: str) -> bool:
    """Scripts without spaces between words have no boundary to ask for."""
    return not any(
        "\u3040" <= c <= "\u30ff" or "\u3400" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7a3" for c in key
    )


def _occurs(key: str, text: str, *, has_boundaries: bool) -> bool:
    at = text.find(key)
    while at >= 0:
        end = at + len(key)
        if not has_boundaries or not (_is_word(text[at - 1 : at]) or _is_word(text[end : end + 1])):
            return True
        at = text.find(key, at + 1)
    return False


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"
