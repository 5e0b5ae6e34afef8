"""Keywords: how texts and queries are cut into words, the one setting for all documents.

No stop words, for a gene may be called WAS; English stems. Scripts with spaces are cut at what is neither letter nor
digit; scripts without spaces by the multilingual tokenizer, which would drop every number from the rest: years, DOIs,
"COVID-19". Texts and queries must be cut alike, so a collection carries `KEYWORDS` and refuses a writer or a reader
with another setting.
"""

import re
from typing import Any

import qdrant_edge as edge

from graph_writer.stores.store import Words

KEYWORDS = "bm25;word+multilingual-where-unspaced;ascii;no-stopwords;stem=english;avg=150;1"

_RUN = re.compile(r"\w+")
# Thai, Lao, Burmese, Khmer, kana, and the ideographs of Chinese and Japanese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]+"
)


def _bm25(tokenizer: Any, *, folds: bool) -> Any:
    return edge.Bm25(
        edge.Bm25Config(
            avg_len=150.0,
            tokenizer=tokenizer,
            lowercase=True,
            ascii_folding=folds,
            stopwords=edge.StopwordsSet(languages=set(), custom=set()),
            stemmer=edge.SnowballParams(edge.SnowballLanguage.English),
        )
    )


class Keywords:
    def __init__(self) -> None:
        self._ascii = _bm25(edge.TokenizerType.Word, folds=False)  # the same words at two thirds of the time
        self._spaced = _bm25(edge.TokenizerType.Word, folds=True)
        self._unspaced = _bm25(edge.TokenizerType.Multilingual, folds=True)

    def of_text(self, text: str) -> Words:
        if text.isascii():
            vector = self._ascii.embed_document(text)
            return Words(vector.indices, vector.values)
        runs = _UNSPACED.findall(text)
        spaced = self._spaced.embed_document(_UNSPACED.sub(" ", text) if runs else text)
        if not runs:
            return Words(spaced.indices, spaced.values)
        unspaced = self._unspaced.embed_document(" ".join(runs))
        weights = dict(zip(spaced.indices, spaced.values, strict=True))
        weights |= dict(zip(unspaced.indices, unspaced.values, strict=True))
        return Words(list(weights), list(weights.values()))

    def of_query(self, text: str) -> Words:
        """Each word once, each as heavy as the others: how rare it is, the collection knows."""
        runs = _UNSPACED.findall(text)
        spaced = self._spaced.embed_query(_UNSPACED.sub(" ", text) if runs else text).indices
        unspaced = self._unspaced.embed_query(" ".join(runs)).indices if runs else []
        indices = list(dict.fromkeys([*spaced, *unspaced]))
        return Words(indices, [1.0] * len(indices))

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
