"""An HTTP/1.1 proxy in front of one object store, on a thread of the test's own process: what happens to requests is an
attribute. The Host header is passed on unchanged, so signatures stay valid.

`fault` is None, or what every request meets until it is changed:

    "refuse"              nobody listens
    "drop"                the connection ends when the request has come, the store never sees it
    "403", "404", "503"   that answer, with S3's code; the store never sees the request
    "gone"                404 NoSuchKey
    "lose"                the store does it, and the connection ends without an answer
    "truncate"            the store does it, and half of its answer's body arrives
    "stall"               the store does it, and nothing arrives until the fault is changed
    "slow"                the store does it, and its answer arrives in small pieces
    "corrupt"             the store does it, and one bit in the middle of its answer's body is another one

`times` limits a fault to that many requests; None: all. `only` limits it to those whose target it matches, as a regular
expression. `met` counts the requests that met one.
"""
import http.client
import re
import select
import socket
import threading
import time

ERRORS = {
    "403": ("403 Forbidden", "AccessDenied"),
    "404": ("404 Not Found", "NoSuchBucket"),
    "503": ("503 Service Unavailable", "SlowDown"),
    "gone": ("404 Not Found", "NoSuchKey"),
}
PIECE_BYTES, PIECE_SECONDS = 512, 0.01


class FaultProxy:
    def __init__(self, to):
        """`to` is the store's host:port."""
        self.to, self.fault, self.times, self.only, self.met, self.requests = to, None, None, None, 0, 0
        self.lock = threading.Lock()
        self.listener = None
        self.port = 0
        self.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1]

    def accept(self):
        """Closing the listener refuses; that is looked at often, and connections that wait are refused too."""
        while True:
            if self.fault == "refuse" and self.listener:
                self.listener.close()
                self.listener = None
            elif self.fault != "refuse" and not self.listener:
                self.listen()
            if not self.listener or not select.select([self.listener], [], [], 0.02)[0]:
                time.sleep(0.005)
            elif self.fault != "refuse":
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def take(self, target):
        """The fault that the next request meets."""
        with self.lock:
            self.requests += 1
            if self.fault is None or self.times == 0 or (self.only and not re.search(self.only, target)):
                return None
            if self.times is not None:
                self.times -= 1
            self.met += 1
            return self.fault

    def serve(self, connection):
        try:
            with connection, connection.makefile("rb") as reader:
                while self.one(connection, reader):
                    pass
        except (OSError, http.client.HTTPException, ValueError):
            pass  # either side went away

    def one(self, connection, reader):
        """One request and its answer; whether the connection goes on."""
        first = reader.readline()
        if not first:
            return False
        method, target, _ = first.decode("latin-1").split(" ", 2)
        headers = http.client.parse_headers(reader)
        body = reader.read(int(headers.get("content-length", 0)))
        fault = self.take(target)
        if fault in ("drop", "refuse"):
            return False
        if fault in ERRORS:
            status, code = ERRORS[fault]
            text = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
            return self.answer(connection, status, [("content-type", "application/xml")], b"" if method == "HEAD" else text, len(text))
        upstream = http.client.HTTPConnection(self.to, timeout=60)
        upstream.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            upstream.putheader(name, value)
        upstream.endheaders(body)
        reply = upstream.getresponse()
        content = reply.read()
        length = int(reply.headers.get("content-length", len(content)))
        kept = [(k, v) for k, v in reply.headers.items() if k.lower() not in ("content-length", "transfer-encoding", "connection")]
        upstream.close()
        while fault == "stall" and self.fault == "stall":
            time.sleep(0.01)
        if fault in ("lose", "stall"):
            return False
        if fault == "corrupt" and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:]
        if fault == "truncate":
            self.answer(connection, f"{reply.status} {reply.reason}", kept, content[:len(content) // 2], length)
            return False
        return self.answer(connection, f"{reply.status} {reply.reason}", kept, content, length, slow=fault == "slow")

    def answer(self, connection, status, headers, body, length, slow=False):
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        connection.sendall(f"HTTP/1.1 {status}\r\n{head}content-length: {length}\r\n\r\n".encode("latin-1"))
        step = PIECE_BYTES if slow else max(len(body), 1)
        for start in range(0, len(body), step):
            connection.sendall(body[start:start + step])
            if slow:
                time.sleep(PIECE_SECONDS)
        return True
