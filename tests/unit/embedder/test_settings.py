"""Wrong settings are named at the start, all of them; a key is never shown."""

import pytest
from pydantic import ValidationError

from embedder.settings import EmbedderSettings

GOOD = {"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", "PAPERLOG_HTTP_PORT": "0", "PAPERLOG_DATA_DIR": "data"}
OPENAI = {"PAPERLOG_EMBEDDING": "openai/text-embedding-3-small"}
COHERE = {"PAPERLOG_EMBEDDING": "cohere/embed-v4.0"}


@pytest.fixture(autouse=True)
def only_what_a_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in EmbedderSettings.model_fields.values():
        monkeypatch.delenv(str(spec.validation_alias), raising=False)


def read(monkeypatch: pytest.MonkeyPatch, **given: str) -> EmbedderSettings:
    for name, value in {**GOOD, **given}.items():
        monkeypatch.setenv(name, value)
    return EmbedderSettings()  # type: ignore[call-arg]  # the environment has them


def wrong(monkeypatch: pytest.MonkeyPatch, **given: str) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **given)
    return {str(one["loc"][0]).upper() for one in caught.value.errors()}


def test_the_local_model_needs_neither_key_nor_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(read(monkeypatch).space) == "local/wordllama@256:1"


def test_a_vendor_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong(monkeypatch, **OPENAI) == {"OPENAI_API_KEY"}
    assert wrong(monkeypatch, **COHERE) == {"CO_API_KEY"}


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, **OPENAI, OPENAI_BASE_URL="http://[::1]:11434/v1").openai_base_url


@pytest.mark.parametrize("key", ["sk-\u00e9", "sk-a\n", "sk a", "sk-\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    assert wrong(monkeypatch, **OPENAI, OPENAI_API_KEY=key) == {"OPENAI_API_KEY"}
    assert wrong(monkeypatch, **COHERE, OPENAI_API_KEY="", CO_API_KEY=key) == {"CO_API_KEY"}
    settings = read(monkeypatch, **OPENAI, OPENAI_API_KEY="sk-canary", CO_API_KEY="")
    assert "canary" not in f"{settings!r} {settings}"


@pytest.mark.parametrize(
    "url",
    ["nonsense", "http://[", "https://", "http:///v1", "http://x:abc/v1", "http://x:99999", "http://a b"],
)
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    found = wrong(monkeypatch, **OPENAI, OPENAI_API_KEY="sk-1", OPENAI_BASE_URL=url, CO_API_URL=url)
    assert found >= {"OPENAI_BASE_URL", "CO_API_URL"}


@pytest.mark.parametrize(
    "model", ["", "gpt", "openai/", "openai/x", "nobody/model@5", "local@0", "cohere/x@-1"]
)
def test_a_model_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    if not model:
        assert str(read(monkeypatch, PAPERLOG_EMBEDDING=model).space) == "local/wordllama@256:1"
        return
    assert wrong(monkeypatch, PAPERLOG_EMBEDDING=model) == {"PAPERLOG_EMBEDDING"}
