"""Reads the story of imports from Kafka until one has completed. The README shows the same lines; a test runs them."""

import os

from confluent_kafka import Consumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

decode = AvroDeserializer(
    SchemaRegistryClient({"url": os.environ.get("PAPERLOG_URL", "http://127.0.0.1:8800")})
)
consumer = Consumer(
    {
        "bootstrap.servers": os.environ["KAFKA"],
        "group.id": "my-reader",
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",  # what is not committed has not happened
        "enable.partition.eof": False,
    }
)
consumer.subscribe(["imports"])
try:
    while (message := consumer.poll(15.0)) is not None and message.error() is None:
        event = decode(message.value(), SerializationContext(message.topic(), MessageField.VALUE))
        kind = dict(message.headers())["ce_type"].decode()
        print(message.offset(), kind, event.get("import_id"))
        if kind.endswith("ImportCompleted"):
            print("stored chunks:", event["stored_count"])
            break
finally:
    consumer.close()
