"""Ranks what two lists found: by meaning and by words, fused by score (DBSF) with weights. Pure.

Each list's scores are put on the scale of their own distribution, mean ± 3 standard deviations, weighted and added: a
passage that both lists found stands above one that a single list found equally well.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

WEIGHTS = {"meaning": 0.7, "words": 1.3}
"""Measured with the local model (docs/decisions/0005): equal weights let what is near in meaning to nothing that was
asked push the only paper of that author and year out of the first five."""


_NOISE = 1e-6
"""Of a mean: scores are float32, and stores add and print them differently; what differs by less is equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    id: UUID
    score: float
    found_by: tuple[str, ...]


def fuse(lists: Mapping[str, Sequence[tuple[UUID, float]]]) -> list[Ranked]:
    """Best first, and of equal ones the lower id, whichever store was asked; one list alone keeps its own scores."""
    filled = {name: found for name, found in lists.items() if found}
    if len(filled) == 1:
        ((name, found),) = filled.items()
        best_first = sorted(found, key=lambda one: (-one[1], str(one[0])))
        return [Ranked(id=id_, score=score, found_by=(name,)) for id_, score in best_first]
    scores: dict[UUID, float] = {}
    by: dict[UUID, tuple[str, ...]] = {}
    for name, found in filled.items():
        for (id_, _), score in zip(found, scaled([score for _, score in found]), strict=True):
            scores[id_] = scores.get(id_, 0.0) + WEIGHTS[name] * score
            by[id_] = (*by.get(id_, ()), name)
    ranked = sorted(scores, key=lambda id_: (-scores[id_], str(id_)))
    return [Ranked(id=id_, score=scores[id_], found_by=by[id_]) for id_ in ranked]


def scaled(scores: Sequence[float]) -> list[float]:
    """On the scale of their distribution: 0 is three standard deviations below the mean, 1 as many above."""
    if len(scores) < 2:
        return [0.5] * len(scores)
    mean = statistics.fmean(scores)
    deviation = statistics.stdev(scores, xbar=mean)
    if deviation <= _NOISE * abs(mean):
        return [0.5] * len(scores)
    low = mean - 3 * deviation
    return [(score - low) / (6 * deviation) for score in scores]


def spread(
    ranked: Sequence[Ranked], document_of: Mapping[UUID, str], *, limit: int, each: int
) -> list[Ranked]:
    """At most `each` of one document, so that one long thesis does not hide the others."""
    taken: dict[str, int] = {}
    out: list[Ranked] = []
    for one in ranked:
        document = document_of[one.id]
        if taken.get(document, 0) < each:
            taken[document] = taken.get(document, 0) + 1
            out.append(one)
            if len(out) == limit:
                break
    return out
