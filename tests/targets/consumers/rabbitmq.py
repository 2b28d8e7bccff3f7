"""Takes all messages of a queue and prints each as a line. Arguments: port, user, password, queue."""

import base64
import json
import sys

import pika

port, user, password, queue = sys.argv[1:]
credentials = pika.PlainCredentials(user, password)
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port), "/", credentials))
channel = connection.channel()
channel.basic_qos(prefetch_count=1000)
while True:
    method, properties, body = channel.basic_get(queue)
    if method is None:
        break
    headers = {name: str(value) for name, value in (properties.headers or {}).items()}
    for name in ("content_type", "delivery_mode", "timestamp", "type", "app_id", "correlation_id"):
        if getattr(properties, name) is not None:
            headers["property:" + name] = str(getattr(properties, name))
    headers["routing_key"] = method.routing_key
    print(json.dumps({"id": properties.message_id or "", "body": base64.b64encode(body).decode(), "headers": headers}))
    channel.basic_ack(method.delivery_tag)
connection.close()
