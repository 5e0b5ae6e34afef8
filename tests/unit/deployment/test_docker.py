"""What docker-compose.yml and the Dockerfiles say, held to what the services know. Nothing here needs Docker."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from tests.compose import ROOT, services

from embedder.settings import EmbedderSettings
from eventlog.settings import ServiceSettings
from eventlog.spaces import DEFAULT_SPACE
from graph_writer.settings import Settings as GraphWriterSettings
from ingest.settings import IngestSettings
from paperlog.up.kafka import _settings

SERVICES = {"ingest": IngestSettings, "embedder": EmbedderSettings, "graph-writer": GraphWriterSettings}
OURS = {**SERVICES, "topics": ServiceSettings}
MEMORY_BYTES = 512 * 1024 * 1024


COMPOSE = services()


def dockerfile(service: str) -> list[tuple[str, str]]:
    """Its instructions, comments left out and continued lines joined."""
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(op, rest) for op, _, rest in (line.strip().partition(" ") for line in lines) if op]


def final_stage(service: str) -> list[tuple[str, str]]:
    steps = dockerfile(service)
    return steps[max(at for at, (op, _) in enumerate(steps) if op == "FROM") :]


def names(settings: type[ServiceSettings]) -> set[str]:
    return {str(field.validation_alias) for field in settings.model_fields.values()}


def in_bytes(limit: str) -> int:
    assert limit.endswith("m")
    return int(limit[:-1]) * 1024 * 1024


def test_images_of_others_are_pinned_to_a_whole_version():
    images = {name: one["image"] for name, one in COMPOSE.items() if "image" in one}
    assert set(images) == set(COMPOSE) - set(OURS)
    for image in images.values():
        assert re.fullmatch(r"[a-z-]+/[a-z-]+:v?\d+\.\d+\.\d+(-[a-z]+)?", image), image


@pytest.mark.parametrize("service", SERVICES)
def test_base_images_are_pinned_and_one_for_all(service: str):
    bases = {rest.split()[0] for op, rest in dockerfile(service) if op == "FROM"}
    assert bases == {"python:3.13.14-slim-trixie"}


def test_qdrants_image_fits_the_client():
    server = Version(COMPOSE["qdrant"]["image"].partition(":")[2].removeprefix("v").partition("-")[0])
    client = Version(version("qdrant-client"))
    assert server.major == client.major
    assert abs(server.minor - client.minor) <= 1


def test_the_three_services_together_have_512_mb_and_no_swap():
    limits = [in_bytes(COMPOSE[name]["mem_limit"]) for name in SERVICES]
    assert sum(limits) == MEMORY_BYTES
    assert [in_bytes(COMPOSE[name]["memswap_limit"]) for name in SERVICES] == limits


@pytest.mark.parametrize("service", OURS)
def test_every_setting_is_known_to_its_service_and_none_that_it_needs_is_missing(
    service: str, monkeypatch: pytest.MonkeyPatch
):
    environment = COMPOSE[service]["environment"]
    assert set(environment) <= names(OURS[service])
    for name in names(OURS[service]):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = OURS[service]()  # type: ignore[call-arg]  # all of it comes from the environment
    assert settings.http_host == "0.0.0.0"


def test_the_services_find_each_other():
    port = COMPOSE["ingest"]["environment"]["PAPERLOG_HTTP_PORT"]
    told = COMPOSE["ingest"]["environment"]
    assert told["PAPERLOG_GRAPH_WRITER_URL"] == f"http://graph-writer:{port}"
    assert (
        IngestSettings.model_validate(told).embedders.url_of(str(DEFAULT_SPACE)) == f"http://embedder:{port}"
    )
    assert COMPOSE["graph-writer"]["environment"]["QDRANT_URL"] == "http://qdrant:6333"
    advertised = COMPOSE["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    for service in OURS:
        bootstrap = COMPOSE[service]["environment"]["KAFKA_BOOTSTRAP_SERVERS"]
        assert f"INSIDE://{bootstrap}," in advertised
    assert f"HOST://{':'.join(COMPOSE['kafka']['ports'][0].split(':')[:2])}" in advertised
    ui = COMPOSE["kafka-ui"]["environment"]
    assert ui["KAFKA_CLUSTERS_0_SCHEMAREGISTRY"] == f"http://ingest:{port}"
    assert "ingest" in IngestSettings.model_validate(told).http_names


def test_whatever_is_published_is_published_on_loopback():
    published = [port for one in COMPOSE.values() for port in one.get("ports", ())]
    assert len(published) == 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published), published
    assert not any("network_mode" in one or one.get("privileged") for one in COMPOSE.values())


@pytest.mark.parametrize("service", OURS)
def test_a_service_may_write_its_own_folders_only_and_has_no_rights(service: str):
    one = COMPOSE[service]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    writable = {volume.split(":")[1] for volume in one.get("volumes", ())} | set(one["tmpfs"])
    told = one["environment"]
    folders = {told[name] for name in ("PAPERLOG_DATA_DIR", "PAPERLOG_BLOBS") if name in told}
    assert folders <= writable


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_runs_as_nobody_in_particular_and_owns_its_folders(service: str):
    steps = final_stage(service)
    user = next(rest for op, rest in steps if op == "USER").partition(":")[0]
    (made,) = (rest for op, rest in steps if op == "RUN")
    assert int(user) >= 1000
    assert f"--uid {user} " in made
    # A named volume takes its owner from the folder of the image under it.
    for volume in COMPOSE[service]["volumes"]:
        assert volume.split(":")[1] in made.rpartition("install ")[2].split()
    env = dict(re.findall(r"(\w+)=(\S+)", next(rest for op, rest in steps if op == "ENV")))
    # Files of unknown size go to a disk: a tmpfs counts as memory of the service.
    assert env["TMPDIR"] in {volume.split(":")[1] for volume in COMPOSE[service]["volumes"]}


@pytest.mark.parametrize("service", [name for name in COMPOSE if name not in ("topics", "kafka-ui")])
def test_everything_that_stays_is_asked_how_it_is(service: str):
    test = COMPOSE[service]["healthcheck"]["test"]
    assert test[0] == "CMD"
    if service in SERVICES:
        assert test[1] == "python"
        compile(test[-1], "healthcheck", "exec")
        assert f"http://127.0.0.1:{COMPOSE[service]['environment']['PAPERLOG_HTTP_PORT']}/readyz" in test[-1]


@pytest.mark.parametrize("service", OURS)
def test_the_topics_are_made_first_from_the_one_table(service: str):
    depends = {name: one["condition"] for name, one in COMPOSE[service]["depends_on"].items()}
    if service == "topics":
        assert COMPOSE[service]["entrypoint"] == ["python", "-m", "eventlog.make_topics"]
        assert depends == {"kafka": "service_healthy"}
    else:
        assert depends == {"topics": "service_completed_successfully"}


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_dockerfile_copies_is_there_and_in_the_build_context(service: str):
    build = COMPOSE[service]["build"]
    assert build == {"context": ".", "dockerfile": f"services/{service}/Dockerfile"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = [
        shlex.split(rest)[:-1] for op, rest in dockerfile(service) if op == "COPY" and "--from" not in rest
    ]
    sources = [source for each in copied for source in each]
    assert f"services/{service}/src" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in kept), source


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_starts_its_services_program(service: str):
    (entry,) = (json.loads(rest) for op, rest in final_stage(service) if op == "ENTRYPOINT")
    module = service.replace("-", "_")
    assert entry == ["python", "-m", f"{module}.app"]
    assert (ROOT / "services" / service / "src" / module / "app.py").exists()


def pins(lock: Path) -> dict[str, set[str]]:
    """`name==version` with its marker → the hashes of its files."""
    found: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=[a-z0-9])", lock.read_text()):
        if match := re.match(r"([a-z0-9][^\\\n]*==[^\\\n]*?) *\\\n", block):
            found[match[1]] = set(re.findall(r"--hash=(\S+)", block))
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_lock_is_its_part_of_the_one_lock(service: str):
    def of_one_version(lock: dict[str, set[str]]) -> dict[str, set[str]]:
        return {pin.partition(" ;")[0]: hashes for pin, hashes in lock.items()}

    everything = of_one_version(pins(ROOT / "requirements.lock"))
    own = of_one_version(pins(ROOT / "services" / service / "requirements.lock"))
    assert len(own) > 20
    for pin, hashes in own.items():
        assert everything.get(pin) == hashes, f"{pin}: run `make lock`"
    locked = {pin.partition("==")[0] for pin in own}
    for project in (ROOT / "services" / service, ROOT / "libs" / "eventlog"):
        needed = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
        missing = {Requirement(one).name for one in needed} - locked - {"eventlog"}
        assert not missing, f"{missing}: run `make lock`"


def test_kafka_in_docker_has_the_settings_of_the_embedded_one_wherever_they_mean_the_records():
    settings = _settings(port=1, controller_port=2, log_dir=Path("unused"))
    embedded = {key: str(value) for key, value in settings.items()}
    in_docker = {
        name.removeprefix("KAFKA_").replace("_", ".").lower(): value
        for name, value in COMPOSE["kafka"]["environment"].items()
        if name.startswith("KAFKA_")
    }
    for name in ("retention", "replication.factor", "min.isr", "max.bytes", "auto.create", "session.timeout"):
        for key, value in embedded.items():
            if name in key and key != "broker.session.timeout.ms":
                assert in_docker.get(key) == value, key
