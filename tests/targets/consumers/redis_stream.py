"""Reads all entries of a stream and prints each as a line. Arguments: port, password, stream."""

import base64
import json
import sys

import redis

port, password, stream = sys.argv[1:]
client = redis.Redis("127.0.0.1", int(port), password=password)
last = "-"
while entries := client.xrange(stream, last, count=1000):
    for entry_id, fields in entries:
        last = b"(" + entry_id
        body = base64.b64encode(fields.pop(b"body")).decode()
        headers = {name.decode(): value.decode("latin-1") for name, value in fields.items()}
        print(json.dumps({"id": headers["id"], "body": body, "headers": headers}))
