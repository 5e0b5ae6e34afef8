"""Keywords: how texts and queries are cut into words, the one setting for all documents.

No stop words, for a gene may be called WAS; one tokenizer that also cuts scripts without spaces; English stems. Texts
and queries must be cut alike, so a collection carries `KEYWORDS` and refuses a writer or a reader with another.
"""

import re

import qdrant_edge as edge

from graph_writer.stores.store import Words

KEYWORDS = "bm25;multilingual;ascii;no-stopwords;stem=english;avg=150;1"

_RUN = re.compile(r"\w+", re.UNICODE)


class Keywords:
    def __init__(self) -> None:
        self._bm25 = edge.Bm25(
            edge.Bm25Config(
                avg_len=150.0,
                tokenizer=edge.TokenizerType.Multilingual,
                lowercase=True,
                ascii_folding=True,
                stopwords=edge.StopwordsSet(languages=set(), custom=set()),
                stemmer=edge.SnowballParams(edge.SnowballLanguage.English),
            )
        )

    def of_text(self, text: str) -> Words:
        vector = self._bm25.embed_document(text)
        return Words(vector.indices, vector.values)

    def of_query(self, text: str) -> Words:
        vector = self._bm25.embed_query(text)
        return Words(vector.indices, vector.values)

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
