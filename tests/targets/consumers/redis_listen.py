"""Subscribes to a channel, again whenever the connection is lost, and prints each message as a line in Base64. The password
is read from its file each time. Arguments: port, file of the password, channel."""

import base64
import pathlib
import sys
import time

import redis

port, password, channel = sys.argv[1:]
while True:
    try:
        subscriber = redis.Redis("127.0.0.1", int(port), password=pathlib.Path(password).read_text()).pubsub()
        subscriber.subscribe(channel)
        for message in subscriber.listen():
            if message["type"] == "message":
                print(base64.b64encode(message["data"]).decode(), flush=True)
    except redis.RedisError:
        time.sleep(0.05)
