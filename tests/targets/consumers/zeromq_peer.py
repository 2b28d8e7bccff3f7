"""A peer of ZeroMQ that writes each message as a line to a file, and then replies if its socket can.

Arguments: the type of the socket, `bind` or `connect`, the endpoint, the file, and for SUB the topic.
The part before the body is the description of the event, if it is JSON.
"""

import base64
import json
import sys

import zmq

kind, way, endpoint, path, *topic = sys.argv[1:]
socket = zmq.Context().socket(getattr(zmq, kind))
socket.setsockopt(zmq.LINGER, 0)
if kind == "SUB":
    socket.subscribe(topic[0] if topic else "")
getattr(socket, way)(endpoint)
with open(path, "a") as file:
    while True:
        parts = socket.recv_multipart()
        try:
            headers = json.loads(parts[-2])
        except (IndexError, ValueError):
            headers = {}
        headers["parts"] = str(len(parts))
        headers["first"] = parts[0].decode(errors="replace")
        body = base64.b64encode(parts[-1]).decode()
        line = {"id": headers.get("X-Event-Id", ""), "body": body, "headers": headers}
        file.write(json.dumps(line) + "\n")
        file.flush()
        if kind == "REP":
            socket.send(b"taken")
        if kind == "ROUTER" and parts[1] == b"":
            socket.send_multipart([parts[0], b"", b"taken"])
