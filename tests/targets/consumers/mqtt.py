"""A client of MQTT: paho-mqtt. Commands, after the port, the user, the password and the version (4 or 5):

subscribe CLIENT TOPIC   begins a session that the server keeps, with QoS 2 for a topic
read CLIENT              prints each message that the server has kept for the session, as a line. The last message is one of
                         its own, behind all that were there before; the session has a subscription to `events/#`
listen TOPIC             prints `ready`, and then each message as a line, until it is killed
"""

import base64
import json
import sys
import threading
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def show(message):
    headers = {"topic": message.topic, "qos": str(message.qos), "retain": str(message.retain)}
    body = message.payload
    for name, value in getattr(getattr(message, "properties", None), "UserProperty", []):
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    content_type = getattr(getattr(message, "properties", None), "ContentType", None)
    if content_type is not None:
        headers["Content-Type"] = content_type
    event_id = headers.get("X-Event-Id", "")
    if body.startswith(b'{"payload":') and not event_id:
        # An envelope, whose payload is taken byte for byte.
        envelope = json.loads(body)
        headers.update(envelope["headers"])
        event_id = envelope["headers"]["x-event-id"]
        end = body.rindex(b',"headers":')
        if envelope.get("encoding") == "base64":
            body = base64.b64decode(envelope["payload"])
        else:
            body = body[len(b'{"payload":') : end]
    body = base64.b64encode(body).decode()
    print(json.dumps({"id": event_id, "body": body, "headers": headers}), flush=True)


def main(port, user, password, version, command, *arguments):
    is_5 = version == "5"
    name = arguments[0] if command != "listen" else ""
    options = {} if is_5 else {"clean_session": command == "listen"}
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=name,
        protocol=mqtt.MQTTv5 if is_5 else mqtt.MQTTv311,
        **options,
    )
    client.username_pw_set(user, password)
    ready, done = threading.Event(), threading.Event()
    end = uuid.uuid4().bytes

    def on_connect(client, _data, _flags, reason, _properties):
        assert reason == 0, reason
        topic = {"subscribe": arguments[1:], "listen": arguments}.get(command)
        if topic:
            client.subscribe(topic[0], qos=2)
        else:
            # With the best QoS of the server: another one may overtake messages.
            client.publish("events/end", end, qos=2 if is_5 else 1)
            ready.set()

    def on_subscribe(_client, _data, _id, reasons, _properties):
        assert not any(reason.is_failure for reason in reasons), reasons
        ready.set()

    def on_message(_client, _data, message):
        if message.payload == end:
            done.set()
        elif message.topic != "events/end":
            show(message)

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    settings = {}
    if is_5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if command == "listen" else 3600
        settings = {"clean_start": command == "listen", "properties": properties}
    client.connect("127.0.0.1", int(port), 60, **settings)
    client.loop_start()
    assert ready.wait(60), "no session"
    if command == "listen":
        print("ready", flush=True)
        threading.Event().wait()
    if command == "read":
        assert done.wait(300), "the end has not arrived"
    client.disconnect()
    client.loop_stop()


main(*sys.argv[1:])
