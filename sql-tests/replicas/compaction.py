"""Compacts the replica of a primary of ours as Litestream does: level 0 into 1, 1 into 2, snapshots; and deletes what is
in them. It copies the pages as they are stored, and decodes them for the checksum."""
import os
import struct
import subprocess
import tempfile
import threading
import time
import traceback

import lib

HEADER = ">4sIIIQQqQqqIIQ20s"
NO_CHECKSUM = 2
MARKER = bytes(6)
EVERY_SECONDS, KEPT_SECONDS = 0.7, 2


class Compactor:
    """Works on a thread until the block ends."""

    def __init__(self, replica):
        self.replica, self.made, self.deleted, self.failure = replica, 0, 0, None
        self.stopped = threading.Event()
        self.created = {}
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        lib.check(self.failure is None, self.failure)

    def run(self):
        rounds = 0
        try:
            while not self.stopped.wait(EVERY_SECONDS):
                rounds += 1
                self.compact(0, 1)
                if rounds % 3 == 0:
                    self.compact(1, 2)
                if rounds % 4 == 0:
                    self.snapshot()
                self.delete()
        except BaseException:
            self.failure = traceback.format_exc()

    def compact(self, level, into):
        keys = names(self.replica)
        done = max((high for found, _, high in keys if found == into), default=0)
        if not done:  # what this level had before is in the newest snapshot
            done = max((high for found, _, high in keys if found == 9), default=0)
        self.put(into, sorted(key for key in keys if key[0] == level and key[1] > done))

    def snapshot(self):
        keys = names(self.replica)
        plan, at = sorted(key for key in keys if key[0] == 9)[-1:], 0
        at = plan[0][2] if plan else 0
        while following := [key for key in keys if key[0] < 9 and key[1] <= at + 1 and key[2] > at]:
            plan.append(max(following, key=lambda key: key[2]))
            at = plan[-1][2]
        self.put(9, plan)

    def put(self, level, keys):
        if keys and (level, keys[0][1], keys[-1][2]) not in names(self.replica):
            data = merged([read(self.replica, key) for key in keys])
            write(self.replica, (level, keys[0][1], keys[-1][2]), data)
            self.made += 1

    def delete(self):
        """What another file has, if it is not the newest and not quite new."""
        keys, now = names(self.replica), time.monotonic()
        newest = max(keys, key=lambda key: (key[2], -key[0]))
        for key in keys:
            created = self.created.setdefault(key, now)
            if key != newest and key[0] < 9 and now - created > KEPT_SECONDS and any(
                    other[0] > key[0] and other[1] <= key[1] and other[2] >= key[2] for other in keys):
                remove(self.replica, key)
                self.deleted += 1
        for key in sorted(key for key in keys if key[0] == 9)[:-2]:
            remove(self.replica, key)


# Objects, by (level, first TXID, last TXID)

def key_of(replica, key):
    level, low, high = key
    return f"{replica.prefix}/{level:04x}/{low:016x}-{high:016x}.ltx"


def path_of(replica, key):
    level, low, high = key
    return replica.path / "ltx" / str(level) / f"{low:016x}-{high:016x}.ltx"


def names(replica):
    if replica.kind == "file":
        paths = [path for path in replica.path.glob("ltx/*/*.ltx")]
    else:
        paths = [lib.pathlib.Path(key) for key in replica.server.list(replica.prefix + "/00")]
    return {(int(path.parent.name), *(int(part, 16) for part in path.stem.split("-"))) for path in paths}


def read(replica, key):
    if replica.kind == "file":
        return path_of(replica, key).read_bytes()
    return replica.server.get(key_of(replica, key))


def write(replica, key, data):
    timestamp_ms = lib.Ltx(data).timestamp_ms
    if replica.kind == "file":
        path = path_of(replica, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(data)
        os.utime(temporary, ns=(timestamp_ms * 10**6, timestamp_ms * 10**6))
        return temporary.rename(path)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(timestamp_ms // 1000)) + f".{timestamp_ms % 1000:03}Z"
    with tempfile.NamedTemporaryFile() as body:
        body.write(data)
        body.flush()
        replica.server.request("-T", body.name, "-H", f"x-amz-meta-litestream-timestamp: {moment}",
                               path=f"/{replica.server.bucket}/{key_of(replica, key)}")


def remove(replica, key):
    if replica.kind == "file":
        path_of(replica, key).unlink()
    else:
        replica.server.request("-X", "DELETE", path=f"/{replica.server.bucket}/{key_of(replica, key)}")


# The format

def merged(files):
    """One file of several that follow each other: of each page the newest frame."""
    frames = {}
    for data in files:
        fields = struct.unpack(HEADER, data[:100])
        at = 100
        while data[at:at + 6] != MARKER:
            page, flags, size = struct.unpack(">IHI", data[at:at + 10])
            lib.check(flags == 1, "not a frame of ours:", flags)
            frames[page] = data[at:at + 10 + size]
            at += 10 + size
    page_size, commit = fields[2], fields[3]
    first = struct.unpack(HEADER, files[0][:100])
    header = struct.pack(HEADER, b"LTX1", NO_CHECKSUM, page_size, commit, first[4], fields[5], fields[6], 0, 0, 0, 0, 0, 0, bytes(20))
    body, index, hashed = [header], [], [header]
    at = len(header)
    for page in sorted(frames):
        if page > commit:
            continue
        frame = frames[page]
        body.append(frame)
        hashed += [frame[:10], lz4_decoded(frame[10:], page_size)]
        index += [varint(page), varint(at), varint(len(frame))]
        at += len(frame)
    index = b"".join(index) + b"\0"
    tail = [MARKER, index, struct.pack(">Q", len(index)), bytes(8)]
    checksum = crc64(b"".join(hashed + tail)) | 1 << 63
    return b"".join(body + tail) + struct.pack(">Q", checksum)


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7f | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def lz4_decoded(block, size):
    out, at = bytearray(), 0
    while at < len(block):
        token = block[at]
        at += 1
        literals, at = lz4_length(block, at, token >> 4)
        out += block[at:at + literals]
        at += literals
        if at >= len(block):
            break
        distance = block[at] | block[at + 1] << 8
        count, at = lz4_length(block, at + 2, token & 15)
        count += 4
        start = len(out) - distance
        piece = bytes(out[start:start + count])
        out += (piece * (count // len(piece) + 1))[:count]
    lib.check(len(out) == size, "a frame of", len(out), "bytes")
    return bytes(out)


def lz4_length(block, at, length):
    if length == 15:
        while True:
            length += block[at]
            at += 1
            if block[at - 1] != 255:
                break
    return length, at


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def crc64(data):
    """CRC-64/ISO, as arithmetic on one long number: its polynomial is x^64 + x^4 + x^3 + x + 1, and modulo it
    x^(64 k) is x^(4 k) + x^(3 k) + x^k + 1 for each power of two k."""
    number = int.from_bytes(data.translate(REVERSED) + bytes(8), "big")
    number ^= (1 << 64) - 1 << len(data) * 8  # the initial value; the first 64 bits
    power = 1
    while 64 * power * 2 < number.bit_length():
        power *= 2
    while power:
        low = (1 << 64 * power) - 1
        while number > low:
            high = number >> 64 * power
            number = number & low ^ high ^ high << power ^ high << 3 * power ^ high << 4 * power
        power //= 2
    return int.from_bytes(number.to_bytes(8, "big").translate(REVERSED)[::-1], "big") ^ (1 << 64) - 1


def proven():
    """Against a file of a real Litestream: merging one file alone gives it again, but for the WAL's place."""
    path = lib.ROOT / "sql-tests" / "vectors" / "ps512_1000pages" / "replica" / "ltx" / "1"
    for file in sorted(path.iterdir()):
        lib.check(merged([file.read_bytes()]) == file.read_bytes(), file)


if __name__ == "__main__":
    proven()
