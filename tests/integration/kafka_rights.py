"""The rights that docs/runbooks/kafka.md lists, the same as they follow from the table of topics, and how to grant them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from tests.e2e.stack import until

from eventlog.topics import DLQ, topic_table
from ingest.term import TRANSACTIONAL_ID

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbooks" / "kafka.md"
GROUPS = {"ingest": "ingest", "embedder": "embedder-*", "graph-writer": "graph-writer"}
"""One embedder runs for each space, in a group of its own."""
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
}
_ALL = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)
_OPERATIONS = {
    "Create": AclOperation.CREATE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
}


class Right(NamedTuple):
    service: str
    resource: str
    name: str
    operation: str


def documented() -> list[Right]:
    row = re.compile(
        r"^\| `([a-z-]+)` \| (topic|group|transactional id) \| `([a-z*-]+)` \| ([A-Za-z, ]+) \|$",
        re.MULTILINE,
    )
    return [
        Right(service, resource, name, operation)
        for service, resource, name, operations in row.findall(RUNBOOK.read_text())
        for operation in operations.split(", ")
    ]


def derived() -> set[Right]:
    """Who writes and who reads stands in the table of topics; whoever uses a topic also makes and looks at it."""
    table = topic_table()
    letters = table.pop(DLQ)
    letters_of = {one: "embedder-*" if one == "embedder" else f"{one}-{DLQ}" for one in letters.writers}
    rights: set[Right] = set()
    for service, group in GROUPS.items():
        for topic in table.values():
            used = ({"Write"} if service in topic.writers else set()) | (
                {"Read"} if service in topic.readers else set()
            )
            used |= {"Create", "DescribeConfigs"} if used else set()
            rights |= {Right(service, "topic", topic.name, one) for one in used}
        own = letters_of[service]
        rights |= {Right(service, "topic", own, one) for one in ("Create", "DescribeConfigs", "Write")}
        if service in letters.readers:
            rights |= {Right(service, "topic", one, "Read") for one in letters_of.values()}
        rights.add(Right(service, "group", group, "Read"))
    rights.add(Right("ingest", "transactional id", TRANSACTIONAL_ID, "Write"))
    return rights


def grant(admin: AdminClient, rights: Iterable[Right], prefix: str) -> None:
    """To the user that has the service's name, for names under the prefix. Returns when the broker goes by them."""
    bindings = [
        AclBinding(
            _RESOURCES[right.resource],
            f"{prefix}-{right.name.removesuffix('*')}",
            ResourcePatternType.PREFIXED if right.name.endswith("*") else ResourcePatternType.LITERAL,
            f"User:{right.service}",
            "*",
            _OPERATIONS[right.operation],
            AclPermissionType.ALLOW,
        )
        for right in rights
    ]
    for done in admin.create_acls(bindings, request_timeout=30).values():
        done.result(30)
    # What is answered is in the controller's log; the broker reads it a moment later.
    until(lambda: set(bindings) <= set(admin.describe_acls(_ALL).result(30)), 30, "the rights are not there")
