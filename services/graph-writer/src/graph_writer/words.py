"""Keywords: how texts and queries are cut into words, the one setting for all documents.

No stop words, for a gene may be called WAS; English stems. Scripts with spaces are cut at what is neither letter nor
digit; scripts without spaces by the multilingual tokenizer, which would drop every number from the rest: years, DOIs,
"COVID-19". Two scripts hang small words onto others: Korean is cut into pairs of syllables, so that a noun is found
whatever particle follows it, and Arabic has stems of its own. Texts and queries must be cut alike, so a collection
carries `KEYWORDS` and refuses a writer or a reader with another setting.
"""

import re
import unicodedata
from typing import Any

import qdrant_edge as edge

from graph_writer.stores.store import Words

KEYWORDS = (
    "bm25;word+multilingual-where-unspaced+hangul-pairs;ascii;no-stopwords;stem=english+arabic;avg=150;2"
)

_RUN = re.compile(r"\w+")
# Thai, Lao, Burmese, Khmer, kana, and the ideographs of Chinese and Japanese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]+"
)
_HANGUL = re.compile("[\uac00-\ud7a3]+")
_ARABIC = re.compile("[\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff]+")
_PROCLITIC = re.compile("^(?:\u0648(?=..))?(?:[\u0628\u0641\u0643](?=\u0627\u0644..))?")
"""“and” before what is left of a word, and “in”, “so”, “as” before its article (as light10: Larkey et al. 2002)."""


def _bm25(
    tokenizer: Any, *, folds: bool = True, stems: edge.SnowballLanguage = edge.SnowballLanguage.English
) -> Any:
    return edge.Bm25(
        edge.Bm25Config(
            avg_len=150.0,
            tokenizer=tokenizer,
            lowercase=True,
            ascii_folding=folds,
            stopwords=edge.StopwordsSet(languages=set(), custom=set()),
            stemmer=edge.SnowballParams(stems),
        )
    )


def _pairs(run: re.Match[str]) -> str:
    """수면은 → 수면 면은"""
    text = run[0]
    return f" {' '.join(text[at : at + 2] for at in range(max(1, len(text) - 1)))} "


class Keywords:
    def __init__(self) -> None:
        self._ascii = _bm25(edge.TokenizerType.Word, folds=False)  # the same words at two thirds of the time
        self._spaced = _bm25(edge.TokenizerType.Word)
        self._unspaced = _bm25(edge.TokenizerType.Multilingual)
        self._arabic = _bm25(edge.TokenizerType.Word, stems=edge.SnowballLanguage.Arabic)

    def of_text(self, text: str) -> Words:
        [(bm25, piece), *others] = self._by_script(text)
        vector = bm25.embed_document(piece)
        if not others:
            return Words(vector.indices, vector.values)
        weights = dict(zip(vector.indices, vector.values, strict=True))
        for bm25, piece in others:
            vector = bm25.embed_document(piece)
            weights |= dict(zip(vector.indices, vector.values, strict=True))
        return Words(list(weights), list(weights.values()))

    def of_query(self, text: str) -> Words:
        """Each word once, each as heavy as the others: how rare it is, the collection knows."""
        asked = self._by_script(unicodedata.normalize("NFC", text))
        indices = list(
            dict.fromkeys(index for bm25, piece in asked for index in bm25.embed_query(piece).indices)
        )
        return Words(indices, [1.0] * len(indices))

    def _by_script(self, text: str) -> list[tuple[Any, str]]:
        """The text taken apart by script, each with what cuts it."""
        if text.isascii():
            return [(self._ascii, text)]
        pieces = []
        if runs := _UNSPACED.findall(text):
            pieces.append((self._unspaced, " ".join(runs)))
            text = _UNSPACED.sub(" ", text)
        if runs := _ARABIC.findall(text):
            pieces.append((self._arabic, " ".join(_PROCLITIC.sub("", run) for run in runs)))
            text = _ARABIC.sub(" ", text)
        return [(self._spaced, _HANGUL.sub(_pairs, text)), *pieces]

    def matched(self, query: str, text: str) -> list[str]:
        """The words of the text, as it spells them, that a word of the query asked for; in the query's order."""
        asked = [index for run in _RUN.findall(query) for index in self.of_query(run).indices]
        wanted = set(asked)
        found: dict[int, str] = {}
        for run in dict.fromkeys(_RUN.findall(text)):
            if len(found) == len(wanted):
                break
            for index in self.of_query(run).indices:
                if index in wanted:
                    found.setdefault(index, run.lower())
        return list(dict.fromkeys(found[index] for index in asked if index in found))
