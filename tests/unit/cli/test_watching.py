"""An import is followed to its end whatever happens to the connection."""

import io
import re
import time
from collections.abc import Iterator

import pytest
from rich.console import Console
from tests.unit.cli.fake_service import DROP, IMPORT_ID, FakeService, a_problem, a_status

from paperlog import watching
from paperlog.failures import Failure
from paperlog.progress import WAITS, Pace, counts_words, follow, summary
from paperlog.service import Service
from paperlog.watching import read_events, statuses


@pytest.fixture
def client(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("_AGAIN_S", "_POLL_S", "_REOPEN_S"):
        monkeypatch.setattr(watching, name, 0.01)
    with Service(service.url, say=lambda _: None) as client:
        yield client


def _states(client: Service, **more: object) -> list[str]:
    return [each["state"] for each in statuses(client, IMPORT_ID, say=lambda _: None, **more)]


def test_a_stream_that_breaks_off_is_taken_up_where_it_stopped(client: Service, service: FakeService):
    service.streams = [
        [("7", "status", a_status("parsing")), ("9", "status", a_status()), DROP],
        [],
        [("12", "status", a_status("completed"))],
    ]
    assert _states(client) == ["parsing", "embedding", "completed"]
    assert service.last_event_ids == [None, "9", "9"]


def test_streams_that_say_nothing_are_given_up_for_asking(client: Service, service: FakeService):
    service.answers["GET", f"/api/imports/{IMPORT_ID}"] = [a_status(), a_status("completed")]
    assert _states(client) == ["embedding", "completed"]


def test_an_answer_that_is_no_stream_is_given_up_for_asking(client: Service, service: FakeService):
    service.before = lambda _method, path: (200, {}) if path.endswith("/events") else None
    service.answers["GET", f"/api/imports/{IMPORT_ID}"] = a_status("completed")
    assert _states(client) == ["completed"]
    assert len([path for path in service.said("GET") if path.endswith("/events")]) == 1


def test_an_outage_is_waited_for(client: Service, service: FakeService):
    service.before = lambda _method, _path: (
        a_problem(503, "log_unavailable", "The log is away", retryable=True)
        if len(service.requests) < 4
        else None
    )
    service.streams = [[("1", "status", a_status("completed"))]]
    assert _states(client) == ["completed"]


def test_silence_ends_with_how_to_go_on(client: Service, service: FakeService):
    service.before = lambda _method, _path: DROP
    with pytest.raises(Failure) as caught:
        _states(client, away_s_max=0.05)
    assert f"paperlog watch {IMPORT_ID}" in caught.value.todo


def test_an_import_that_was_just_accepted_may_be_unknown_for_a_moment(client: Service, service: FakeService):
    service.before = lambda _method, _path: (
        a_problem(404, "import_unknown", "No such import") if len(service.requests) < 3 else None
    )
    service.streams = [[("1", "status", a_status("completed"))]]
    assert _states(client, is_new=True) == ["completed"]


def test_an_import_that_nobody_knows_is_said_at_once(client: Service, service: FakeService):
    service.before = lambda _method, _path: a_problem(404, "import_unknown", "No such import")
    started = time.monotonic()
    with pytest.raises(Failure, match="No such import"):
        _states(client)
    assert time.monotonic() - started < 5


def test_events_do_not_depend_on_how_the_stream_was_cut():
    title = "a\u2028b\x85c 수면"
    text = f': hello\n\nid: 3\nevent: status\ndata: {{"project":\ndata: "{title}"}}\n\nevent: other\ndata: {{}}\n\n'
    content = text.encode()
    for size in (1, 3, len(content)):
        pieces = (content[start : start + size] for start in range(0, len(content), size))
        assert list(read_events(pieces)) == [("3", {"project": title})]


def test_the_pace_is_that_of_the_last_seconds():
    pace = Pace()
    for second in range(60):
        pace.add(float(second), 0 if second < 40 else (second - 40) * 10)
    assert pace.per_s == pytest.approx(10.0)


def test_nobody_is_promised_an_end_while_papers_are_still_read_or_a_provider_is_waited_for():
    pace = Pace()
    pace.add(0.0, 0)
    pace.add(1.0, 10)
    assert pace.eta_s(a_status("parsing")) is None
    assert pace.eta_s(a_status(waiting="provider_down")) is None
    assert pace.eta_s(a_status()) == pytest.approx(2.0)
    assert pace.eta_s(a_status(chunks={"total": 20, "stored": 20})) is None, "the last sweeps have no pace"
    assert "about 2 s left" in counts_words(a_status(), pace)


def test_the_last_sentence_counts_what_was_rejected():
    text = summary(
        a_status(
            "completed_with_rejections",
            documents={"found": 3, "stored": 1, "rejected": 2, "merged": 0},
            tokens_billed=1200,
        )
    )
    assert (
        "completed with rejected items: 1 paper, 20 chunks stored, 2 items rejected; 1,200 tokens billed"
        in text
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_display_says_in_full_why_an_import_waits_however_narrow_the_terminal(width: int):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    waiting = a_status(waiting="no_embedder", chunks={"total": 1_234_567, "stored": 1_000_000})
    assert follow(iter([waiting, a_status("completed")]), console) == a_status("completed")
    shown = " ".join(re.sub(r"\x1b\[[0-9?]*[A-Za-z]", " ", out.getvalue()).split())
    assert "embedding " in shown
    assert f"waiting: {WAITS['no_embedder']}" in shown
    assert "1,000,000/1,234,567" in shown
    assert "…" not in shown
