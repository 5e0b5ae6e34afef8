"""Small papers of our own making in four languages, and in English to compare with, and what ought to be found in them: one `.toml` each."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("en", "de", "ko", "zh", "ar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    title: str
    abstract: str
    words: str
    """A question that shares words with the paper, in another form where the language has forms."""
    meaning: str
    """The same in other words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    name: str
    body: str
    headings: tuple[str, ...]
    kinds: tuple[str, ...]
    concepts: tuple[str, ...]
    papers: tuple[Paper, ...]


def language(name: str) -> Language:
    with Path(__file__).with_name(f"{name}.toml").open("rb") as file:
        found = tomllib.load(file)
    return Language(
        name=name,
        body=found["body"].strip(),
        headings=tuple(found["headings"]),
        kinds=tuple(found["kinds"]),
        concepts=tuple(found["concepts"]),
        papers=tuple(Paper(**one) for one in found["papers"]),
    )


def sentences(text: str) -> list[str]:
    """As a reader divides a text without abbreviations and figures."""
    return [one.strip() for one in re.split(r"(?<=[.!?\u3002\uff01\uff1f\u061f])\s*", text) if one.strip()]
