"""Calls methods of pika's channel. Arguments: port, user, password, and a list `[[method, {argument: value}], …]` in JSON."""

import json
import sys

import pika

port, user, password, calls = sys.argv[1:]
credentials = pika.PlainCredentials(user, password)
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port), "/", credentials))
channel = connection.channel()
for method, arguments in json.loads(calls):
    getattr(channel, method)(**arguments)
connection.close()
