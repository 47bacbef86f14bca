#!/usr/bin/env python3
"""A receiver of forestall's webhook: checks who calls, and does each action once. Needs nothing but Python 3.8.

    receiver.py --key-file KEY [--key-file OLD_KEY] [--port 9000] [--host 127.0.0.1] [--callback URL]

`verified` is what to copy; `Receiver` shows what else a receiver has to see to. Prints one line for each action that it
carries out. What it has done is kept in memory here; a real one keeps it where it does not get lost, together with the
effect. With `--callback http://127.0.0.1:9797/api/v1/forestall/actions/{id}/outcome` it says by itself when it is done.
"""

import argparse
import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

# Older or newer than this is a replay, or a clock that is wrong.
TOLERANCE_SECONDS = 300
BODY_BYTES_MAX = 1 << 20
# How often forestall is told what has become of an action, until it has written that down.
CALLS_MAX = 20


def read_key(path):
    """A key file holds the key itself, or `whsec_` and the key in base64."""
    with open(path, "rb") as file:
        secret = file.read().rstrip()
    return base64.b64decode(secret[6:], validate=True) if secret.startswith(b"whsec_") else secret


def verified(headers, body, keys, now):
    """Whether the holder of one of the keys has sent this, and lately (Standard Webhooks, HMAC-SHA256)."""
    message_id = headers.get("webhook-id", "")
    sent_at = headers.get("webhook-timestamp", "")
    if not message_id or not (sent_at.isascii() and sent_at.isdigit()):
        return False
    if abs(now - int(sent_at)) > TOLERANCE_SECONDS:
        return False
    signed = f"{message_id}.{sent_at}.".encode() + body
    wanted = [b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()) for key in keys]
    given = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(one, other) for one in wanted for other in given)


def signed(action_id, body, key, now):
    """The headers of a callback, signed as what comes from forestall is."""
    sent_at = str(int(now))
    mac = hmac.new(key, f"{action_id}.{sent_at}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "webhook-id": action_id,
        "webhook-timestamp": sent_at,
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }


def call_back(url, action_id, key_file):
    """Says that an action is done: 202 is heard, 200 is written down; anything else is tried again."""
    body = json.dumps({"state": "done"}).encode()
    url = url.replace("{id}", quote(action_id, safe=""))
    for attempt in range(CALLS_MAX):
        headers = signed(action_id, body, read_key(key_file), time.time())
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return
        except OSError:
            pass
        time.sleep(min(2 ** attempt, 30))


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    key_files = []
    callback = None
    done = set()
    lock = threading.Lock()

    def do_POST(self):
        length = int(self.headers.get("content-length") or 0)
        if length > BODY_BYTES_MAX:
            self.close_connection = True
            return self.answer(413, {"error": "too large"})
        body = self.rfile.read(length)
        if not self.is_verified(body):
            return self.answer(401, {"error": "the signature is missing, wrong or old"})
        action = json.loads(body)
        if action["id"] != self.headers["webhook-id"]:
            return self.answer(400, {"error": "the id is not the one that was signed"})
        with self.lock:
            # The same id again is an attempt whose answer got lost: it is done already.
            is_new = action["id"] not in self.done
            if is_new:
                self.done.add(action["id"])
                print("effect", action["id"], action["action"], action["target"]["component"], flush=True)
        if not self.callback:
            return self.answer(200, {"state": "done"})
        self.answer(200, {"state": "pending"})
        if is_new:
            told = (self.callback, action["id"], self.key_files[0])
            threading.Thread(target=call_back, args=told, daemon=True).start()

    def do_GET(self):
        """The status URL: http://HOST/status/{id}."""
        if not self.is_verified(b""):
            return self.answer(401, {"error": "the signature is missing, wrong or old"})
        action_id = unquote(self.path.rpartition("/")[2])
        with self.lock:
            self.answer(200, {"state": "done" if action_id in self.done else "unknown"})

    def is_verified(self, body):
        # Read each time, so that a rotated key counts at once.
        return verified(self.headers, body, [read_key(path) for path in self.key_files], time.time())

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description="A receiver of forestall's webhook.")
    parser.add_argument("--key-file", action="append", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--callback")
    arguments = parser.parse_args()
    Receiver.key_files = arguments.key_file
    Receiver.callback = arguments.callback
    server = ThreadingHTTPServer((arguments.host, arguments.port), Receiver)
    print("listening on", server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
