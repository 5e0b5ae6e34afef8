"""How any aiokafka client here reaches the brokers, starts, fails and ends; every default changed says why.

Vendor errors become the three families here and nowhere else. Starting and ending are bounded: aiokafka itself
would wait for an absent broker for ever. This module knows nothing of what is written or read.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalOperation,
    InvalidProducerEpoch,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    ProducerFenced,
    RecordTooLargeError,
)

from eventlog.errors import Fenced, RecordGone, TransientFailure, UnprocessableRecord
from eventlog.log import Record
from eventlog.settings import ServiceSettings
from eventlog.tls import authorities, own_certificate
from eventlog.topics import RECORD_BYTES_MAX, Names

CONNECT_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_S = 15.0
"""A broker that keeps a connection open and says nothing is given up after this."""
CLOSE_TIMEOUT_S = 2.0
"""For goodbyes: what was acknowledged is safe without them, and a service has 10 s to stop."""
_ABANDON_TIMEOUT_S = 0.5

PREFETCH_BYTES_MAX = 4 * 1024 * 1024
"""What one consumer holds of what nobody has asked for yet: aiokafka keeps an answer for each partition."""
PARTITION_FETCH_BYTES_MAX = 256 * 1024

_FETCH: dict[str, Any] = {
    "isolation_level": "read_committed",
    "auto_offset_reset": "none",  # a position outside the log is never silently another one
    "enable_auto_commit": False,
    "fetch_max_bytes": 2 * 1024 * 1024,  # one answer for all partitions (P5); aiokafka's own is 50 MB
    "fetch_max_wait_ms": 100,
    "retry_backoff_ms": 100,
    "metadata_max_age_ms": 30_000,
}
_EXPECTED = (KafkaError, ConsumerStoppedError, IllegalOperation, OSError, TimeoutError)


def connection(settings: ServiceSettings) -> dict[str, Any]:
    """The arguments by which any aiokafka client reaches the brokers."""
    out: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers.split(","),
        "security_protocol": settings.kafka_security_protocol,
        "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        out["ssl_context"] = context = authorities(settings.kafka_ssl_truststore_location)
        if settings.kafka_ssl_keystore_location is not None:
            own_certificate(
                context,
                settings.kafka_ssl_keystore_location,
                key=settings.kafka_ssl_keystore_key_file,
                password=settings.kafka_ssl_key_password,
            )
    if settings.kafka_security_protocol.startswith("SASL"):
        out["sasl_mechanism"] = settings.kafka_sasl_mechanism
        out["sasl_plain_username"] = settings.kafka_sasl_username
        out["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    return out


def consumer_options(partitions_count: int = 1) -> dict[str, Any]:
    """How every consumer here reads; Faust's consumer is built with the same. A larger record still comes, alone."""
    share = PREFETCH_BYTES_MAX // max(1, partitions_count)
    return {**_FETCH, "max_partition_fetch_bytes": min(PARTITION_FETCH_BYTES_MAX, share)}


def to_record(message: Any, names: Names | None = None) -> Record:
    """What a consumer handed out; with `names`, its topic stands without the prefix."""
    return Record(
        topic=names.bare(message.topic) if names else message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=tuple(
            (name, value or b"") for name, value in message.headers
        ),  # null where a foreign producer says so
        timestamp_ms=message.timestamp,
    )


def _mapped(error: Exception, names: Names) -> Exception:
    if isinstance(error, MessageSizeTooLargeError | RecordTooLargeError):
        return UnprocessableRecord("record_too_large", f"over {RECORD_BYTES_MAX} bytes")
    if isinstance(error, ProducerFenced | InvalidProducerEpoch):
        return Fenced(type(error).__name__)
    if isinstance(error, OffsetOutOfRangeError) and error.args and isinstance(error.args[0], dict):
        at, offset = next(iter(error.args[0].items()))
        return RecordGone(names.bare(at.topic), at.partition, offset)
    return TransientFailure(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def translated(names: Names) -> Iterator[None]:
    """What aiokafka raises inside comes out as one of the three families."""
    try:
        yield
    except _EXPECTED as error:
        raise _mapped(error, names) from None


async def started(client: Any, names: Names) -> Any:
    """The client, connected; raises TransientFailure after CONNECT_TIMEOUT_S at the latest."""
    try:
        with translated(names):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.start()
    except AssertionError:
        # A broker that is only just up answers without a broker in its list; aiokafka asserts that there is one.
        await stopped(client)
        raise TransientFailure("the broker knows of no broker yet") from None
    except BaseException:
        await stopped(client)
        raise
    return client


async def introduced(consumer: AIOKafkaConsumer, topic: str) -> None:
    """Lets the consumer's client look the topic up; at the first question about one aiokafka sleeps for 0.1 s instead."""
    await consumer._client.add_topic(topic)  # noqa: SLF001 - no public way that does not begin to fetch


async def stopped(client: AIOKafkaConsumer | AIOKafkaProducer | AIOKafkaAdminClient) -> None:
    """Ends a client politely, or, when the broker does not answer in time, without it. Never raises."""
    goodbye = client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop()
    done = await _within(CLOSE_TIMEOUT_S, goodbye)
    # aiokafka offers no way out but its parts: end its tasks, give up what is pending, drop the connections.
    if isinstance(client, AIOKafkaProducer):
        if not done:
            await _ended(client._sender.sender_task)  # noqa: SLF001 - see above
        _give_up_pending(client)
        if not done:
            await _within(_ABANDON_TIMEOUT_S, client.client.close())
    elif isinstance(client, AIOKafkaConsumer) and not done:
        coordinator = client._coordinator  # noqa: SLF001 - see above
        for name in (
            "_coordination_task",
            "_heartbeat_task",
            "_commit_refresh_task",
            "_reset_committed_task",
        ):
            await _ended(getattr(coordinator, name, None))
        if client._fetcher is not None:  # noqa: SLF001 - see above
            await _within(_ABANDON_TIMEOUT_S, client._fetcher.close())  # noqa: SLF001 - see above
        await _within(_ABANDON_TIMEOUT_S, client._client.close())  # noqa: SLF001 - see above


def _give_up_pending(producer: AIOKafkaProducer) -> None:
    """Whoever awaits an acknowledgement is told; asyncio need not say again what nobody awaited."""
    accumulator = producer._message_accumulator  # noqa: SLF001 - no public way
    pending = accumulator._pending_batches  # noqa: SLF001 - no public way
    pending.update(one for many in accumulator._batches.values() for one in many)  # noqa: SLF001 - no public way
    batches = list(pending)
    if batches:
        accumulator.fail_all(KafkaConnectionError("closed before it was acknowledged"))
    futures = [future for batch in batches for future, _ in batch._msg_futures]  # noqa: SLF001 - no public way
    futures += [batch._drain_waiter for batch in batches]  # noqa: SLF001 - no public way
    if producer._txn_manager is not None:  # noqa: SLF001 - no public way
        futures.append(producer._txn_manager._transaction_waiter)  # noqa: SLF001 - no public way
    for future in futures:
        if future is not None and future.done() and not future.cancelled():
            future.exception()


async def _within(seconds: float, step: Coroutine[Any, Any, Any]) -> bool:
    """In a task of its own, because aiokafka lets the cancellation of its parts out of `close()`."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
    return task.done() and not task.cancelled() and task.exception() is None


async def _ended(task: "asyncio.Task[Any] | None") -> None:
    """Cancelled twice: the first makes aiokafka's tasks finish what is under way, the second makes them stop."""
    for _ in range(2):
        if task is None or task.done():
            return
        task.cancel()
        await asyncio.wait([task], timeout=_ABANDON_TIMEOUT_S)
