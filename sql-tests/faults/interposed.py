"""The interposer (interpose.c) from Python: building it, arming it, and children that it is armed in.

The parent runs with the interposer preloaded and never loads the extension; each trial is a forked child, which does
and which may be killed.
"""
import ctypes
import os
import pathlib
import subprocess
import sys
import traceback

import lib

SOURCE = pathlib.Path(__file__).resolve().with_name("interpose.c")
LIBRARY = lib.CACHE / "interpose.so"
KILL, JOURNAL, FAIL = 1, 2, 3


def preload():
    """Builds the interposer where needed, and runs this program again under it."""
    if os.environ.get("LD_PRELOAD") == str(LIBRARY):
        return
    if not LIBRARY.exists() or LIBRARY.stat().st_mtime < SOURCE.stat().st_mtime:
        LIBRARY.parent.mkdir(parents=True, exist_ok=True)
        new = LIBRARY.with_name(f"interpose-{os.getpid()}.so")
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", new, SOURCE, "-ldl",
                        "-lpthread"], check=True)
        new.rename(LIBRARY)
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"LD_PRELOAD": str(LIBRARY)})


def arm(mode, directory, at=0, half=False, error=0, failures=-1, match="", output=-1, sync_us=0):
    """Arms a mode for the steps below `directory`. `at`: the first step that is killed or fails. `failures`: how many
    fail, all from there on if negative. `match`: what the paths of failing steps begin with, below `directory`."""
    ctypes.CDLL(None).faults_arm(str(directory).encode(), mode, ctypes.c_long(at), half, error,
                                 ctypes.c_long(failures), match.encode(), output, sync_us)


def disarm():
    arm(0, "/")


def counted():
    return ctypes.CDLL(None).faults_counted()


def mark(text):
    """Writes a line of the test's own into the journal."""
    ctypes.CDLL(None).faults_mark(str(text).encode())


def child(function, *arguments):
    """Runs the function in a forked child; its return value as text, or None if the child was killed. What it raises is
    raised here."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        status = 0
        try:
            text = str(function(*arguments))
        except BaseException:  # the parent tells it
            text, status = traceback.format_exc(), 1
        os.write(write, text.encode()[-60000:])
        os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        lib.check(os.WTERMSIG(status) == 9, "the process ended with signal", os.WTERMSIG(status))
        return None
    lib.check(os.WEXITSTATUS(status) == 0, text)
    return text
