"""A library of text files of a wanted number of chunks: the same bytes for the same number, words as uneven as in prose.

About 390 tokens to a chunk, as chunking makes them; how many there really were, the import's own status says.
"""

import random
import re
import sys
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from papers import PAPERS

CHUNKS_PER_DOCUMENT = 100
WORDS_PER_CHUNK = 262
"""Measured: so many of these words make the 350 tokens that a chunk adds to the overlap with the one before."""
_STEMS = [
    "sedi",
    "aqui",
    "therm",
    "hydr",
    "phot",
    "chlor",
    "neur",
    "cort",
    "synap",
    "axi",
    "mitoch",
    "gen",
    "prote",
    "lipi",
    "enzym",
    "kin",
    "cata",
    "meta",
    "iso",
    "morph",
    "stoch",
    "param",
    "regress",
    "covari",
    "spectr",
    "chrom",
    "magnet",
    "electr",
    "semi",
    "poly",
    "mono",
    "graph",
    "topo",
    "algo",
    "heur",
    "crypt",
    "quant",
]
_ENDINGS = [
    "ment",
    "ation",
    "ology",
    "ics",
    "ose",
    "ine",
    "ide",
    "ium",
    "oid",
    "ity",
    "ness",
    "ance",
    "al",
    "ic",
    "ous",
    "ive",
    "ated",
    "izing",
    "er",
    "ors",
    "phase",
    "gram",
    "form",
]


def vocabulary() -> tuple[list[str], list[float]]:
    """Words, and their cumulated weights after Zipf: few words make most of a text, and most words are rare."""
    prose = " ".join(
        " ".join([paper.abstract, *(text for _, texts in paper.sections for text in texts)])
        for paper in PAPERS
    )
    common: dict[str, int] = {}
    for word in re.findall(r"[a-z]{2,}", prose.lower()):
        common[word] = common.get(word, 0) + 1
    words = sorted(common, key=lambda word: (-common[word], word))
    words += [stem + ending for ending in _ENDINGS for stem in _STEMS]
    return words, list(accumulate(1.0 / (rank + 2.7) for rank in range(len(words))))


def write_corpus(folder: Path, chunk_count: int) -> int:
    """The number of documents. Each stands by itself: a smaller corpus is not a part of a larger one's cost."""
    words, weights = vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    per_document = min(CHUNKS_PER_DOCUMENT, chunk_count)
    document_count = max(1, round(chunk_count / per_document))
    for number in range(document_count):
        rng = random.Random(f"{chunk_count}/{number}")
        text = _document(rng, words, weights, number, per_document)
        (folder / f"paper-{number:05}.txt").write_text(text, encoding="utf-8")
    return document_count


def _document(rng: random.Random, words: list[str], weights: list[float], number: int, chunks: int) -> str:
    drawn = iter(rng.choices(words, cum_weights=weights, k=chunks * WORDS_PER_CHUNK))
    title = " ".join(rng.sample(words[-600:], 4)).capitalize() + f", case {number}"
    parts, paragraph = [title], []
    is_over = False
    while not is_over:
        sentence = [word for word, _ in zip(drawn, range(rng.randint(8, 22)), strict=False)]
        is_over = len(sentence) < 8
        if sentence:
            paragraph.append(" ".join(sentence).capitalize() + ".")
        if len(paragraph) == 5 or is_over:
            parts.append(" ".join(paragraph))
            paragraph = []
    return "\n\n".join(parts) + "\n"
