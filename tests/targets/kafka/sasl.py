"""Stands before a Kafka without users, and lets in clients that authenticate themselves by SASL. kafka-python reads and writes
the protocol and scramp is the server of SCRAM, so that nobody who wrote the module wrote what judges it. The password is
read from its file at each login. Arguments: port, port of Kafka, file of the password, user, mechanisms (comma-separated)."""

import asyncio
import pathlib
import struct
import sys

from kafka.protocol.metadata import ApiVersionsRequest
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)
from scramp import ScramException, ScramMechanism

UNSUPPORTED_MECHANISM, AUTHENTICATION_FAILED = 33, 58

port, kafka, password, user, mechanisms = sys.argv[1:]
mechanisms = mechanisms.split(",")


async def read(reader):
    size = await reader.readexactly(4)
    return await reader.readexactly(struct.unpack(">i", size)[0])


def framed(data):
    return struct.pack(">i", len(data)) + data


def steps(mechanism):
    """Yields the server's messages and takes the client's. An exception is a refusal."""
    secret = pathlib.Path(password).read_text()
    first = yield
    if mechanism == "PLAIN":
        if first != b"\0".join([b"", user.encode(), secret.encode()]):
            raise ScramException("PLAIN")
        yield b""
        return
    scram = ScramMechanism(mechanism)
    known = {user: scram.make_auth_info(secret, iteration_count=4096)}
    server = scram.make_server(known.__getitem__)
    server.set_client_first(first.decode())
    final = yield server.get_server_first().encode()
    server.set_client_final(final.decode())
    yield server.get_server_final().encode()


async def login(reader, writer, up, down):
    """Returns whether the client may go on."""
    mechanism = exchange = None
    while True:
        data = await read(reader)
        key, version = struct.unpack(">hh", data[:4])
        if key == ApiVersionsRequest.API_KEY:
            down.write(framed(data))
            writer.write(framed(await read(up)))
            continue
        request = {r.API_KEY: r for r in (SaslHandshakeRequest, SaslAuthenticateRequest)}.get(key)
        if request is None:
            return False
        request = request.decode(data, version=version, header=True)
        error, is_in = 0, False
        if key == SaslHandshakeRequest.API_KEY:
            mechanism = request.mechanism
            error = 0 if mechanism in mechanisms else UNSUPPORTED_MECHANISM
            answer = SaslHandshakeResponse(version=version, error_code=error, mechanisms=mechanisms)
            exchange = steps(mechanism)
            next(exchange)
        else:
            text, message = None, b""
            try:
                message = exchange.send(bytes(request.auth_bytes))
                is_in = mechanism == "PLAIN" or message.startswith(b"v=")
            except (KeyError, ScramException):
                error, text = AUTHENTICATION_FAILED, f"Authentication failed with SASL mechanism {mechanism}"
            answer = SaslAuthenticateResponse(
                version=version, error_code=error, error_message=text, auth_bytes=message, session_lifetime_ms=0
            )
        answer.with_header(correlation_id=request.header.correlation_id)
        writer.write(answer.encode(header=True, framed=True))
        if is_in or error:
            await writer.drain()
            return is_in


async def carry(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def serve(reader, writer):
    try:
        up, down = await asyncio.open_connection("127.0.0.1", int(kafka))
    except ConnectionError:
        writer.close()
        return
    try:
        if await login(reader, writer, up, down):
            ways = [asyncio.create_task(carry(reader, down)), asyncio.create_task(carry(up, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        down.close()
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(port))
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
