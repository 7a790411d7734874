"""A receiver in Python, without packages. It verifies a request, stores its event once, and answers."""

import base64, hashlib, hmac, json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["ORDERS_SECRET"]


def verify(secret, headers, body):  # headers: names in lower case; body: the bytes as they arrived
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    sent_at = headers.get("webhook-timestamp", "")
    signed = f"{headers.get('webhook-id')}.{sent_at}.".encode() + body
    want = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = sent_at.isdecimal() and abs(time.time() - int(sent_at)) < 300
    given = headers.get("webhook-signature", "").split()
    return fresh and any(hmac.compare_digest(s.encode(), want.encode()) for s in given)


seen = set()  # stands for a table with a unique id, written in the transaction that does the work


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.take(body))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def take(self, body):
        if not verify(SECRET, {name.lower(): value for name, value in self.headers.items()}, body):
            return 401
        try:
            event = json.loads(body)
            key = event["id"]
        except (ValueError, KeyError, TypeError):
            return 400
        if key not in seen:
            seen.add(key)
            print(event["trigger"]["name"], event["event"]["op"], event["event"]["data"]["new"], flush=True)
        return 204


if __name__ == "__main__":
    host, port = os.environ.get("LISTEN", "127.0.0.1:3000").split(":")
    server = ThreadingHTTPServer((host, int(port)), Receiver)
    print(f"listening on {host}:{server.server_port}", flush=True)
    server.serve_forever()
