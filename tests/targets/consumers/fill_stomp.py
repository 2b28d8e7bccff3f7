"""Fills the store of a server, or empties it again. Arguments: port, user, password, `fill` or `empty`."""

import queue
import sys

import stomp

port, user, password, what = sys.argv[1:]
DESTINATION = "/queue/filler"
answers = queue.Queue()


class Listener(stomp.ConnectionListener):
    def on_message(self, frame):
        answers.put(frame)

    def on_receipt(self, frame):
        answers.put(frame)

    def on_error(self, frame):
        answers.put(None)


connection = stomp.Connection12([("127.0.0.1", int(port))], auto_decode=False, vhost="/")
connection.set_listener("", Listener())
connection.connect(user, password, wait=True)
if what == "fill":
    for size in (900_000, 10_000):
        while True:
            connection.send(DESTINATION, b"x" * size, headers={"persistent": "true", "receipt": "r"})
            if answers.get(timeout=60) is None:
                break
else:
    connection.subscribe(DESTINATION, id="1", ack="client-individual")
    try:
        while True:
            connection.ack(answers.get(timeout=3).headers["ack"])
    except queue.Empty:
        pass
connection.remove_listener("")
connection.disconnect()
