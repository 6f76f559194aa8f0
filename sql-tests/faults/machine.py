"""What a machine has on its disk after the power went, made from a journal of the interposer.

The model is weaker than any file system in use. What was written to a file is there for certain if a sync of that file
began after it and ended before the cut; of the rest any part may be there, in sectors of 512 bytes. A name is there,
or gone, for certain if its directory was so synced; of the later creations, renames, links and removals any may have
happened, or only the first of them.
"""
import os
import pathlib
import struct

SECTOR = 512
CREATE, WRITE, TRUNCATE, SYNC, SYNCED, RENAME, LINK, UNLINK, MKDIR, TIMES, MARK = range(11)
HEAD = struct.Struct("=4I4Q")


def read_journal(path):
    """The steps: (step, inode, path, to, offset, data, first)."""
    data, at, steps = memoryview(pathlib.Path(path).read_bytes()), 0, []
    while at < len(data):
        step, path_size, to_size, _, inode, offset, size, first = HEAD.unpack_from(data, at)
        at += HEAD.size
        name = bytes(data[at:at + path_size]).decode().rstrip("/")
        to = bytes(data[at + path_size:at + path_size + to_size]).decode()
        at += path_size + to_size
        written = size if step == WRITE else 0
        steps.append((step, inode, name, to, offset, data[at:at + written], first))
        at += written
    return steps


class File:
    """A file's content: what it began with, and its changes as (index, offset, data), data None for a truncation."""

    def __init__(self, content=b""):
        self.content, self.changes, self.synced = content, [], -1

    def after(self, certain_only=False, chance=None, rng=None):
        """The content: of all changes, of those that are certain, or of those and a part of the others."""
        found = bytearray(self.content)
        for index, offset, data in self.changes:
            if index < self.synced or not (certain_only or chance is not None):
                apply(found, offset, data)
            elif chance is not None:
                for start, piece in sectors(offset, data):
                    if rng.random() < chance:
                        apply(found, start, piece)
        return bytes(found)

    def first_changes(self, rng):
        """The content after the certain changes and the first of the others."""
        pending = sum(1 for index, _, _ in self.changes if index >= self.synced)
        keep, found = rng.randint(0, pending), bytearray(self.content)
        for index, offset, data in self.changes:
            if index >= self.synced:
                keep -= 1
                if keep < 0:
                    break
            apply(found, offset, data)
        return bytes(found)


def apply(found, offset, data):
    if data is None:
        if offset <= len(found):
            del found[offset:]
        else:
            found.extend(bytes(offset - len(found)))
        return
    if len(found) < offset:
        found.extend(bytes(offset - len(found)))
    found[offset:offset + len(data)] = data


def sectors(offset, data):
    """The parts of a write that are written or lost as one."""
    if data is None:
        yield offset, None
        return
    at = 0
    while at < len(data):
        end = min(len(data), at + SECTOR - (offset + at) % SECTOR)
        yield offset + at, data[at:end]
        at = end


class Directory:
    """Names, and their changes as (index, {name: File, Directory or None for gone})."""

    def __init__(self, entries=None):
        self.entries, self.changes, self.synced = entries or {}, [], -1

    def now(self):
        return self.after(lambda pending: pending)

    def after(self, choose):
        """The names, with the chosen ones of the uncertain changes."""
        entries = dict(self.entries)
        pending = [change for index, change in self.changes if index >= self.synced]
        certain = [change for index, change in self.changes if index < self.synced]
        for change in [*certain, *choose(pending)]:
            entries.update(change)
        return {name: entry for name, entry in entries.items() if entry is not None}


class Machine:
    """A directory tree as it was when the journal began, taken forward."""

    def __init__(self, root, copy, inodes):
        """`copy` holds the tree that was at `root`; `inodes` says which inode each path had there."""
        self.root, self.inodes, self.directories = str(root), {}, {}
        self._scan(self.root, str(copy), inodes)

    def _scan(self, path, copy, inodes):
        found = self.directories[path] = Directory()
        for entry in os.scandir(copy):
            original = os.path.join(path, entry.name)
            if entry.is_dir():
                found.entries[entry.name] = self._scan(original, entry.path, inodes)
            else:
                found.entries[entry.name] = self.inodes[inodes[original]] = File(pathlib.Path(entry.path).read_bytes())
        return found

    def run(self, steps, start=0):
        """Takes it forward over steps, the first of which has this index."""
        for index, (step, inode, path, to, offset, data, first) in enumerate(steps, start):
            if step == CREATE:
                self.inodes[inode] = File()
                self._names(index, path, self.inodes[inode])
            elif step == MKDIR:
                self.directories[path] = Directory()
                self._names(index, path, self.directories[path])
            elif step in (WRITE, TRUNCATE):
                self.inodes[inode].changes.append((index, offset, data if step == WRITE else None))
            elif step == SYNCED:
                target = self.directories.get(path) or self.inodes[inode]
                target.synced = max(target.synced, first)
            elif step == RENAME:
                self._names(index, to, self.inodes[inode], gone=path)
            elif step == LINK:
                self._names(index, to, self.inodes[inode])
            elif step == UNLINK:
                self._names(index, path, None)

    def _names(self, index, path, entry, gone=None):
        parent, name = os.path.split(path)
        change = {name: entry}
        if gone is not None:
            change[os.path.basename(gone)] = None  # renames are within a directory
        self.directories[parent].changes.append((index, change))

    def write(self, place, rng, whole=()):
        """Writes what a power cut leaves now below `place`; what is in the directories named `whole` is another
        machine's and is there as it was."""
        # Losing everything, or nothing, that can be lost is as telling as losing parts.
        data = rng.choice([0, 0.1, 0.5, 0.9, 1, "first", "first"])
        names = rng.choice(["all", "all", "none", "first", "some"])
        self._write(self.directories[self.root], pathlib.Path(place), rng, (data, names), set(whole))

    def _write(self, directory, place, rng, policy, whole):
        data, names = policy
        place.mkdir()

        def choose(pending):
            if names == "all":
                return pending
            if names == "some":
                return [change for change in pending if rng.random() < 0.5]
            return pending[:0 if names == "none" else rng.randint(0, len(pending))]

        for name, entry in directory.after(choose).items():
            if isinstance(entry, Directory):
                self._write(entry, place / name, rng, (1, "all") if name in whole else policy, whole)
            elif not name.endswith("-shm"):
                found = entry.first_changes(rng) if data == "first" else entry.after(chance=data, rng=rng)
                (place / name).write_bytes(found)

    def lost_nothing(self):
        """{path: content} if the power had stayed, without the wal-index."""
        found = {}
        for path, directory in self.directories.items():
            for name, entry in directory.now().items():
                if isinstance(entry, File) and not name.endswith("-shm"):
                    found[os.path.join(path, name)] = entry.after()
        return found
