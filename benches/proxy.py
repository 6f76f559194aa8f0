"""An HTTP proxy that counts requests and bytes, and may delay each request. It is slow itself: where there is no delay
to simulate, it stands beside a timed run, never in one. The Host header passes unchanged, so signatures stay valid."""
import http.client
import http.server
import threading
import time
import urllib.parse


class Proxy:
    def __init__(self, upstream, delay=0):
        """delay: seconds that each request waits."""
        target = urllib.parse.urlsplit(upstream).netloc
        self.requests, self.bytes = {}, 0
        outer, lock = self, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(delay)
                upstream = http.client.HTTPConnection(target, timeout=60)
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                data = answer.read()
                with lock:
                    kind = "LIST" if "list-type" in self.path else self.command
                    outer.requests[kind] = outer.requests.get(kind, 0) + 1
                    outer.bytes += len(data)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
                self.send_header("Content-Length", str(length or 0))
                self.end_headers()
                self.wfile.write(data)
                upstream.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self):
        """What was counted since the last call."""
        counted = dict(sorted(self.requests.items())), self.bytes
        self.requests, self.bytes = {}, 0
        return counted

    def close(self):
        self.server.shutdown()
