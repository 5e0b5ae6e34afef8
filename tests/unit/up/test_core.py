import pytest

from eventlog.spaces import parse_space
from paperlog.up.core import RestartPolicy, child_env, missing_key, plan_embedders, store_settings

LOCAL, OPENAI, COHERE = (
    parse_space(name) for name in ("local", "openai/text-embedding-3-small", "cohere/embed-v4.0")
)


def test_a_child_that_lived_comes_back_at_once_and_one_that_dies_at_once_waits_longer_each_time():
    policy = RestartPolicy(lived_s_min=10, backoff_s_first=0.2, backoff_s_max=15)
    deaths, waits = 0, []
    for _ in range(10):
        deaths = policy.quick_deaths(deaths, lived_s=0.1)
        waits.append(policy.backoff_s(deaths))
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15, 15]
    assert policy.backoff_s(policy.quick_deaths(deaths, lived_s=11)) == 0
    assert policy.backoff_s(100_000) == 15


def test_every_space_in_use_gets_one_embedder():
    plan = plan_embedders([str(LOCAL), str(OPENAI), str(OPENAI)], [LOCAL], {"OPENAI_API_KEY": "k"})
    assert plan.start == (OPENAI,)
    assert plan.without_key == ()


def test_a_space_whose_key_is_missing_is_named_and_not_started():
    plan = plan_embedders([str(OPENAI), str(COHERE)], [], {"CO_API_URL": "http://127.0.0.1:1"})
    assert plan.start == (COHERE,)
    assert plan.without_key == ((OPENAI, "OPENAI_API_KEY"),)


def test_a_space_that_nobody_knows_is_named():
    assert plan_embedders(["mars/model@3:1"], [], {}).unknown == ("mars/model@3:1",)


def test_a_local_model_needs_no_key():
    assert missing_key(LOCAL, {}) is None
    assert missing_key(OPENAI, {"OPENAI_API_KEY": ""}) == "OPENAI_API_KEY"


def test_only_an_embedder_sees_a_key_and_only_its_own():
    environ = {
        "OPENAI_API_KEY": "o",
        "CO_API_KEY": "c",
        "OTHER_API_KEY": "x",
        "KAFKA_SASL_PASSWORD": "p",
        "LANG": "C",
    }
    assert {name for name in child_env(environ, {}) if name in environ} == {"LANG"}
    assert {name for name in child_env(environ, {}, provider="openai") if name in environ} == {
        "LANG",
        "OPENAI_API_KEY",
    }


def test_what_the_stack_sets_wins_over_what_the_caller_has_set():
    assert child_env({"PAPERLOG_STORE": "qdrant"}, {"PAPERLOG_STORE": "edge"})["PAPERLOG_STORE"] == "edge"


def test_a_key_in_a_file_is_a_key():
    assert missing_key(OPENAI, {"OPENAI_API_KEY_FILE": "key"}) is None


def test_the_graph_writer_is_told_of_the_embedded_store_or_of_the_callers_server():
    assert store_settings({}, "folder")["PAPERLOG_STORE_DIR"] == "folder"
    environ = {"PAPERLOG_STORE": "qdrant", "QDRANT_URL": "http://a:1", "QDRANT_API_KEY": "k", "OTHER": "x"}
    told = store_settings(environ, "folder")
    assert told == {name: value for name, value in environ.items() if name != "OTHER"}
    assert child_env(environ, told)["QDRANT_API_KEY"] == "k"
    assert "QDRANT_API_KEY" not in child_env(environ, {}), "the others see no key"


@pytest.mark.parametrize(
    ("kind", "said"), [("qdrant", "needs QDRANT_URL"), ("redis", "neither edge nor qdrant")]
)
def test_a_store_that_cannot_be_used_is_refused_before_anything_is_started(kind, said):
    with pytest.raises(ValueError, match=said):
        store_settings({"PAPERLOG_STORE": kind}, "folder")
