"""The local static model (wordllama), offline: its weights come in the wheel. One thread, many texts a call.

A call with five texts costs nearly as much as one with a hundred, so the requests of several partitions that are
waiting share one: as many as have gathered while the last call ran.
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

TEXTS_AT_ONCE = 128
WEIGHTS_DIMS = 256


class LocalModel:
    def __init__(self, space: Space) -> None:
        if space.model != "wordllama" or space.dims > WEIGHTS_DIMS:
            raise Misconfigured(
                f"{space} is not a local model; local/wordllama has {WEIGHTS_DIMS} dimensions or fewer"
            )
        self._dims = space.dims
        self._checked = Checker(space.dims)
        self._model = WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wordllama")
        self._waiting: list[tuple[list[str], asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None

    async def embed(self, texts: Sequence[str], side: Side) -> Embedded:
        del side  # A static model has one side.
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((list(texts), future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        rows = await future
        # Nothing is billed for a model that runs here.
        return Embedded(self._checked(list(rows), len(texts)), [0] * len(texts))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            taken: list[tuple[list[str], asyncio.Future[Any]]] = []
            count = 0
            while self._waiting and count < TEXTS_AT_ONCE:
                taken.append(self._waiting.pop(0))
                count += len(taken[-1][0])
            texts = [text for some, _ in taken for text in some]
            try:
                rows = await loop.run_in_executor(self._thread, self._call, texts)
            except Exception as error:  # noqa: BLE001 - handed to those who wait; they decide
                for _, future in taken:
                    if not future.done():
                        future.set_exception(BadAnswer(f"the local model failed: {type(error).__name__}"))
                continue
            at = 0
            for some, future in taken:
                if not future.done():
                    future.set_result(rows[at : at + len(some)])
                at += len(some)

    def _call(self, texts: list[str]) -> Any:
        rows = np.asarray(self._model.embed(texts, norm=False), dtype="<f4")
        return rows[:, : self._dims]

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
