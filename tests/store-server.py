#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A store of objects for test-store.c and test-worker.sh: prints its port, keeps objects in memory.

Every request below /bucket/ must carry a right signature (AWS signature version 4) with the key below; the check is
written from the specification and shares nothing with libcurl. Names that misbehave:
  busy-N   503 the first N times        cut    half of the announced bytes, the first time
  moved    a redirect elsewhere         big    100,000 bytes, without saying how many
  /open/   no signature is asked for, also for what lies below the next slash: /open/bucket/x is /bucket/x
Usage: store-server.py [FOLDER]: its files are there as /bucket/in/NAME.
"""
import hashlib
import hmac
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ID, SECRET, REGION, TOKEN = "AKIDEXAMPLE", "secret-example", "eu-test-1", "session-example"
objects, seen = {}, {}


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signed(handler, body):
    """None where the signature is right, else what is wrong."""
    given = handler.headers.get("Authorization", "")
    if not given.startswith("AWS4-HMAC-SHA256 "):
        return "no signature"
    parts = dict(p.strip().split("=", 1) for p in given.split(" ", 1)[1].split(","))
    key_id, day, region, service, end = parts["Credential"].split("/")
    if (key_id, region, service, end) != (ID, REGION, "s3", "aws4_request"):
        return "scope " + parts["Credential"]
    digest = handler.headers.get("x-amz-content-sha256", "")
    if digest != hashlib.sha256(body).hexdigest():
        return "hash of the body"
    if handler.headers.get("x-amz-security-token") != TOKEN:
        return "session token"
    names = parts["SignedHeaders"].split(";")
    if not {"host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"} <= set(names):
        return "signed headers " + parts["SignedHeaders"]
    head = "".join(f"{n}:{' '.join(handler.headers.get(n, '').split())}\n" for n in names)
    request = "\n".join([handler.command, handler.path, "", head, parts["SignedHeaders"], digest])
    stamp = handler.headers["x-amz-date"]
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, f"{day}/{region}/s3/aws4_request",
                      hashlib.sha256(request.encode()).hexdigest()])
    key = mac(mac(mac(mac(("AWS4" + SECRET).encode(), day), region), "s3"), "aws4_request")
    return None if hmac.compare_digest(mac(key, text).hex(), parts["Signature"]) else "signature"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refused(self, body):
        if self.path.startswith("/open/"):
            return False
        why = signed(self, body)
        if why:
            self.answer(403, why.encode())
        return bool(why)

    def misbehaved(self):
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        times = seen[self.path] = seen.get(self.path, 0) + 1
        if name.startswith("busy-") and times <= int(name[5:]):
            self.answer(503, b"SlowDown")
        elif name == "cut" and times == 1:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 500)
            self.close_connection = True
        elif name == "moved":
            self.answer(302, Location="/open/elsewhere")
        elif name == "big":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"x" * 100000)
            self.close_connection = True
        else:
            return False
        return True

    def do_GET(self):
        if self.refused(b"") or self.misbehaved():
            return
        name = self.path.split("?")[0]
        body = objects.get(name, objects.get(name.removeprefix("/open")))
        self.answer(404 if body is None else 200, body or b"")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused(body) or self.misbehaved():
            return
        objects[self.path.split("?")[0]] = body
        self.answer(200)

    def log_message(self, *args):
        pass


for name in os.listdir(sys.argv[1]) if len(sys.argv) > 1 else []:
    with open(os.path.join(sys.argv[1], name), "rb") as file:
        objects["/bucket/in/" + name] = file.read()
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    sys.exit(0)
