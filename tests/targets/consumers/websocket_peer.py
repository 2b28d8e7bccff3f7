"""A target for WebSocket: the library websockets. Arguments: the port, the port with TLS or 0, and a directory.

A client needs `Authorization: Bearer` with the content of the file `password`, and the path `/in`. Each message is appended to
the file `messages`, as a line in Base64, and answered with `ok` once it is there. Messages with these texts are answered by
closing with a code: `close 1013`, …
"""

import asyncio
import base64
import http
import ssl
import sys
from pathlib import Path

from websockets.asyncio.server import serve


async def main(port, tls_port, directory):
    directory = Path(directory)
    output = open(directory / "messages", "ab", buffering=0)

    def check(connection, request):
        status = request.path.removeprefix("/status/")
        if status.isdigit():
            return connection.respond(http.HTTPStatus(int(status)), "no\n")
        if request.path != "/in":
            return connection.respond(http.HTTPStatus.NOT_FOUND, "no\n")
        password = (directory / "password").read_text()
        if request.headers.get("Authorization") != f"Bearer {password}":
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "no\n")

    async def handle(connection):
        async for message in connection:
            kind = "text" if isinstance(message, str) else "binary"
            content = message.encode() if isinstance(message, str) else message
            close = content.removeprefix(b"close ")
            if close != content:
                await connection.close(int(close), "as asked")
                return
            output.write(f"{kind} {base64.b64encode(content).decode()}\n".encode())
            await connection.send("ok")

    options = {"process_request": check, "max_size": 1_000_000, "compression": None}
    servers = [await serve(handle, "127.0.0.1", int(port), **options)]
    if tls_port != "0":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
        servers.append(await serve(handle, "127.0.0.1", int(tls_port), ssl=context, **options))
    print("ready", flush=True)
    await asyncio.gather(*(server.wait_closed() for server in servers))


asyncio.run(main(*sys.argv[1:]))
