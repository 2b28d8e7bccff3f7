"""Runs a real RQ worker until the queue is empty. Its function `handle` prints what it is called with.
Arguments: port, password, queue, serializer."""

import base64
import json
import sys

import redis
import rq
import rq.serializers


def handle(payload, headers):
    job = rq.get_current_job()
    if isinstance(payload, bytes):
        payload = {"bytes": base64.b64encode(payload).decode()}
    print("CALL " + json.dumps({"job": job.id, "payload": payload, "headers": headers, "timeout": job.timeout}), flush=True)


if __name__ == "__main__":
    port, password, queue, serializer = sys.argv[1:]
    serializer = rq.serializers.JSONSerializer if serializer == "json" else rq.serializers.DefaultSerializer
    connection = redis.Redis("127.0.0.1", int(port), password=password)
    queue = rq.Queue(queue, connection=connection, serializer=serializer)
    worker = rq.SimpleWorker([queue], connection=connection, serializer=serializer)
    worker.work(burst=True, logging_level="WARNING")
    print("FAILED", len(queue.failed_job_registry), "FINISHED", len(queue.finished_job_registry))
