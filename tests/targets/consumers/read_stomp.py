"""Takes all messages of a destination and prints each as a line. Arguments: port, user, password, destination.

The last message is one of its own, behind all that were there before.
"""

import base64
import json
import queue
import sys

import stomp

port, user, password, destination = sys.argv[1:]
frames = queue.Queue()


class Listener(stomp.ConnectionListener):
    def on_message(self, frame):
        frames.put(frame)

    def on_error(self, frame):
        frames.put(RuntimeError(str(frame)))

    def on_disconnected(self):
        frames.put(RuntimeError("the connection has ended"))


connection = stomp.Connection12([("127.0.0.1", int(port))], auto_decode=False, vhost="/")
connection.set_listener("", Listener())
connection.connect(user, password, wait=True)
connection.subscribe(destination, id="1", ack="client")
connection.send(destination, b"", headers={"end": "of messages", "persistent": "true"})
while True:
    frame = frames.get(timeout=60)
    if isinstance(frame, Exception):
        raise frame
    connection.ack(frame.headers["ack"])
    if "end" in frame.headers:
        break
    body = frame.body if isinstance(frame.body, bytes) else (frame.body or "").encode()
    line = {"id": frame.headers.get("X-Event-Id", ""), "body": base64.b64encode(body).decode(), "headers": frame.headers}
    print(json.dumps(line))
connection.remove_listener("")
connection.disconnect()
