"""Breaks the services on purpose, one way at a time, and shows which seed and which check caught it.

`python -m tests.simulation.breaks [WORD…]` prints the table, of the breaks whose sentence holds a word. A checker that
stays silent about one of these is worth nothing. What shows only against real processes breaks `tests/faults/mutants.py`.
That settlements of another store do not count only a writer can show that outlives its store, and here none does.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from types import TracebackType
from typing import Any
from unittest.mock import ANY

import pytest
from tests.simulation.faults import has_server
from tests.simulation.seeds import UNDISTURBED, pool, run_seed
from tests.simulation.store import DiskStore

import embedder.core
import embedder.gate
import embedder.worker
import graph_writer.apply
import graph_writer.core
import ingest.core
import ingest.folding
import ingest.obeying
import ingest.projection
import ingest.prospects
import ingest.settling
import ingest.term
from embedder.index import Index
from embedder.worker import Worker
from eventlog.events import ChunkRejectionReason
from graph_writer.apply import Applier
from graph_writer.core import Known, plan_settlements
from graph_writer.opened import GRAPH, OpenedStore
from graph_writer.publish import Publisher
from graph_writer.stores.store import Point
from ingest.chunk_rows import ChunkRows
from ingest.driving import _Drive
from ingest.folding import Folding
from ingest.settling import Settling
from ingest.state import State
from ingest.term import Term

SEEDS_MAX = 1000
"""Where only worlds with a server can show it, so many of these."""
SAID_MAX = 110
Break = Callable[[pytest.MonkeyPatch], None]
BREAKS: dict[str, Break] = {}
OF_SERVERS: set[str] = set()


def a_break(sentence: str, *, of_server: bool = False) -> Callable[[Break], Break]:
    def named(change: Break) -> Break:
        BREAKS[sentence] = change
        if of_server:
            OF_SERVERS.add(sentence)
        return change

    return named


# --- embedder


@a_break("the embedder commits before its events are acknowledged")
def _commit_early(patch: pytest.MonkeyPatch) -> None:
    real = Worker._publish

    async def publish(self: Worker, batch: Any) -> None:
        self.done_offset = batch.end_offset if batch.is_whole else self.done_offset
        await real(self, batch)

    patch.setattr(Worker, "_publish", publish)


@a_break("the embedder forgets what is paid, in its index")
def _forget_paid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Index, "place_of", lambda *_: None)


@a_break("the index is not caught up before the first request")
def _no_catch_up(patch: pytest.MonkeyPatch) -> None:
    async def catch_up(*_: Any) -> None:
        pass

    patch.setattr(Index, "catch_up", catch_up)


@a_break("a resume bills again what it asks for again")
def _bill_on_resume(patch: pytest.MonkeyPatch) -> None:
    real = embedder.core.plan_batch

    def plan(chunks: Any, *, is_paid: Any, **asked: Any) -> Any:
        attempts = {one.embedding_key: one.attempt for one in chunks}
        return real(chunks, is_paid=lambda key: attempts[key] == 1 and is_paid(key), **asked)

    patch.setattr(embedder.worker, "plan_batch", plan)


@a_break("a text that is refused takes its neighbours with it")
def _refuse_all(patch: pytest.MonkeyPatch) -> None:
    async def divided(self: Any, texts: Any, is_wanted: Any) -> list[Any]:
        reason = ChunkRejectionReason.PROVIDER_REFUSED
        return [embedder.gate.Refused(reason, "", 1) for _ in texts]

    patch.setattr(embedder.gate.Gate, "_divided", divided)


@a_break("Retry-After is not obeyed")
def _no_retry_after(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(embedder.core, "_wait_s", lambda *_: 0.1)


@a_break("a process takes another's pause for the end of what it has said itself")
def _pauses_in_turn(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(embedder.gate.Gate, "_is_news", lambda self, pause: self.told is not pause.reason)


@a_break("a cancelled attempt's paid vectors are thrown away")
def _throw_away(patch: pytest.MonkeyPatch) -> None:
    real = Worker._plan
    patch.setattr(Worker, "_plan", lambda self, chunks, before, outcomes: real(self, chunks, before, {}))


@a_break("a text is asked for again while the batch before is asked for it")
def _no_wait_for_the_answer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(embedder.worker._Batch, "shares_text_with", lambda *_: False)


@a_break("a worker has four batches in hand")
def _four_in_hand(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(embedder.worker, "BATCHES_MAX", 4)


# --- graph-writer


@a_break("the writer settles before it flushes")
def _settle_before_flush(patch: pytest.MonkeyPatch) -> None:
    async def cycle(self: Publisher) -> None:
        async with self._turn:
            self._wake.clear()
            read_to, self._read_to = self._read_to, {}
            settlements, self._settlements = self._settlements, []
            documents, self._documents = self._documents, []
            said = plan_settlements(settlements, store_id=self._opened.id, at=self._clock.now())
            await self._sender.say([*((event, "") for event in said), *documents])
            await asyncio.sleep(0.2)
            await self._patience.wait_out(self._opened.store.flush)
            await self._patience.wait_out(lambda: self._opened.advance(read_to))
            self._room.set()

    patch.setattr(Publisher, "cycle", cycle)


@a_break("the writer's positions advance before its settlements are acknowledged")
def _advance_early(patch: pytest.MonkeyPatch) -> None:
    async def cycle(self: Publisher) -> None:
        async with self._turn:
            self._wake.clear()
            read_to, self._read_to = self._read_to, {}
            settlements, self._settlements = self._settlements, []
            documents, self._documents = self._documents, []
            await self._patience.wait_out(lambda: self._opened.advance(read_to))
            await self._patience.wait_out(self._opened.store.flush)
            said = plan_settlements(settlements, store_id=self._opened.id, at=self._clock.now())
            await self._sender.say([*((event, "") for event in said), *documents])
            self._room.set()

    patch.setattr(Publisher, "cycle", cycle)


@a_break("the writer forgets the marks, and writes what is superseded")
def _no_marks(patch: pytest.MonkeyPatch) -> None:
    _forget(patch, marks={})


@a_break("within one attempt the last vector stands")
def _last_vector(patch: pytest.MonkeyPatch) -> None:
    _forget(patch, hashes={})


def _forget(patch: pytest.MonkeyPatch, **nothing: Any) -> None:
    real = graph_writer.core.plan_upserts

    def plan(arrivals: Any, known: Known) -> Any:
        return real(arrivals, replace(known, **nothing))

    patch.setattr(graph_writer.core, "plan_upserts", plan)


@a_break("a sweep leaves what is older")
def _no_sweep(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(graph_writer.core, "plan_sweep", lambda *_, **__: [])


@a_break("a leader completes an import beside what it says just then")
def _complete_beside(patch: pytest.MonkeyPatch) -> None:
    async def settle(self: Settling) -> bool:
        async with self._term.lock:
            at = self._term.parts.clock.now()
            facts: list[Any] = [
                ingest.core.settle_document(one, at) for one in self._projection.documents_to_settle(50)
            ]
            facts += await self._completions()
            await self._say(facts)
        return bool(facts)

    patch.setattr(Settling, "_settle", settle)


@a_break("a part is swept whether or not its new content may replace it")
def _sweep_all(patch: pytest.MonkeyPatch) -> None:
    settle = ingest.core.settle_document

    def every_part(tally: Any, at: Any) -> Any:
        return replace(settle(tally, at), parts=tuple(tally.parts))

    patch.setattr(ingest.settling, "settle_document", every_part)


@a_break("positions advance whatever stands there")
def _no_conditional_write(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None:
        pass

    async def swap(self: DiskStore, collection: str, swaps: Any) -> bool:
        for one in swaps:
            self._write(collection, one.id, Point(id=one.id, payload=one.new))
        return True

    patch.setattr(DiskStore, "swap", swap)
    patch.setattr(DiskStore, "check", nothing)


# --- graph-writer, where two share a server


@a_break("who was overtaken writes a document as it saw it", of_server=True)
def _no_version(patch: pytest.MonkeyPatch) -> None:
    async def write(self: Applier, document: Any, change: Any) -> Any:
        changed = change(await self._paper(document))
        if changed is not None:
            await self._store.upsert(GRAPH.name, [Point(id=document, payload=changed)])
        return changed or {}

    patch.setattr(Applier, "_write_paper", write)


@a_break("who stood still writes what it decided before", of_server=True)
def _no_second_look(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Applier, "_check_look", lambda _: None)


@a_break("what a sweep has missed is left", of_server=True)
def _no_look_behind(patch: pytest.MonkeyPatch) -> None:
    async def marks(self: Applier, arrivals: Any) -> Any:
        return ANY  # equal to what was seen before

    patch.setattr(Applier, "_marks", marks)


@a_break("a server's copy is noticed by its positions only when they advance", of_server=True)
def _no_check_of_positions(patch: pytest.MonkeyPatch) -> None:
    async def check(self: OpenedStore) -> None:
        await self.store.check()

    patch.setattr(OpenedStore, "check", check)


@a_break("a server ignores the conditions of writes", of_server=True)
def _no_conditions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DiskStore, "_may_write", lambda *_: True)


# --- ingest


@a_break("a settlement is not taken back when a store goes on before it")
def _no_take_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ChunkRows, "take_back_chunks", lambda *_, **__: set())


@a_break("an import completes without waiting for the store")
def _complete_early(patch: pytest.MonkeyPatch) -> None:
    def is_complete(state: Any, **_: Any) -> bool:
        return state.state is State.EMBEDDING and state.sealed_attempt == state.attempt

    patch.setattr(ingest.prospects, "is_complete", is_complete)


@a_break("leaders do not fence each other")
def _no_fence(patch: pytest.MonkeyPatch) -> None:
    numbers = count()
    real = ingest.term.open_term

    @contextmanager
    def own_id() -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(ingest.term, "TRANSACTIONAL_ID", f"leader-{next(numbers)}")
            yield

    def open_term(parts: Any) -> Any:
        class Opened:
            async def __aenter__(self) -> Any:
                self._term = real(parts)
                with own_id():
                    return await self._term.__aenter__()

            async def __aexit__(
                self,
                kind: type[BaseException] | None,
                error: BaseException | None,
                where: TracebackType | None,
            ) -> Any:
                return await self._term.__aexit__(kind, error, where)

        return Opened()

    patch.setattr("ingest.leader.open_term", open_term)


@a_break("a new leader decides before it has folded what the old one said")
def _no_fold(patch: pytest.MonkeyPatch) -> None:
    async def catch_up(_: Term) -> None:
        await asyncio.sleep(0)

    patch.setattr(Term, "catch_up", catch_up)


@a_break("a leader decides before it has folded what it said itself")
def _no_fold_of_own(patch: pytest.MonkeyPatch) -> None:
    async def commit(self: Term, records: Any) -> None:
        await self._decider.commit(records)

    patch.setattr(Term, "commit", commit)


@a_break("a document is listed before its chunks are acknowledged")
def _list_early(patch: pytest.MonkeyPatch) -> None:
    real = _Drive._flush

    async def flush(self: _Drive, *, is_last: bool = False) -> None:
        self._batch.acks.clear()
        await real(self, is_last=is_last)

    patch.setattr(_Drive, "_flush", flush)


@a_break("progress is not the greatest that was reached")
def _progress_falls(patch: pytest.MonkeyPatch) -> None:
    real = Folding._changed

    def changed(self: Folding, row: Any, offset: int) -> None:
        row.progress = 0.0
        real(self, row, offset)

    patch.setattr(Folding, "_changed", changed)


@a_break("a request that comes twice is carried out twice")
def _request_twice(patch: pytest.MonkeyPatch) -> None:
    real = ingest.core.decide

    def decide(command: Any, known: Any, **rest: Any) -> Any:
        is_request = type(command).__name__ == "RequestImport"
        return real(command, replace(known, existing=None) if is_request else known, **rest)

    patch.setattr(ingest.obeying, "decide", decide)


@a_break("a cancellation that comes together with a change is lost")
def _lose_cancellation(patch: pytest.MonkeyPatch) -> None:
    async def wait_for_change(self: Any, position: int, timeout_s: float) -> int:
        async with self._changed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: self.position != position), timeout_s)
        return int(self.position)

    patch.setattr(ingest.projection.Projection, "wait_for_change", wait_for_change)


# --- running them


def first_caught(sentence: str) -> tuple[int | None, str]:
    """The first seed that fails under the break, and what its first check says."""
    with pytest.MonkeyPatch.context() as patch:
        BREAKS[sentence](patch)
        seeds = [one for one in range(4 * SEEDS_MAX) if has_server(one) or sentence not in OF_SERVERS]
        for seed in seeds[:SEEDS_MAX]:
            violations = run_seed(seed).violations
            if violations:
                return seed, violations[0]
    return None, ""


def main() -> int:
    wanted = [one for one in BREAKS if not sys.argv[1:] or any(word in one for word in sys.argv[1:])]
    missed = 0
    print("| break | caught by | seed | what it says |\n|---|---|---|---|")
    with pool() as processes:
        caught = [processes.submit(first_caught, one) for one in wanted]
        for sentence, done in zip(wanted, caught, strict=True):
            seed, said = done.result()
            missed += seed is None
            calm = said.removeprefix(UNDISTURBED)
            check, _, what = calm.partition(": ")
            where = f"{seed}, undisturbed" if calm != said else str(seed)
            print(f"| {sentence} | {check or 'NOBODY'} | {where} | {what[:SAID_MAX]} |", flush=True)
    print(f"{len(wanted)} breaks, {missed} unnoticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
