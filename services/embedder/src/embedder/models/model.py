"""
What an embedding model is to the embedder, and the only ways in which one fails:

ModelError
├── RateLimited     a pause for all workers, until `retry_after_s`; no attempt
├── Unavailable     time-out, reset, 5xx, an answer that cannot be read: again, later
├── Misconfigured   key, model or dimension: nothing gets better by itself
├── InputRefused    one of these texts: find it
└── BadAnswer       it answered with vectors, but not with one that can be used for each text; it has billed them

Vectors leave this package checked: as many as texts, in their order, of the space's dimension, finite, of unit length.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

Side = Literal["document", "query"]

MESSAGE_LENGTH_MAX = 300
RETRY_AFTER_S_MAX = 86_400.0
"""A limit that is counted by the day ends within one."""
TOKENS_MAX = 1_000_000_000
"""More than any request can cost; a number beyond it is no bill."""
_SECRET_LENGTH_MIN = 4
"""A shorter key is none; taken out, it would only leave holes in words."""
_SECRET = re.compile(
    r"(?i)(bearer\s+\S+|\b(?:sk|co|key|org|proj)[-_][\w*.-]{4,}|[\w-]*\*{3,}[\w-]*|\b[A-Za-z0-9_-]{24,}\b)"
)


class ModelError(Exception):
    """The message is for people and holds no secret."""


class RateLimited(ModelError):  # noqa: N818 - the name is what the provider says
    def __init__(self, message: str, *, retry_after_s: float | None, is_quota: bool) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_quota = is_quota


class Unavailable(ModelError):  # noqa: N818 - the name is what the caller sees
    pass


class Misconfigured(ModelError):  # noqa: N818 - the name is what an operator has to hear
    pass


class InputRefused(ModelError):  # noqa: N818 - the name is what the provider did
    pass


class BadAnswer(ModelError):  # noqa: N818 - the name is what came
    pass


@dataclass(frozen=True, slots=True)
class Embedded:
    """Of each text in order: little-endian float32 of unit length, and its share of what the provider billed."""

    vectors: list[bytes]
    tokens: list[int]


class Model(Protocol):
    async def embed(self, texts: Sequence[str], side: Side) -> Embedded: ...
    async def close(self) -> None: ...


def plain(message: object, *, secret: str = "") -> str:
    """A provider's words without the key or what looks like one, on one line, cut."""
    text = str(message)
    if len(secret) >= _SECRET_LENGTH_MIN:
        text = text.replace(secret, "…")
    return " ".join(_SECRET.sub("…", text).split())[:MESSAGE_LENGTH_MAX]


def decode(vector: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A vector as base64 of float32 or as a list of numbers; raises BadAnswer for anything else."""
    try:
        if isinstance(vector, str):
            return np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4")
        if isinstance(vector, np.ndarray):
            return vector
        if isinstance(vector, list) and all(type(number) in (int, float) for number in vector):
            return np.array(vector, dtype="<f4")
    except (binascii.Error, ValueError, OverflowError):
        pass  # The same answer as for what is no vector at all, below.
    raise BadAnswer(f"a vector is {type(vector).__name__}, or holds what are no numbers")


class Checker:
    """Checks what one model answers. It remembers whether a vector of the space's dimension ever came: before that, a
    lone vector of another dimension speaks against the settings; after it, against its text.
    """

    def __init__(self, dims: int) -> None:
        self._dims = dims
        self._has_seen_right = False

    def __call__(self, vectors: Sequence[Any], count: int) -> list[bytes]:
        """The vectors of `count` texts. Raises BadAnswer, or Misconfigured when the model has another dimension."""
        if len(vectors) != count:
            raise BadAnswer(f"{len(vectors)} vectors for {count} texts")
        arrays = [decode(vector) for vector in vectors]
        lengths = {len(array) for array in arrays}
        self._has_seen_right |= self._dims in lengths
        if lengths != {self._dims}:
            if len(lengths) == 1 and 0 not in lengths and (count > 1 or not self._has_seen_right):
                raise Misconfigured(f"the model answers with {lengths.pop()} dimensions, not {self._dims}")
            raise BadAnswer(f"vectors of {sorted(lengths)} dimensions, not {self._dims}")
        return [_unit(array) for array in arrays]


def _unit(array: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    wide = array.astype(np.float64)
    length = math.sqrt(float(np.dot(wide, wide)))
    if not math.isfinite(length) or length == 0.0:
        raise BadAnswer("a vector is zero or not finite")
    return (wide / length).astype("<f4").tobytes()


def parsed(content: bytes) -> Any:
    """JSON; raises ValueError for whatever is none."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def billed(tokens: Any) -> int:
    """What a provider says that it has billed for a request; nothing, where that is no number of tokens."""
    is_number = type(tokens) in (int, float) and 0 <= tokens <= TOKENS_MAX
    return int(tokens) if is_number else 0


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a `Retry-After` header, a day at most; a date is not worth its clock, and counts as absent."""
    try:
        seconds = float(value) if value else math.nan
    except ValueError:
        return None
    return min(seconds, RETRY_AFTER_S_MAX) if seconds >= 0 else None
