"""Subscribes to a channel, writes "subscribed", and prints each message as a line. Arguments: port, password, channel, count.
It ends after that many messages."""

import base64
import json
import sys

import redis

port, password, channel, count = sys.argv[1:]
subscriber = redis.Redis("127.0.0.1", int(port), password=password).pubsub()
subscriber.subscribe(channel)
left = int(count)
for message in subscriber.listen():
    if message["type"] == "subscribe":
        print("subscribed", flush=True)
        continue
    print(base64.b64encode(message["data"]).decode(), flush=True)
    left -= 1
    if left == 0:
        break
