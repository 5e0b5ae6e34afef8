"""Questions whose answer is known, drawn from a project's own papers: the same ones each time."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_WORD = re.compile(r"\w{3,}")
_FAMILY = re.compile(r"[\w'ʿ`-]+$")

PARAPHRASES = {
    # Of the example library: what somebody would ask who has not read the paper, in other words than its own.
    "Soil moisture at sowing predicts maize yield on sandy fields": "does dry ground in spring already ruin the corn harvest",
    "A low-cost capacitive probe for soil moisture in school gardens": "cheap home-made instrument with which children measure wet earth",
    "Cover crops keep water in the root zone during dry springs": "green plants grown over winter save humidity for the next planting",
    "Field notes on irrigation scheduling with farmers": "why growers do not follow watering advice",
    "Sleep spindles and the recall of word pairs after a nap": "dozing in the afternoon makes vocabulary stick",
    "수면 부족이 공간 기억에 미치는 영향 [Effects of sleep loss on spatial memory]": "tired people get lost when they look for a new way",
    "Sleep quality and exam results in first-year students": "going to bed at the same hour improves grades at university",
    "How volunteers agree: reliability of counts in citizen science": "do amateurs who look at the same thing report the same numbers",
    "Keeping volunteers: feedback messages in a bird counting programme": "how to stop participants from dropping out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    kind: str
    text: str
    document_id: str


def questions(papers: Sequence[dict[str, Any]], per_kind_max: int = 60) -> list[Question]:
    """`papers`: nodes of the graph. Evenly spread over them where there are more than `per_kind_max`."""
    found: list[Question] = []
    for kind, ask in (
        ("title words", _title_words),
        ("author and year", _author_year),
        ("phrase of the abstract", _phrase),
        ("paraphrase", _paraphrase),
    ):
        asked = [
            Question(kind=kind, text=text, document_id=str(paper["id"]))
            for paper in sorted(papers, key=lambda paper: str(paper["id"]))
            if (text := ask(paper)) is not None
        ]
        step = max(1, len(asked) // per_kind_max)
        found += asked[::step][:per_kind_max]
    return found


def _title_words(paper: dict[str, Any]) -> str | None:
    """The three longest, in their order: what somebody remembers of a title."""
    words = list(dict.fromkeys(_WORD.findall(str(paper.get("label") or ""))))
    if len(words) < 3:
        return None
    longest = sorted(words, key=len, reverse=True)[:3]
    return " ".join(word for word in words if word in longest)


def _author_year(paper: dict[str, Any]) -> str | None:
    creators: Iterable[str] = paper.get("creators") or ()
    first = next(iter(creators), "")
    family = _FAMILY.search(first.split("[", maxsplit=1)[0].strip().rstrip(","))
    year = paper.get("year")
    return f"{family[0]} {year}" if family and year else None


def _phrase(paper: dict[str, Any]) -> str | None:
    words = str(paper.get("abstract") or "").split()
    if len(words) < 20:
        return None
    middle = len(words) // 2
    return " ".join(words[middle - 4 : middle + 4])


def _paraphrase(paper: dict[str, Any]) -> str | None:
    return PARAPHRASES.get(str(paper.get("label") or ""))
