"""What must hold at the end of a workload, seen only through the replica."""
import sqlite3

import lib


def judge(source, scratch):
    """`source` is closed everywhere, after a last sync and a TRUNCATE checkpoint."""
    client = lib.connect(":memory:")
    objects = source.replica.objects()
    txids = lib.chain(objects)
    lib.check(txids and txids[0] == 1, "the chain does not begin at 1:", txids[:3])
    listed = client.execute("SELECT max(max_txid) FROM litestream_files(?)", (source.replica.url,)).fetchone()[0]
    lib.check(listed == f"{txids[-1]:016x}", "litestream_files ends at", listed)

    latest = restore(client, source, scratch / "latest.db")
    lib.check(int(latest, 16) == txids[-1], f"latest is {latest}, the chain ends at {txids[-1]:016x}")
    lib.assert_same_database(source.path.read_bytes(), (scratch / "latest.db").read_bytes(), "the latest state")

    before = 0
    for txid in (f"{number:016x}" for number in txids):
        path = scratch / "then.db"
        lib.check(restore(client, source, path, txid) == txid, "another TXID than", txid)
        lib.assert_intact(path)
        ledger = state_of(path, source, txid)
        lib.check(ledger >= before, f"{txid}: the ledger went back from {before} to {ledger}")
        before = ledger
        lib.check(ledger >= source.at_least.get(txid, 0), f"{txid} lacks what was committed before it was synced")
        if txid in source.synced:
            expected, image = source.synced[txid]
            lib.check(ledger == expected, f"{txid}: synced at ledger {expected}, restored at {ledger}")
            lib.assert_same_database(image or path.read_bytes(), path.read_bytes(), f"{txid}, synced at ledger {expected}")
        path.unlink()
    lib.check(before == source.floor, f"the last state is ledger {before}, {source.floor} was committed")
    unknown = set(source.synced) - {f"{number:016x}" for number in txids}
    lib.check(not unknown, "TXIDs that litestream_sync returned are not in the chain:", unknown)
    client.close()
    return objects


def restore(client, source, path, *when):
    path.unlink(missing_ok=True)
    marks = ", ?" * (1 + len(when))
    return lib.scalar(client, f"SELECT litestream_restore(?{marks})", source.replica.url, str(path), *when)


def state_of(path, source, what):
    """The ledger of a restored file, whose content must be what was committed under that number."""
    connection = sqlite3.connect(path)
    has_ledger = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'ledger'").fetchone()
    ledger = lib.scalar(connection, "SELECT n FROM ledger") if has_ledger else 0
    content = lib.content_hash(connection)
    connection.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    lib.check(ledger in source.states, f"{what}: ledger {ledger} was never committed")
    lib.check(content == source.states[ledger], f"{what}: not the state that was committed as ledger {ledger}")
    return ledger
