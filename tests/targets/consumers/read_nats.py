"""A client of NATS: nats-py. Commands, after the port, the user, the password and the path of a CA (or `-`):

read STREAM        prints each message of a stream as a line
listen SUBJECT     prints `ready`, and then each message as a line, until it is killed
respond SUBJECT    the same, and answers each message with `{}`
api SUBJECT JSON   sends a request to JetStream's API and prints the answer
"""

import asyncio
import base64
import json
import ssl
import sys

import nats


def show(message):
    headers = dict(message.headers or {})
    headers["subject"] = message.subject
    body = base64.b64encode(message.data or b"").decode()
    print(json.dumps({"id": headers.get("X-Event-Id", ""), "body": body, "headers": headers}), flush=True)


async def main(port, user, password, ca, command, *arguments):
    options = {"connect_timeout": 20, "allow_reconnect": False}
    if user != "-":
        options.update(user=user, password=password)
    scheme, host = "nats", "127.0.0.1"
    if ca != "-":
        scheme, host = "tls", "localhost"
        options["tls"] = ssl.create_default_context(cafile=ca)
    client = await nats.connect(f"{scheme}://{host}:{port}", **options)
    if command == "api":
        subject, body = arguments
        # A cluster that elects its leader loses requests.
        for _ in range(30):
            try:
                answer = await client.request(subject, body.encode(), timeout=2)
                print(answer.data.decode())
                break
            except nats.errors.TimeoutError:
                pass
    elif command in ("listen", "respond"):
        ready = asyncio.Event()

        async def on_message(message):
            show(message)
            if command == "respond":
                await message.respond(b"{}")

        await client.subscribe(arguments[0], cb=on_message)
        await client.flush()
        print("ready", flush=True)
        await ready.wait()
    elif command == "read":
        stream = arguments[0]
        jetstream = client.jetstream(timeout=20)
        state = (await jetstream.stream_info(stream)).state
        # One after the other, and without a consumer, which a cluster may place on a server that is down.
        for number in range(state.first_seq, state.last_seq + 1):
            if state.messages:
                show(await jetstream.get_msg(stream, number))
    await client.close()


asyncio.run(main(*sys.argv[1:]))
