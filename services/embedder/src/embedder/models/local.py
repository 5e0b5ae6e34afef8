"""The local static model (wordllama), offline: its weights come in the wheel. One thread.

Tokens are pooled here, text by text, with the same result to the last bit as wordllama's own call. That pads all texts
to the longest of them: it took 700 MB for one long text among sixty short ones, and twice the time at equal lengths.

The model itself gains nothing by larger calls (of 300 words a text costs 0.34 ms of processor in a call of 5, 0.37 in
one of 50, and nine tenths of it is the tokenizer's); the way there and back does (docs/decisions/0017).
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import wordllama
from wordllama import WordLlama

from embedder.models.model import BadAnswer, Checker, Embedded, Misconfigured, Side
from eventlog.spaces import Space

WEIGHTS_DIMS = 256


class LocalModel:
    def __init__(self, space: Space) -> None:
        if space.model != "wordllama" or space.dims > WEIGHTS_DIMS:
            raise Misconfigured(
                f"{space} is not a local model; local/wordllama has {WEIGHTS_DIMS} dimensions or fewer"
            )
        self._checked = Checker(space.dims)
        model = WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
        self._table = model.embedding[:, : space.dims]
        self._tokenizer = model.tokenizer
        self._tokenizer.no_padding()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wordllama")

    async def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        del side  # A static model has one side.
        try:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._rows, list(texts))
        except Exception as error:  # noqa: BLE001 - whatever it is, the texts have no vectors; the gate decides
            raise BadAnswer(f"the local model failed: {type(error).__name__}") from None
        # Nothing is billed for a model that runs here.
        return Embedded(self._checked(rows, len(texts)), [0] * len(texts))

    def _rows(self, texts: list[str]) -> list[Any]:
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        # A text without a token has no vector; the check of the answer says so.
        nothing = np.zeros(self._table.shape[1], dtype="<f4")
        return [self._table[one.ids].mean(axis=0) if one.ids else nothing for one in encoded]

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
