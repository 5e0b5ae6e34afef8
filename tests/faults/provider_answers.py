"""Faults of the embedding provider: what it refuses, what it breaks off, what it answers too late or wrongly."""

from collections import Counter
from itertools import pairwise

from tests.e2e.stack import until
from tests.faults.catalogue import fault
from tests.faults.world import DONE, World

RETRY_AFTER_S = 1.0
UNDER_WAY_S = 0.3
"""A request that was sent when another one was told to wait may still come in."""
QUOTA_PROBE_S = 30.0
BROKEN_ANSWERS = ("server_error", "bad_gateway", "unavailable", "reset", "truncated", "html")
WRONG_ANSWERS = (
    "wrong_dims", "one_wrong_dims", "too_few", "too_many", "permuted", "nan", "infinite", "null", "zeros", "strings",
    "duplicate_index", "empty_data",
)  # fmt: skip
SPOILED = "a text whose vector is always zero"


@fault(
    "F6",
    "429 with Retry-After in 40 % of calls; the quota used up, the key refused",
    {"rate_limit": 40, "quota": 2, "bad_key": 1},
)
def rate_limits_and_quota(world: World) -> None:
    world.provider.tell(shares={"rate_limit": 0.4}, retry_after_s=RETRY_AFTER_S, seed=world.seed)
    import_id = world.import_(world.library("texts", documents=40, chunks_each=40), "Texts")
    world.wait_settled(import_id, 800)
    world.provider.tell(shares={})
    met = world.provider.met()["requests"]
    told_at = [at for at, _, kind in met if kind == "rate_limit"]
    world.injected["rate_limit"] = len(told_at)
    early = [
        at
        for at, _, _ in met
        if any(told + UNDER_WAY_S < at < told + RETRY_AFTER_S - 0.05 for told in told_at)
    ]
    world.check(not early, f"{len(early)} of {len(met)} calls came before a Retry-After had passed")
    world.drain(import_id)
    world.start_other("embedder")  # a short pause is each process's own; one that lasts is said in the log
    world.wait_up("embedder-2")
    _block(world, "quota", is_by_command=False)
    _block(world, "quota", is_by_command=True)
    _block(world, "bad_key", is_by_command=True)
    world.drain()


def _block(world: World, kind: str, *, is_by_command: bool) -> None:
    """Nothing is answered any more until somebody has paid or mended the key; that is found out, or said."""
    before = len(world.provider.met()["requests"])
    world.provider.tell(script=[{"kind": kind, "times": 1_000}])
    name = f"{kind} {'by command' if is_by_command else 'by itself'}"
    import_id = world.import_(world.library(name, documents=8, chunks_each=20), name)
    until(
        lambda: world.stack.status(import_id)["waiting"] is not None,
        60,
        lambda: f"{name}: nobody says so: {world.stack.status(import_id)}",
    )
    world.numbers[name] = world.stack.status(import_id)["waiting"]
    until(
        lambda: _probes(world, kind, before) >= (0 if is_by_command else 1),
        70,
        "the provider is not asked again",
    )
    world.provider.tell(script=[])
    if is_by_command:
        world.post(f"{world.stack.endpoints()['services']['embedder']['url']}/probe")
    world.stack.wait(import_id, *DONE, timeout_s=30 if is_by_command else 70)
    met = [at for at, _, which in world.provider.met()["requests"][before:] if which == kind]
    world.injected[kind] += 1
    probes = [later - earlier for earlier, later in pairwise(met) if later - earlier > 1]
    world.check(
        all(gap >= QUOTA_PROBE_S - 1 for gap in probes),
        f"{name}: asked again after {min(probes, default=0):.1f} s",
    )


def _probes(world: World, kind: str, before: int) -> int:
    """Requests that came more than a second after the first that was refused: not those that were under way."""
    met = [at for at, _, which in world.provider.met()["requests"][before:] if which == kind]
    return sum(at > met[0] + 1 for at in met)


def _scatter(world: World, kinds: tuple[str, ...], *, each: int, among: int) -> list[dict[str, str]]:
    """A script that holds each kind so often among requests that are answered well."""
    script = [kind for kind in kinds for _ in range(each)]
    script += [""] * (among - len(script))
    world.chance.shuffle(script)
    return [{"kind": kind} for kind in script]


def _count_met(world: World, kinds: tuple[str, ...]) -> None:
    met = Counter(kind for _, _, kind in world.provider.met()["requests"])
    world.injected.update({kind: met[kind] for kind in kinds})


@fault(
    "F7",
    "500, 502, 503, connection reset, half an answer, HTML with 200",
    dict.fromkeys(BROKEN_ANSWERS, 12),
    others=("ingest", "embedder"),
)
def broken_answers(world: World) -> None:
    world.provider.tell(script=_scatter(world, BROKEN_ANSWERS, each=12, among=300))
    world.import_(world.library("texts", documents=240, chunks_each=40), "Texts")
    world.drain()
    _count_met(world, BROKEN_ANSWERS)


@fault(
    "F8",
    "an answer after our deadline, 5 %: billed and not seen",
    {"late": 20},
    latency_ms=20,
    env={"PAPERLOG_REQUEST_S_MAX": "3"},
    others=("ingest", "embedder"),
)
def late_answers(world: World) -> None:
    world.provider.tell(script=_scatter(world, ("late",), each=20, among=350))
    world.import_(world.library("texts", documents=240, chunks_each=40), "Texts")
    world.drain()
    _count_met(world, ("late",))


@fault(
    "F9",
    "answers with 200 that are wrong, one kind at a time; one text that is always wrong",
    {**dict.fromkeys(WRONG_ANSWERS, 5), "spoiled": 1},
    others=("ingest", "embedder"),
)
def wrong_answers(world: World) -> None:
    # A permuted answer is a right one, and brings no second request: 400 texts are more than 12 of 25.
    for number, kind in enumerate(WRONG_ANSWERS):
        world.provider.tell(script=_scatter(world, (kind,), each=5, among=12))
        library = world.library(kind, documents=40, chunks_each=10)
        import_id = world.import_(library, f"Answers {number}")
        status = world.stack.wait(import_id, *DONE)
        world.check(status["chunks"]["rejected"] == 0, f"{kind}: {status['chunks']}")
    world.provider.tell(script=[], spoils=SPOILED)
    library = world.library("spoiled", documents=8, chunks_each=10)
    (library / "spoiled.txt").write_text(f"One of its kind\n\nThis is {SPOILED}.\n")
    status = world.stack.wait(world.import_(library, "Spoiled"), *DONE)
    rejected = status["chunks"]["rejected"]
    world.injected["spoiled"] = rejected
    world.check(rejected == 1, f"one text alone should be rejected: {status['chunks']}")
    world.drain()
    _count_met(world, WRONG_ANSWERS)
