"""Reads all messages of a topic from its beginning and prints each as a line. Arguments: port, topic, and any number of
options of the client as `name=value`.

The last message of each partition is one of its own, behind all that were there before. Tansu's high watermarks are behind its
messages, so they do not tell how many there are.
"""

import base64
import json
import sys
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition

port, topic, *options = sys.argv[1:]
server = {"bootstrap.servers": f"127.0.0.1:{port}"} | dict(option.split("=", 1) for option in options)
consumer = Consumer(server | {"group.id": "reader", "enable.auto.commit": False})
open_partitions = set(consumer.list_topics(topic, timeout=60).topics[topic].partitions)
consumer.assign([TopicPartition(topic, partition, 0) for partition in open_partitions])
end, producer = uuid.uuid4().bytes, Producer(server)
for partition in open_partitions:
    producer.produce(topic, end, partition=partition, headers={"end": "of messages"})
if producer.flush(60):
    sys.exit("the end could not be written")
while open_partitions:
    message = consumer.poll(60)
    if message is None:
        sys.exit("the end has not arrived")
    if message.error():
        sys.exit(str(message.error()))
    if "end" in dict(message.headers() or []):
        if message.value() == end:
            open_partitions.discard(message.partition())
        continue
    headers = {name: value.decode("latin-1") for name, value in message.headers() or []}
    if message.key() is not None:
        headers["key"] = message.key().decode("latin-1")
    headers["partition"] = str(message.partition())
    body = base64.b64encode(message.value() or b"").decode()
    print(json.dumps({"id": headers.get("X-Event-Id", ""), "body": body, "headers": headers}))
consumer.close()
