"""An S3 server of one process and a few lines, which serves a replica on file:// read-only, and fails as it is told."""
import http.server
import pathlib
import threading
import urllib.parse
from xml.sax.saxutils import escape

import lib

BUCKET = "tiny"


class TinyS3:
    """`url` is the replica at `directory`; `answer(key)` may give another status than 200, or wait."""

    def __init__(self, directory):
        self.directory, self.answer, self.gets = pathlib.Path(directory), lambda key: None, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.serve(self)

            do_HEAD = do_GET

            def log_message(self, *arguments):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments):
                pass  # whoever was interrupted has gone

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = (f"s3://{BUCKET}/r?endpoint=http://127.0.0.1:{self.server.server_address[1]}"
                    f"&region={lib.REGION}&force-path-style=true")

    def objects(self):
        """{key: path}, by the keys of S3: the level as four hex digits."""
        return {f"r/{int(path.parent.name):04x}/{path.name}": path for path in self.directory.glob("ltx/*/*.ltx")}

    def serve(self, request):
        url = urllib.parse.urlsplit(request.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        key = urllib.parse.unquote(url.path).removeprefix(f"/{BUCKET}").lstrip("/")
        if "list-type" in query:
            return self.reply(request, 200, self.listing(query.get("prefix", "")))
        self.gets += 1
        status = self.answer(key)
        if status:
            return self.reply(request, status, f"<Error><Code>Tiny</Code><Message>{status}</Message></Error>".encode())
        path = self.objects().get(key)
        if path is None:
            return self.reply(request, 404, b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>")
        data, headers = path.read_bytes(), {"ETag": f'"{lib.sha256(path)[:32]}"'}
        wanted = request.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            return self.reply(request, 200, data, headers)
        first, _, last = wanted.partition("-")
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) + 1 if first and last else len(data), len(data))
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return self.reply(request, 206, data[start:end], headers)

    def listing(self, prefix):
        rows = []
        for key, path in sorted(self.objects().items()):
            if key.startswith(prefix):
                rows.append(f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                            f"<ETag>&quot;{lib.sha256(path)[:32]}&quot;</ETag><Size>{path.stat().st_size}</Size></Contents>")
        return (f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>").encode()

    def reply(self, request, status, body, headers=()):
        request.send_response(status)
        for name, value in dict(headers).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
