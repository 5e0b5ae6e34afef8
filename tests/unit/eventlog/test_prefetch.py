"""What a consumer holds unread is capped as a whole: aiokafka keeps an answer for each of its partitions."""

import pytest

from eventlog.kafka_client import PARTITION_FETCH_BYTES_MAX, PREFETCH_BYTES_MAX, consumer_options
from eventlog.topics import topic_table


@pytest.mark.parametrize("count", [1, 16, 49, 96])
def test_the_partitions_of_a_consumer_share_what_it_may_hold(count: int):
    assert consumer_options(count)["max_partition_fetch_bytes"] * count <= PREFETCH_BYTES_MAX


def test_a_few_partitions_are_read_in_large_steps_and_none_at_all_is_no_failure():
    assert consumer_options()["max_partition_fetch_bytes"] == PARTITION_FETCH_BYTES_MAX
    assert consumer_options(0)["max_partition_fetch_bytes"] == PARTITION_FETCH_BYTES_MAX


def test_every_topic_of_ours_leaves_room_for_a_batch_of_five_of_the_usual_size():
    most = max(topic.partitions for topic in topic_table().values())
    assert consumer_options(most + 1)["max_partition_fetch_bytes"] >= 5 * 10_000
