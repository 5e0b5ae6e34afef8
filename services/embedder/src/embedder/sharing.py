"""Requests that workers share: batches that are asked for at the same moment go to the provider in one.

A request costs the SDK a millisecond of processor whatever is in it, and providers count requests as well as texts. Five
texts stay what a worker waits for and holds; only their way is shared.

No batch answers for its neighbour: where a shared request is refused, or its answer fails the checks, whoever shared it
is to ask again alone. The next ones hold half as many texts, for it may be the number that was refused, and slowly more.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedder.metrics import IN_FLIGHT, REQUEST_SECONDS, REQUESTS
from embedder.models.model import BadAnswer, Embedded, InputRefused, Model, ModelError

TEXTS_MAX = 25
"""Of five workers. A Text Embeddings Inference server takes 32 by default, Cohere 96, OpenAI 2048."""
TEXTS_MORE = 0.2
"""That one more request answered lets the next ones hold: so one in some fifty tries a number that was refused."""
GATHER_S = 0.002
"""A hundredth of what a provider takes; who shared an answer asks for the next one within it."""


class AskAgain(Exception):  # noqa: N818 - the name is what is to be done
    """Nothing was learned of these texts: alone, where a neighbour may have been to blame."""

    def __init__(self, *, is_alone: bool) -> None:
        super().__init__()
        self.is_alone = is_alone


@dataclass(frozen=True, slots=True)
class _Batch:
    texts: Sequence[str]
    answer: asyncio.Future[Embedded]


class SharedRequests:
    def __init__(self, model: Model, *, may_go: Callable[[], bool]) -> None:
        self._model = model
        self._may_go = may_go
        """Asked when a shared request is about to go: meanwhile the provider may have said how long to wait."""
        self._texts_max = float(TEXTS_MAX)
        self._gathered: list[_Batch] = []
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def embed(self, texts: Sequence[str], *, is_alone: bool) -> Embedded:
        """Raises ModelError, which speaks of these texts and never of a neighbour's, and AskAgain."""
        if is_alone:
            return await self._request(texts)
        loop = asyncio.get_running_loop()
        if sum(len(one.texts) for one in self._gathered) + len(texts) > self._texts_max:
            self._send()
        if not self._gathered:
            self._timer = loop.call_later(GATHER_S, self._send)
        batch = _Batch(texts, loop.create_future())
        self._gathered.append(batch)
        return await batch.answer

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wanted = [batch for batch in self._gathered if not batch.answer.done()]
        self._gathered = []
        if wanted:
            task = asyncio.create_task(self._answer(wanted))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _answer(self, batches: Sequence[_Batch]) -> None:
        """Who asked is told, whatever comes."""
        if not self._may_go():
            _fail(batches, AskAgain(is_alone=False))
            return
        texts = [text for batch in batches for text in batch.texts]
        try:
            embedded = await self._request(texts)
        except Exception as error:  # noqa: BLE001 - what nobody expected ends the process, where it is awaited
            is_shared_blame = len(batches) > 1 and isinstance(error, InputRefused | BadAnswer)
            if is_shared_blame:
                self._texts_max = len(texts) / 2
            _fail(batches, AskAgain(is_alone=True) if is_shared_blame else error)
        else:
            self._texts_max = min(TEXTS_MAX, self._texts_max + TEXTS_MORE)
            at = 0
            for batch in batches:
                end = at + len(batch.texts)
                if not batch.answer.done():  # nobody waits any more
                    batch.answer.set_result(Embedded(embedded.vectors[at:end], embedded.tokens[at:end]))
                at = end

    async def _request(self, texts: Sequence[str]) -> Embedded:
        try:
            with IN_FLIGHT.track_inprogress(), REQUEST_SECONDS.time():
                embedded = await self._model.embed(texts, "document")
        except ModelError as error:
            REQUESTS.labels(type(error).__name__).inc()
            raise
        REQUESTS.labels("ok").inc()
        return embedded


def _fail(batches: Sequence[_Batch], error: Exception) -> None:
    for batch in batches:
        if not batch.answer.done():
            batch.answer.set_exception(error)
