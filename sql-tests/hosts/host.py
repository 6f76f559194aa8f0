"""What the cases share."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import lib

HERE = pathlib.Path(__file__).resolve().parent
PRELUDE = f"import sys; sys.path[:0] = [{str(HERE.parent)!r}, {str(HERE)!r}]; import lib, host"


def loaded():
    """The extension is in the process, and no connection is open."""
    lib.connect(":memory:", load=True).close()


def replicate(db, scratch, name, **options):
    return lib.scalar(db, "SELECT litestream_replicate(?, ?, ?)", str(scratch / name), f"file://{scratch}/{name}-replica",
                      json.dumps(options))


def restore(scratch, name):
    path = scratch / f"restored-{name}"
    db = lib.connect(":memory:")
    db.execute("SELECT litestream_restore(?, ?)", (f"file://{scratch}/{name}-replica", str(path)))
    db.close()
    lib.assert_intact(path)
    return path


def assert_restores(scratch, name):
    """All connections are closed, and everything was synced."""
    lib.assert_same_database((scratch / name).read_bytes(), restore(scratch, name).read_bytes(), name)


def sync(db):
    return lib.scalar(db, "SELECT litestream_sync()")


def run_threads(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def thread_count():
    tasks = pathlib.Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else 1


def wait_for(child, seconds):
    """Its exit status; None, and it is killed, when it does not end."""
    for _ in range(int(seconds * 50)):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def program(script, environment=None):
    """Runs Python source in a process of its own; its exit code and what it printed on both streams."""
    done = subprocess.run([sys.executable, "-c", f"{PRELUDE}\n{script}"], env=environment or lib.clean_environment(), timeout=60,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def cases_of(namespace):
    """The functions of a module that take the scratch directory, by name."""
    return {name: value for name, value in namespace.items()
            if callable(value) and value.__module__ == namespace["__name__"]
            and value.__code__.co_varnames[:value.__code__.co_argcount] == ("scratch",)}
