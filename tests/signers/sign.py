"""COUNT SEED: prints requests that the libraries of providers have signed, as JSON: COUNT of each provider. The secrets and
bodies follow from SEED. tests/it/signers.rs runs it with the libraries in PYTHONPATH."""

import base64
import json
import random
import sys
import urllib.parse
from datetime import datetime, timezone

from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook
from stripe import WebhookSignature
from twilio.request_validator import RequestValidator

COUNT, SEED = map(int, sys.argv[1:3])
NOW = 1700000000
PIECES = ["a", "Z", "0", " ", '"', "\\", "/", "&", "=", "+", "%", "<", ">", "é", "\u2028", "日本", "😀", "\n", "\t"]
chance = random.Random(SEED)


def text():
    return "".join(chance.choices(PIECES, k=chance.randrange(30)))


def event():
    return json.dumps({text(): text(), "list": [chance.randrange(1000), None, True]}, ensure_ascii=chance.random() < 0.5)


def secret_text():
    return chance.randbytes(24).hex()


def slack(secret, body):
    signature = SignatureVerifier(secret).generate_signature(timestamp=str(NOW), body=body)
    return {"x-slack-request-timestamp": str(NOW), "x-slack-signature": signature}


def standard(secret, body):
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(NOW, timezone.utc), body)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}


def stripe(secret, body):
    # The library has no public function that signs.
    return {"stripe-signature": f"t={NOW},v1={WebhookSignature._compute_signature(f'{NOW}.{body}', secret)}"}


def request(preset, secret, headers, body):
    return {"preset": preset, "secret": secret, "uri": "/in", "headers": headers, "body": body, "now": NOW}


def form():
    fields = {text(): text() for _ in range(chance.randrange(8))}
    secret = secret_text()
    signature = RequestValidator(secret).compute_signature("https://hooks.example.com/in", fields)
    headers = {"x-twilio-signature": signature, "content-type": "application/x-www-form-urlencoded"}
    return request("twilio", secret, headers, urllib.parse.urlencode(fields))


def signed():
    for _ in range(COUNT):
        yield form()
        whsec = "whsec_" + base64.b64encode(chance.randbytes(24 + chance.randrange(40))).decode()
        for preset, sign, secret in [
            ("slack", slack, secret_text()),
            ("standard-webhooks", standard, whsec),
            ("stripe", stripe, "whsec_" + secret_text()),
        ]:
            body = event()
            yield request(preset, secret, sign(secret, body), body)


json.dump(list(signed()), sys.stdout)
