"""Makes the topics of `schemas/topics.toml` that are missing, and ends: the one-shot step of a deployment.

It waits for the brokers. Ends with 0 when every topic is there, with 2 when the settings are wrong or a topic has
another number of partitions. Dead letters belong to consumer groups: each service makes its own at start.
"""

import asyncio
import sys

from eventlog.errors import TransientFailure
from eventlog.kafka import KafkaLog
from eventlog.logs import Logger, configure
from eventlog.settings import ServiceSettings, load
from eventlog.topics import DLQ, topic_table

_log = Logger("eventlog.make_topics")
_RETRY_S = 1.0


async def make_topics(settings: ServiceSettings) -> list[str]:
    """The names of all of them, with the prefix. Raises ValueError where a topic has another number of partitions."""
    log = KafkaLog(settings)
    topics = [topic for name, topic in topic_table().items() if name != DLQ]
    try:
        while True:
            try:
                await log.ensure_topics(topics)
            except TransientFailure as failure:
                _log.warning("log.unavailable", why=failure)
                await asyncio.sleep(_RETRY_S)
            else:
                return [log.names.of(topic.name) for topic in topics]
    finally:
        await log.close()


def main() -> None:
    configure()
    settings = load(ServiceSettings)
    try:
        names = asyncio.run(make_topics(settings))
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a setting that only the log could prove wrong
        raise SystemExit(2) from None
    _log.info("topics.there", topics=", ".join(names))


if __name__ == "__main__":
    main()
