"""What the embedder decides: what to do with a batch, how to find a culprit, when to pause and when to try again.

No clock, no I/O, no await. A batch is at most five chunks of one partition; the same text always comes to the same
partition, so one worker knows whether it is paid for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TypeVar, assert_never

from eventlog.events import ChunkExtracted, ChunkMessage, ChunkRejectionReason, PauseReason
from eventlog.ids import ChunkId, EmbeddingKey, ImportId

T = TypeVar("T")

Identity = tuple[ImportId, int, ChunkId]

BATCH_CHUNKS = 5
"""Messages that a worker takes at a time (P5)."""
BATCHES_MAX = 2
"""In the hand of a worker, asked for or on their way into the log: what a death may cost (P4)."""
TEXT_CHARACTERS_MAX = 24_000
"""Below 8,192 tokens in every script that we measured; the vendors' limit (FACTS.md)."""
QUOTA_PROBE_S = 30.0
CONFIG_PROBE_S = 30.0
DOWN_PROBE_S_MAX = 30.0
PACE_GROWTH_PER_S = 0.02
"""Finds out what a limit really is: one that gathers a second's requests is met every six to ten seconds."""
PACED_S_MAX = 60.0
LATE_S_MAX = 0.1
SAID_AFTER_S = 10.0
"""A pause shorter than this is nobody's business."""


class Verdict(Enum):
    SKIP = auto()
    """Its event is in the log, or its attempt is over."""
    REUSE = auto()
    """The text was paid for: its vector is in the log or just on its way there."""
    REJECT = auto()
    EMBED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    chunk: ChunkExtracted
    verdict: Verdict
    reason: ChunkRejectionReason = ChunkRejectionReason.UNKNOWN


def plan_batch(
    chunks: Sequence[ChunkExtracted],
    *,
    is_published: Callable[[ChunkExtracted], bool],
    is_over: Callable[[ChunkExtracted], bool],
    is_paid: Callable[[EmbeddingKey], bool],
    is_too_large: Callable[[ChunkExtracted], bool],
) -> list[Step]:
    """One step for each chunk, in order; a text that stands twice in the batch is paid once."""
    steps: list[Step] = []
    paid_here: set[EmbeddingKey] = set()
    said_here: set[Identity] = set()
    for chunk in chunks:
        reason = refusal(chunk.text)
        if identity(chunk) in said_here or is_published(chunk) or is_over(chunk):
            steps.append(Step(chunk=chunk, verdict=Verdict.SKIP))
            continue
        said_here.add(identity(chunk))
        if reason is not None:
            steps.append(Step(chunk=chunk, verdict=Verdict.REJECT, reason=reason))
        elif is_too_large(chunk):
            too_large = ChunkRejectionReason.RECORD_TOO_LARGE
            steps.append(Step(chunk=chunk, verdict=Verdict.REJECT, reason=too_large))
        elif chunk.embedding_key in paid_here or is_paid(chunk.embedding_key):
            steps.append(Step(chunk=chunk, verdict=Verdict.REUSE))
        else:
            paid_here.add(chunk.embedding_key)
            steps.append(Step(chunk=chunk, verdict=Verdict.EMBED))
    return steps


def identity(chunk: ChunkMessage) -> Identity:
    """What has one event, however often it is asked for."""
    return chunk.import_id, chunk.attempt, chunk.chunk_id


def refusal(text: str) -> ChunkRejectionReason | None:
    """What every provider would refuse is not sent to any."""
    if not text.strip():
        return ChunkRejectionReason.TEXT_EMPTY
    if len(text) > TEXT_CHARACTERS_MAX:
        return ChunkRejectionReason.TEXT_TOO_LONG
    return None


def halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Two smaller requests in place of one that was refused; the culprit is in one of them."""
    middle = len(items) // 2
    return items[:middle], items[middle:]


def split_tokens(total: int, texts: Sequence[str]) -> list[int]:
    """A request's bill over its texts by their lengths; the sum is exact."""
    weights = [max(1, len(text)) for text in texts]
    whole = sum(weights)
    shares = [total * weight // whole for weight in weights]
    for index in range(total - sum(shares)):
        shares[index % len(shares)] += 1
    return shares


# --- pausing -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Times are seconds of one monotonic clock. One caller may try at `next_try_s`; all others wait for it."""

    reason: PauseReason
    since_s: float
    next_try_s: float
    message: str = ""
    tries: int = 1
    is_probing: bool = False
    is_timed: bool = False
    """The provider itself named the time from which it answers again."""
    not_before_s: float = 0.0
    """The latest time that it named to this process: whatever answers earlier, even to others, ends nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request failed for a reason that is the space's, not the text's."""

    reason: PauseReason
    message: str
    at_s: float
    is_probe: bool
    retry_after_s: float | None = None
    is_quota: bool = False

    @property
    def is_timed(self) -> bool:
        return self.retry_after_s is not None and not self.is_quota


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The probe was answered, or another process's; a request from before the pause proves nothing about what came
    after it.
    """

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Obeyed:
    """Another process of the space met a pause, now or before this one started."""

    reason: PauseReason
    message: str
    at_s: float
    next_try_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeAsked:
    """An operator wants a try now."""

    at_s: float


@dataclass(frozen=True, slots=True)
class ProbeStarted:
    pass


@dataclass(frozen=True, slots=True)
class ProbeDropped:
    """The one that was to try did not: somebody else may."""


Happening = Failed | Succeeded | Obeyed | ProbeAsked | ProbeStarted | ProbeDropped


def evolve(pause: Pause | None, happening: Happening) -> Pause | None:
    match happening:
        case Succeeded(at_s=at):
            if pause is None or pause.not_before_s <= at:
                return None
            return replace(pause, next_try_s=pause.not_before_s, is_probing=False)
        case ProbeAsked(at_s=at):
            if pause is None:
                return None
            return replace(
                pause, next_try_s=min(pause.next_try_s, at), not_before_s=min(pause.not_before_s, at)
            )
        case ProbeStarted():
            return None if pause is None else replace(pause, is_probing=True)
        case ProbeDropped():
            return None if pause is None else replace(pause, is_probing=False)
        case Obeyed(reason=reason, message=message, at_s=at, next_try_s=next_try):
            if pause is not None:
                return replace(pause, next_try_s=max(pause.next_try_s, next_try))
            return Pause(reason=reason, since_s=at, next_try_s=next_try, message=message)
        case Failed():
            return _failed(pause, happening)
        case _:
            assert_never(happening)


def _failed(pause: Pause | None, failed: Failed) -> Pause:
    tries = 1 if pause is None or pause.reason is not failed.reason else pause.tries + 1
    not_before_s = 0.0 if pause is None else pause.not_before_s
    if failed.retry_after_s is not None:
        not_before_s = max(not_before_s, failed.at_s + failed.retry_after_s)
    if pause is None:
        return Pause(
            reason=failed.reason,
            since_s=failed.at_s,
            next_try_s=failed.at_s + _wait_s(failed, tries),
            message=failed.message,
            tries=tries,
            is_timed=failed.is_timed,
            not_before_s=not_before_s,
        )
    if not failed.is_probe:
        # It was under way when the pause began: it can only lengthen it.
        next_try_s = max(pause.next_try_s, failed.at_s + _wait_s(failed, pause.tries))
        is_timed = pause.is_timed and failed.is_timed
        return replace(pause, next_try_s=next_try_s, is_timed=is_timed, not_before_s=not_before_s)
    return replace(
        pause,
        reason=failed.reason,
        next_try_s=failed.at_s + _wait_s(failed, tries),
        message=failed.message,
        tries=tries,
        is_probing=False,
        is_timed=failed.is_timed,
        not_before_s=not_before_s,
    )


def _wait_s(failed: Failed, tries: int) -> float:
    """`Retry-After` wins; an exhausted quota is not asked about more often than every 30 s."""
    if failed.reason is PauseReason.PROVIDER_CONFIG:
        return CONFIG_PROBE_S
    if failed.is_quota:
        return max(QUOTA_PROBE_S, failed.retry_after_s or 0.0)
    if failed.retry_after_s is not None:
        return failed.retry_after_s
    return min(DOWN_PROBE_S_MAX, 0.5 * 2.0 ** min(tries, 10))


def may_probe(pause: Pause, at_s: float) -> bool:
    return not pause.is_probing and at_s >= pause.next_try_s


def ends_in_time(pause: Pause, at_s: float, *, answered_count: int) -> bool:
    """Whether it is over without a probe: the time has come that the provider named, and it had answered before it
    refused, so what it has is a limit. A probe would leave it idle for as long as an answer takes.
    """
    return pause.is_timed and answered_count > 0 and may_probe(pause, at_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How requests follow one another at a provider that has met us with a limit: some at once, the others spread."""

    per_s: float
    since_s: float
    next_s: float
    at_once_count: int


def pace_after(
    *, answered_count: int, began_s: float, paused_s: float, at_s: float, requests_max: int
) -> Pace:
    """When a limit's pause is over, that began at `paused_s`: what was answered since `began_s`, the pause included, is
    what the provider takes. An eighth of those that may be in flight go at once: what gathered at the provider
    during the pause is used, and one that refuses by chance and not by rate would slow us down without end, for the
    first request that it refuses makes all others wait.
    """
    seconds = max(at_s - began_s, at_s - paused_s, 0.001)
    return Pace(
        per_s=max(answered_count, 1) / seconds,
        since_s=at_s,
        next_s=at_s,
        at_once_count=requests_max // 8,
    )


def take_turn(pace: Pace, at_s: float) -> tuple[Pace, float]:
    """The pace with one turn taken, and the time of that turn. What comes a little late is made up for."""
    if pace.at_once_count:
        return replace(pace, at_once_count=pace.at_once_count - 1), at_s
    per_s = pace.per_s * math.exp(PACE_GROWTH_PER_S * (at_s - pace.since_s))
    turn_s = max(pace.next_s, at_s - LATE_S_MAX)
    return replace(pace, next_s=turn_s + 1 / per_s), turn_s


def is_free(pace: Pace, at_s: float) -> bool:
    """Whether the limit was not met for so long that there is none."""
    return at_s - pace.since_s > PACED_S_MAX


def is_to_be_said(pause: Pause, at_s: float) -> bool:
    """Configuration, an empty quota and an outage at once; a busy provider only when it lasts."""
    lasts_s = max(pause.next_try_s, at_s) - pause.since_s
    return pause.reason is not PauseReason.PROVIDER_QUOTA or lasts_s > SAID_AFTER_S
