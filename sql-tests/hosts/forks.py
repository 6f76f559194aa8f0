"""fork(2): the child neither hangs nor ships, and can open and replicate databases of its own."""
import ctypes
import multiprocessing
import os
import threading

import lib
from host import assert_restores, cases_of, loaded, replicate, sync, wait_for

ROUNDS = 100 if lib.FULL else 15


def leave():
    ctypes.CDLL(None).exit(0)  # runs the handlers that a library may have left behind


def replicate_own(scratch, name):
    """What a child may do: open a database of its own, replicate it, close it."""
    db = lib.connect(scratch / name)
    replicate(db, scratch, name)
    db.execute("CREATE TABLE t(a)")
    db.execute("INSERT INTO t VALUES (?)", (name,))
    sync(db)
    db.close()


def a_child_replicates_a_database_of_its_own(scratch):
    """And so does its child; the parent goes on."""
    loaded()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    db.execute("CREATE TABLE t(a)")
    sync(db)
    child = os.fork()
    if child == 0:
        replicate_own(scratch, "child.db")
        grandchild = os.fork()
        if grandchild == 0:
            replicate_own(scratch, "grandchild.db")
            leave()
        lib.check(wait_for(grandchild, 30) == 0, "the grandchild hangs, or failed")
        leave()
    lib.check(wait_for(child, 60) == 0, "the child hangs, or failed")
    db.execute("INSERT INTO t VALUES (1)")
    sync(db)
    db.close()
    for name in ("app.db", "child.db", "grandchild.db"):
        assert_restores(scratch, name)


def forks_while_our_threads_are_busy(scratch):
    """The host has one thread, so it may fork at any time: also while one of ours is inside SQLite, or holds a lock."""
    if lib.is_sanitized():
        return  # its allocator holds locks over the fork, for which the child's threads wait for ever
    loaded()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db", sync_interval="1ms")
    db.execute("CREATE TABLE t(a)")
    for turn in range(ROUNDS):
        for _ in range(5):
            db.execute("INSERT INTO t VALUES (randomblob(2000))")
        child = os.fork()
        if child == 0:
            replicate_own(scratch, f"child{turn}.db")
            leave()
        for _ in range(20):
            db.execute("INSERT INTO t VALUES (randomblob(2000))")
        lib.check(wait_for(child, 30) == 0, "child", turn, "hangs, or failed")
        if turn % 5 == 0:
            assert_restores(scratch, f"child{turn}.db")
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def a_child_of_a_parent_with_writing_threads(scratch):
    """SQLite's own mutexes may be held in such a child, so that it may not use SQLite; it leaves without a hang."""
    loaded()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db", sync_interval="1ms")
    db.execute("CREATE TABLE t(a)")
    ended, failures = threading.Event(), []

    def work():
        try:
            own = lib.connect(scratch / "app.db")
            while not ended.is_set():
                own.execute("INSERT INTO t VALUES (1)")
            own.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(ROUNDS):
        child = os.fork()
        if child == 0:
            leave()
        lib.check(wait_for(child, 30) == 0, "child", turn, "hangs, or failed")
    ended.set()
    for thread in threads:
        thread.join()
    lib.check(not failures, failures)
    sync(db)
    db.close()
    assert_restores(scratch, "app.db")


def pools_of_multiprocessing(scratch):
    """Workers that are forked, each with a database of its own."""
    loaded()
    db = lib.connect(scratch / "app.db")
    replicate(db, scratch, "app.db")
    names = [f"worker{number}.db" for number in range(4)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap_async(replicate_own, [(scratch, name) for name in names]).get(60)
    db.execute("CREATE TABLE t(a)")
    sync(db)
    db.close()
    for name in ["app.db", *names]:
        assert_restores(scratch, name)


CASES = cases_of(globals())
