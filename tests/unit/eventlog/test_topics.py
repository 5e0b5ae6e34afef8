"""The table of topics: who sees which, and what other settings than ours are worth saying."""

import pytest

from eventlog.topics import topic_table, topics_of


@pytest.mark.parametrize(
    ("service", "group", "names"),
    [
        ("ingest", "ingest", {"import-requests", "imports", "chunks", "ingest-dlq"}),
        ("embedder", "embedder-x", {"imports", "chunks", "embeddings", "embedder-x-dlq"}),
        ("graph-writer", "graph-writer", {"imports", "embeddings", "graph-writer-dlq"}),
    ],
)
def test_a_service_makes_and_sees_only_what_it_writes_or_reads(service: str, group: str, names: set[str]):
    topics = topics_of(service, group)
    assert {one.name for one in topics} == names
    assert topics[-1].retention_ms == topic_table()["dlq"].retention_ms


def test_only_settings_with_another_value_are_differences():
    topic = topic_table()["imports"]
    assert topic.differences(topic.config) == {}
    assert topic.differences({}) == {}, "what a broker does not say is no difference"
    other = {**topic.config, "cleanup.policy": "compact,delete", "segment.bytes": "1"}
    assert set(topic.differences(other)) == {"cleanup.policy"}


def test_every_setting_of_ours_has_its_cost_said():
    topic = topic_table()["chunks"]
    assert set(topic.differences(dict.fromkeys(topic.config, "another"))) == set(topic.config)
