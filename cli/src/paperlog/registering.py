"""Writes our schemas under our own ids into a schema registry that speaks Confluent's API.

Looks at everything first, and writes nothing where anything there differs: in import mode, which alone lets the caller
choose ids, a registry overwrites a version without a word. It knows no record and no topic's content.
"""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

import fastavro
import httpx
from pydantic import TypeAdapter

from eventlog.avro import Schema, Schemas, canonical_json, schemas_dir
from eventlog.settings import Prefix
from eventlog.topics import Names, subjects, topic_table
from paperlog.failures import WRONG_USAGE, Failure

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
USER_INFO = "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"
CA = "SCHEMA_REGISTRY_SSL_CA_LOCATION"
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_CONFLICTS_SHOWN_MAX = 20
_SECRET_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Version:
    subject: str
    schema: Schema

    @property
    def path(self) -> str:
        return f"/subjects/{quote(self.subject, safe='')}/versions/{self.schema.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    new: tuple[Version, ...]
    known_count: int


def register(url: str, *, environ: Mapping[str, str], said: Callable[[Version], None]) -> Registered:
    """Every version of every subject is there afterwards, under its id; `said` hears of each that is new.

    Raises Failure: with the conflicts, before anything was written, or with the registry's own words.
    """
    try:
        names = Names(TypeAdapter(Prefix).validate_python(environ.get("PAPERLOG_PREFIX", "")))
    except ValueError:
        raise Failure(
            "PAPERLOG_PREFIX is no prefix",
            why="It has lower-case letters, digits and dashes.",
            code=WRONG_USAGE,
        ) from None
    wanted = [
        Version(subject, versions[number])
        for subject, versions in sorted(
            subjects(Schemas(schemas_dir()), topic_table().values(), names).items()
        )
        for number in sorted(versions)
    ]
    with Registry(url, environ) as registry:
        missing = registry.compare(wanted)
        for subject in dict.fromkeys(one.subject for one in missing):
            with registry.importing(subject):
                for version in (one for one in missing if one.subject == subject):
                    registry.add(version)
                    said(version)
    return Registered(new=tuple(missing), known_count=len(wanted) - len(missing))


class Registry:
    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self.url = _checked(url)
        self._client = httpx.Client(
            base_url=self.url,
            auth=_user_info(environ),
            verify=_authorities(environ),
            timeout=_TIMEOUT,
            headers={"Accept": f"{MEDIA_TYPE}, application/json", "Content-Type": MEDIA_TYPE},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def compare(self, wanted: list[Version]) -> list[Version]:
        """What is missing. Raises Failure with all that is there and is not ours."""
        missing: list[Version] = []
        conflicts: list[str] = []
        for schema in {one.schema.id: one.schema for one in wanted}.values():
            found = self._ask("GET", f"/schemas/ids/{schema.id}", may_be_absent=True)
            if found is not None and not _is_same(found.get("schema"), schema):
                conflicts.append(f"id {schema.id} is another schema there; ours is {schema.full_name}")
        for one in wanted:
            found = self._ask("GET", one.path, may_be_absent=True)
            if found is None:
                missing.append(one)
            elif not _is_same(found.get("schema"), one.schema):
                conflicts.append(f"{one.subject} version {one.schema.version} is another schema there")
            elif found.get("id") != one.schema.id:
                conflicts.append(
                    f"{one.subject} version {one.schema.version} has id {found.get('id')} there; ours is {one.schema.id}"
                )
        if conflicts:
            more = len(conflicts) - _CONFLICTS_SHOWN_MAX
            shown = conflicts[:_CONFLICTS_SHOWN_MAX] + ([f"and {more} more"] if more > 0 else [])
            raise Failure(
                f"The registry at {self.url} has something else under our names; nothing was written",
                why="\n".join(shown),
                todo="Ids follow from the schemas and stand in every record, so they cannot be others. Use a registry or a"
                " context of its own, or another PAPERLOG_PREFIX where subjects are the trouble.",
            )
        return missing

    @contextmanager
    def importing(self, subject: str) -> Iterator[None]:
        """The subject takes ids of ours inside, and is as it was afterwards."""
        path = f"/mode/{quote(subject, safe='')}"
        before = self._ask("GET", path, may_be_absent=True)
        has_versions = self._ask("GET", f"/subjects/{quote(subject, safe='')}/versions", may_be_absent=True)
        query = {"force": "true"} if has_versions else None
        try:
            self._ask("PUT", path, {"mode": "IMPORT"}, query=query)
        except Failure as failure:
            raise Failure(
                f"The registry at {self.url} does not let us choose ids",
                why=failure.why or failure.what,
                todo="It must have import mode, allow it (Confluent's: mode.mutability=true), and us to set it. Consumers can"
                " use Paperlog's own address as registry.",
            ) from failure
        try:
            yield
        finally:
            if before is None:
                self._ask("DELETE", path)
            else:
                self._ask("PUT", path, {"mode": before["mode"]})

    def add(self, one: Version) -> None:
        """Raises Failure where the registry says no, or gave another id."""
        body = {
            "schemaType": "AVRO",
            "schema": json.dumps(one.schema.raw, separators=(",", ":")),
            "id": one.schema.id,
            "version": one.schema.version,
        }
        self._ask("POST", one.path.rpartition("/")[0], body)
        found = self._ask("GET", one.path, may_be_absent=True) or {}
        is_ours = _is_same(found.get("schema"), one.schema)
        if found.get("id") != one.schema.id or not is_ours:
            left = self._taken_back(one) if is_ours else ""
            raise Failure(
                f"The registry at {self.url} did not keep what it was given",
                why=f"{one.subject} version {one.schema.version} has id {found.get('id')} there, not {one.schema.id}",
                todo="It does not do import mode as Confluent's does (Apicurio's has none). Consumers can use"
                f" Paperlog's own address as registry.{left}",
            )

    def _taken_back(self, one: Version) -> str:
        """What has become of a version that the next run would find in its way."""
        try:
            self._ask("DELETE", one.path)
            self._ask("DELETE", one.path, query={"permanent": "true"})
        except Failure as failure:
            return f" The version stays there ({failure.why}); delete it before another try."
        return " The version was deleted again."

    def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        may_be_absent: bool = False,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded answer; null for 404 where that is an answer."""
        try:
            response = self._client.request(
                method,
                path,
                content=None if body is None else json.dumps(body).encode(),
                params=query,
            )
        except httpx.HTTPError as error:
            raise Failure(
                f"No schema registry answers at {self.url}",
                why=str(error) or type(error).__name__,
                todo=f"Look at SCHEMA_REGISTRY_URL, and at {CA} where its certificate is a company's own.",
            ) from error
        if response.status_code == httpx.codes.NOT_FOUND and may_be_absent:
            return None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.is_success and (isinstance(answer, (dict, list)) or method == "DELETE"):
            return answer
        raise self._refused(method, path, response, answer)

    def _refused(self, method: str, path: str, response: httpx.Response, answer: Any) -> Failure:
        said = answer.get("message") if isinstance(answer, dict) else None
        todo = "Look at the registry's log."
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            todo = f"Set {USER_INFO}=user:password, or {USER_INFO}_FILE, of somebody who may write schemas and modes."
        elif response.is_success or response.status_code == httpx.codes.NOT_FOUND:
            todo = "Look at SCHEMA_REGISTRY_URL: what answers there is no schema registry, or cannot do this."
        return Failure(
            f"The registry at {self.url} answered HTTP {response.status_code}",
            why=f"{method} {path}: {str(said or response.reason_phrase)[:500]}",
            todo=todo,
        )


def _is_same(text: Any, ours: Schema) -> bool:
    """Whether both mean the same; a registry may write names, white space and docs in its own way."""
    try:
        theirs = fastavro.parse_schema(json.loads(text), expand=False)
    except Exception:  # noqa: BLE001 - whatever it is, it is not ours
        return False
    return canonical_json(theirs) == canonical_json(ours.parsed)


def _checked(url: str) -> str:
    """Without the password that somebody may have written into it. Raises Failure."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise Failure(
            "SCHEMA_REGISTRY_URL is not the address of a schema registry",
            todo="Set it, for instance SCHEMA_REGISTRY_URL=http://127.0.0.1:8081.",
            code=WRONG_USAGE,
        )
    if parts.username or parts.password:
        raise Failure(
            "SCHEMA_REGISTRY_URL holds a user or a password, which would be shown",
            todo=f"Set {USER_INFO}=user:password, or {USER_INFO}_FILE.",
            code=WRONG_USAGE,
        )
    return urlunsplit(parts._replace(query="", fragment="")).rstrip("/")


def _user_info(environ: Mapping[str, str]) -> tuple[str, str] | None:
    said, file = environ.get(USER_INFO, ""), environ.get(f"{USER_INFO}_FILE", "")
    if file:
        with _readable(f"{USER_INFO}_FILE"), Path(file).open("rb") as stream:
            said = stream.read(_SECRET_BYTES_MAX).decode().rstrip("\r\n")
    if not said:
        return None
    user, colon, password = said.partition(":")
    if not colon or not user:
        raise Failure(f"{USER_INFO} is not user:password", code=WRONG_USAGE)
    return user, password


def _authorities(environ: Mapping[str, str]) -> ssl.SSLContext:
    with _readable(CA):
        return ssl.create_default_context(cafile=environ.get(CA) or None)


@contextmanager
def _readable(setting: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"The file of {setting} cannot be read", why=str(error), code=WRONG_USAGE) from error
