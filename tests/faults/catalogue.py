"""The faults by name: what each plans, which stack it wants, and the function that injects it and drains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    name: str
    title: str
    planned: Mapping[str, int]
    """By kind: so many must be injected, or the run has shown nothing."""
    inject: Callable[[World], None]
    stack: Mapping[str, Any] = field(default_factory=dict)


CATALOGUE: dict[str, Fault] = {}


def fault(
    name: str, title: str, planned: Mapping[str, int], **stack: Any
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    def register(inject: Callable[[World], None]) -> Callable[[World], None]:
        assert name not in CATALOGUE
        CATALOGUE[name] = Fault(name=name, title=title, planned=planned, inject=inject, stack=stack)
        return inject

    return register


def short_of(planned: Mapping[str, int], injected: Mapping[str, int]) -> Sequence[str]:
    return [
        f"{kind}: {injected.get(kind, 0)} of {count} injected"
        for kind, count in planned.items()
        if injected.get(kind, 0) < count
    ]
