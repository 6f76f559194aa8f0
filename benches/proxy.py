"""An HTTP proxy in front of one object store: delays each request, holds each stream to a rate, counts what passes. The
Host header passes unchanged, so signatures stay valid. Where there is neither delay nor rate to simulate, it stands
beside a timed run, never in one."""
import asyncio
import dataclasses
import threading
import time
import urllib.parse

STEP_BYTES = 1 << 18


@dataclasses.dataclass
class Request:
    kind: str
    path: str
    range: str
    status: int
    bytes: int
    began: float
    ended: float


class Counted:
    """`waves`: the longest chain of requests of which each began after the one before had ended."""

    def __init__(self):
        self.log, self.bytes, self.waves = [], 0, 0

    def of(self, kind):
        return sum(request.kind == kind for request in self.log)

    @property
    def total(self):
        return len(self.log)


class Proxy:
    def __init__(self, upstream, delay=0, mib_per_s=0):
        """delay: seconds that each request waits; mib_per_s: of one stream."""
        target = urllib.parse.urlsplit(upstream)
        self.upstream = target.hostname, target.port
        self.delay, self.rate = delay, mib_per_s * 2**20
        self.counted, self.under_way, self.last = Counted(), 0, 0.0
        self.idle = []  # connections to the store
        self.lock, self.loop, ready = threading.Lock(), asyncio.new_event_loop(), threading.Event()

        async def serve():
            server = await asyncio.start_server(self.client, "127.0.0.1", 0, limit=STEP_BYTES)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.set()

        def run():
            self.loop.create_task(serve())
            self.loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        ready.wait()

    def take(self):
        """What was counted since the last call."""
        with self.lock:
            counted, self.counted = self.counted, Counted()
        return counted

    def settle(self, seconds=0.06, at_most=5.0):
        """Waits until nothing was under way for some time."""
        end = time.monotonic() + at_most
        while time.monotonic() < end and (self.under_way or time.monotonic() - self.last < seconds):
            time.sleep(0.005)

    def close(self):
        def stop():
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.call_later(0.1, self.loop.stop)

        self.loop.call_soon_threadsafe(stop)

    async def client(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self.pass_on(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # either side went away, or the proxy ends
        finally:
            writer.close()

    async def pass_on(self, head, reader, writer):
        """One request and its answer, over any connection to the store that is open."""
        method, path = head.split(b" ", 2)[:2]
        kind = "LIST" if b"list-type" in path else method.decode()
        with self.lock:
            counted = self.counted
            depth = counted.waves + 1
            self.under_way += 1
        upstream, status, received, began = None, 0, 0, time.monotonic()
        try:
            body = [piece async for piece in pieces(fields(head), reader, 0)]
            await asyncio.sleep(self.delay)
            upstream, answer = await self.ask(self.idle.pop() if self.idle else None, head, body)
            status, found = int(answer.split(b" ", 2)[1]), fields(answer)
            writer.write(answer)
            started, to_end = time.monotonic(), STEP_BYTES
            if method == b"HEAD" or status in (204, 304):
                found, to_end = {}, 0
            async for piece in pieces(found, upstream[0], to_end):
                received += len(piece)
                writer.write(piece)
                await writer.drain()
                if self.rate:
                    await asyncio.sleep(max(0, started + received / self.rate - time.monotonic()))
            await writer.drain()
            if found.get(b"connection") == b"close" or (to_end and not framed(found)):
                raise ConnectionError("the store closes it")
            self.idle.append(upstream)
            upstream = None
        finally:
            if upstream:
                upstream[1].close()
            with self.lock:
                self.under_way -= 1
                self.last = time.monotonic()
                asked = fields(head).get(b"range", b"").decode()
                counted.log.append(Request(kind, path.decode(), asked, status, received, began, self.last))
                counted.bytes += received
                counted.waves = max(counted.waves, depth)

    async def ask(self, upstream, head, body):
        """Sends the request, over a connection that the store may have closed meanwhile; the head of the answer."""
        for new in (upstream is None, True):
            if new:
                upstream = await asyncio.open_connection(*self.upstream, limit=STEP_BYTES)
            try:
                upstream[1].writelines([head, *body])
                await upstream[1].drain()
                answer = await upstream[0].readuntil(b"\r\n\r\n")
                while answer.split(b" ", 2)[1] == b"100":
                    answer = await upstream[0].readuntil(b"\r\n\r\n")
                return upstream, answer
            except (asyncio.IncompleteReadError, ConnectionError):
                if new:
                    raise


def fields(head):
    lines = (line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return {name.strip().lower(): value.strip().lower() for name, value in lines}


def framed(found):
    return b"content-length" in found or b"transfer-encoding" in found


async def pieces(found, reader, to_end):
    """The body as it stands on the wire; to_end: one without a length goes to the end of the connection."""
    if b"transfer-encoding" in found:
        while True:
            line = await reader.readuntil(b"\r\n")
            yield line + await reader.readexactly(int(line.split(b";")[0], 16) + 2)
            if int(line.split(b";")[0], 16) == 0:
                return
    left = int(found.get(b"content-length", -1 if to_end else 0))
    while left:
        piece = await reader.read(STEP_BYTES if left < 0 else min(left, STEP_BYTES))
        if not piece:
            return
        left -= len(piece) if left > 0 else 0
        yield piece
