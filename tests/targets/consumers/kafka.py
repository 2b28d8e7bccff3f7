"""Reads all messages of a topic from its beginning and prints each as a line. Arguments: port, topic, and any number of
options of the client as `name=value`."""

import base64
import json
import sys

from confluent_kafka import Consumer, TopicPartition

port, topic, *options = sys.argv[1:]
own = {"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "reader", "enable.auto.commit": False}
consumer = Consumer(own | dict(option.split("=", 1) for option in options))
found = consumer.list_topics(topic, timeout=10).topics[topic]
consumer.assign([TopicPartition(topic, partition, 0) for partition in found.partitions])
# Tansu's high watermarks are behind its messages, so they do not tell how many there are.
patience = 10
while (message := consumer.poll(patience)) is not None:
    patience = 5
    if message.error():
        sys.exit(str(message.error()))
    headers = {name: value.decode("latin-1") for name, value in message.headers() or []}
    if message.key() is not None:
        headers["key"] = message.key().decode("latin-1")
    headers["partition"] = str(message.partition())
    body = base64.b64encode(message.value() or b"").decode()
    print(json.dumps({"id": headers.get("X-Event-Id", ""), "body": body, "headers": headers}))
consumer.close()
