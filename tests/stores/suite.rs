//! The promises, one function each.

use litestream::error::Kind;
use litestream::store::{ETag, Metadata, Put, Store};
use litestream::time::Timestamp;
use std::sync::{Arc, Barrier};

/// Runs all of it below the store's URL, which is empty.
pub fn run<S: Store + ?Sized + 'static>(store: &Arc<S>) {
    empty_is_empty(&**store);
    round_trip(&**store);
    metadata_comes_back(&**store);
    absent_and_match_conditions(&**store);
    ranges(&**store);
    starts(&**store);
    endings(&**store);
    beside(&**store);
    odd_keys(&**store);
    listing_is_complete_sorted_and_by_prefix(&**store);
    copies(&**store);
    uploads(&**store);
    one_of_twenty_creators_wins(store);
    one_of_twenty_replacers_wins(store);
    deletion(&**store);
    bad_names_are_refused(&**store);
    let counters = store.counters();
    assert!(counters.put > 0 && counters.get > 0 && counters.list > 0 && counters.head > 0 && counters.delete > 0);
    assert!(counters.bytes_out > 20 << 20 && counters.bytes_in > 20 << 20, "{counters:?}");
}

const NONE: Metadata = Metadata { timestamp: None, pairs: Vec::new() };

fn done(put: Put) -> ETag {
    match put {
        Put::Done(etag) => etag,
        Put::Refused => panic!("refused"),
    }
}

fn keys(store: &(impl Store + ?Sized), prefix: &str) -> Vec<String> {
    store.list(prefix).unwrap().into_iter().map(|entry| entry.key).collect()
}

fn empty_is_empty(store: &(impl Store + ?Sized)) {
    assert_eq!(store.list("").unwrap(), []);
    assert_eq!(store.list("ltx/0/").unwrap(), []);
    assert_eq!(store.head("none").unwrap(), None);
    assert_eq!(store.get("none", 10).unwrap(), None);
    assert_eq!(store.get_range("none", 0..1, None).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.get_end("none", 10).unwrap(), None);
    assert_eq!(store.get_end("no/such/directory", 10).unwrap(), None);
    store.delete("none").unwrap();
    store.delete("no/such/directory").unwrap();
}

fn round_trip(store: &(impl Store + ?Sized)) {
    for bytes in [&b""[..], b"x", b"hello, world"] {
        let etag = store.put("a", bytes, &NONE).unwrap();
        let (read, read_etag) = store.get("a", 12).unwrap().unwrap();
        assert_eq!((read.as_slice(), &read_etag), (bytes, &etag));
        let head = store.head("a").unwrap().unwrap();
        assert_eq!((head.size, &head.etag), (bytes.len() as u64, &etag));
        let entry = &store.list("a").unwrap()[0];
        assert_eq!((entry.size, entry.key.as_str()), (bytes.len() as u64, "a"));
        assert!(entry.etag.as_ref().is_none_or(|listed| *listed == etag));
        assert!((Timestamp::now().0 - entry.modified.0).abs() < 60_000, "{:?}", entry.modified);
    }
    store.get("a", 11).unwrap_err();
    store.delete("a").unwrap();
}

fn metadata_comes_back(store: &(impl Store + ?Sized)) {
    for ms in [1_795_370_133_964, 1_795_370_133_900, 1_795_370_133_000] {
        let pairs = vec![
            ("litestream-checksum".to_owned(), "80000000deadbeef".to_owned()),
            ("a2".to_owned(), "{\"k\": \"v = 1, 2\"}".to_owned()),
        ];
        let metadata = Metadata { timestamp: Some(Timestamp(ms)), pairs: pairs.clone() };
        let mut expected = pairs;
        expected.sort();
        done(store.put_if_absent("meta", b"content", &metadata).unwrap());
        let object = store.head("meta").unwrap().unwrap();
        assert_eq!((object.metadata.timestamp, object.metadata.pairs), (Some(Timestamp(ms)), expected));
        // A replacement without pairs has none: nothing of the former object sticks.
        store.put("meta", b"content", &Metadata { timestamp: Some(Timestamp(ms)), pairs: Vec::new() }).unwrap();
        assert_eq!(store.head("meta").unwrap().unwrap().metadata.pairs, []);
        store.delete("meta").unwrap();
    }
    assert_eq!(keys(store, ""), Vec::<String>::new());
}

fn absent_and_match_conditions(store: &(impl Store + ?Sized)) {
    // P20: an object that is there is not replaced, not even by the same bytes.
    let first = done(store.put_if_absent("c/lock.json", b"one", &NONE).unwrap());
    assert_eq!(store.put_if_absent("c/lock.json", b"two", &NONE).unwrap(), Put::Refused);
    assert_eq!(store.put_if_absent("c/lock.json", b"one", &NONE).unwrap(), Put::Refused);
    assert_eq!(store.get("c/lock.json", 9).unwrap().unwrap().0, b"one");
    let second = done(store.put_if_match("c/lock.json", b"three", &NONE, &first).unwrap());
    assert_ne!(first, second);
    assert_eq!(store.put_if_match("c/lock.json", b"four", &NONE, &first).unwrap(), Put::Refused);
    assert_eq!(store.get("c/lock.json", 9).unwrap().unwrap(), (b"three".to_vec(), second.clone()));
    store.delete("c/lock.json").unwrap();
    // P29: lost is 404 or 412.
    assert_eq!(store.put_if_match("c/lock.json", b"five", &NONE, &second).unwrap(), Put::Refused);
    assert_eq!(store.head("c/lock.json").unwrap(), None);
}

fn ranges(store: &(impl Store + ?Sized)) {
    let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
    let etag = store.put("r", &bytes, &NONE).unwrap();
    for (from, to) in [(0, 1), (0, 1000), (999, 1000), (500, 501), (10, 10), (990, 5000), (0, u64::MAX)] {
        let end = to.min(1000) as usize;
        assert_eq!(store.get_range("r", from..to, Some(&etag)).unwrap(), &bytes[from as usize..end], "{from}..{to}");
    }
    for (from, to) in [(1000, 1001), (5000, 6000), (u64::MAX - 1, u64::MAX)] {
        assert_eq!(store.get_range("r", from..to, None).unwrap(), b"", "{from}..{to}");
    }
    let other = store.put("r", b"another object", &NONE).unwrap();
    assert_eq!(store.get_range("r", 0..4, Some(&etag)).unwrap_err().kind(), Kind::Conflict);
    assert_eq!(store.get_range("r", 0..4, Some(&other)).unwrap(), b"anot");
    store.put("r", b"", &NONE).unwrap();
    assert_eq!(store.get_range("r", 0..10, None).unwrap(), b"");
    store.delete("r").unwrap();
}

/// R3: the start of an object and its pairs at once, of the object that is meant.
fn starts(store: &(impl Store + ?Sized)) {
    let pairs = vec![("liblitestream-before".to_owned(), "80000000deadbeef".to_owned())];
    let metadata = Metadata { timestamp: Some(Timestamp(1_795_370_133_964)), pairs };
    let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
    for size in [1, 1000] {
        let etag = done(store.put_if_absent("s", &bytes[..size], &metadata).unwrap());
        for length in [1, 10, 999, 1000, 1001, 256 << 10, u64::MAX] {
            let start = store.get_start("s", length, Some(&etag)).unwrap();
            assert_eq!(start.bytes, bytes[..size.min(length as usize)], "the first {length} of {size}");
            assert_eq!(start.pairs, metadata.pairs, "the first {length} of {size}");
        }
        store.put("s", b"another", &NONE).unwrap();
        assert_eq!(store.get_start("s", 3, Some(&etag)).unwrap_err().kind(), Kind::Conflict);
        let start = store.get_start("s", 3, None).unwrap();
        assert_eq!((start.bytes.as_slice(), start.pairs.len()), (&b"ano"[..], 0));
        store.delete("s").unwrap();
        assert_eq!(store.get_start("s", 3, None).unwrap_err().kind(), Kind::NotFound);
    }
}

/// P28: another path of the same place, where there is one.
fn beside(store: &(impl Store + ?Sized)) {
    let place = store.place();
    let Some(other) = store.at_path(&format!("{}/beside/it", place.path)) else { return assert_eq!(place.path, "") };
    assert_eq!(other.place().name, place.name);
    assert_eq!(other.place().path.trim_start_matches('/'), format!("{}/beside/it", place.path).trim_start_matches('/'));
    other.put("x", b"there", &NONE).unwrap();
    assert_eq!(store.get("beside/it/x", 10).unwrap().unwrap().0, b"there");
    assert_eq!(other.get_end("x", 3).unwrap().unwrap().bytes, b"ere");
    let back = other.at_path(&place.path).unwrap();
    assert_eq!(back.place(), place);
    back.delete("beside/it/x").unwrap();
    assert_eq!(other.list("").unwrap(), []);
}

/// R9: the end and the head of an object at once, whatever its size and what is asked for.
fn endings(store: &(impl Store + ?Sized)) {
    let pairs = vec![("liblitestream-after".to_owned(), "80000000deadbeef".to_owned())];
    let metadata = Metadata { timestamp: Some(Timestamp(1_795_370_133_964)), pairs };
    let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
    for size in [0, 1, 1000] {
        done(store.put_if_absent("e", &bytes[..size], &metadata).unwrap());
        let head = store.head("e").unwrap().unwrap();
        assert_eq!((head.size, &head.metadata), (size as u64, &metadata));
        for length in [0, 1, 10, 999, 1000, 1001, 256 << 10, u64::MAX] {
            let ending = store.get_end("e", length).unwrap().unwrap();
            assert_eq!(ending.object, head, "the last {length} of {size}");
            let from = (size as u64).saturating_sub(length) as usize;
            assert_eq!(ending.bytes, bytes[from..size], "the last {length} of {size}");
            assert_eq!(store.get_range("e", 0..1000, Some(&ending.object.etag)).unwrap(), bytes[..size]);
        }
        store.delete("e").unwrap();
    }
    // Of an object that was replaced, the new one.
    store.put("e", b"first", &NONE).unwrap();
    assert_eq!(store.get_end("e", 3).unwrap().unwrap().bytes, b"rst");
    let second = store.put("e", b"the second", &NONE).unwrap();
    let ending = store.get_end("e", 3).unwrap().unwrap();
    assert_eq!((ending.bytes.as_slice(), ending.object.etag), (&b"ond"[..], second));
    store.delete("e").unwrap();
    assert_eq!(store.get_end("e", 3).unwrap(), None);
}

fn odd_keys(store: &(impl Store + ?Sized)) {
    let mut odd = vec![
        "odd/with space",
        "odd/plus+plus",
        "odd/100%25%",
        "odd/ünï/cödé 数据",
        "odd/a&b=c;d,e",
        "odd/q?query#frag",
        "odd/'quotes\"<xml>",
        "odd/(par)!*~$@:",
        "odd/...three",
    ];
    for key in &odd {
        done(store.put_if_absent(key, key.as_bytes(), &NONE).unwrap());
        assert_eq!(store.put_if_absent(key, b"", &NONE).unwrap(), Put::Refused, "{key}");
    }
    odd.sort_unstable();
    assert_eq!(keys(store, "odd/"), odd);
    for key in &odd {
        assert_eq!(store.get(key, 100).unwrap().unwrap().0, key.as_bytes(), "{key}");
        assert_eq!(store.get_range(key, 0..3, None).unwrap(), b"odd", "{key}");
        assert_eq!(store.get_end(key, 100).unwrap().unwrap().bytes, key.as_bytes(), "{key}");
        assert_eq!(store.head(key).unwrap().unwrap().size, key.len() as u64, "{key}");
        assert_eq!(keys(store, key), [*key]);
        done(store.copy(key, &format!("{key} copy"), &NONE).unwrap());
        store.delete(&format!("{key} copy")).unwrap();
        store.delete(key).unwrap();
    }
    assert_eq!(store.list("odd/").unwrap(), []);
}

fn listing_is_complete_sorted_and_by_prefix(store: &(impl Store + ?Sized)) {
    // More than a page of S3's, which has 1,000 rows.
    let all: Vec<String> = (1..=1234).map(|i| format!("ltx/0/{i:016x}-{i:016x}.ltx")).collect();
    std::thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(8)) {
            scope.spawn(move || part.iter().for_each(|key| drop(store.put(key, b"x", &NONE).unwrap())));
        }
    });
    for key in ["ltx/00/x", "ltx/0.x", "ltx/0-x", "ltx0/x", "z"] {
        store.put(key, b"x", &NONE).unwrap();
    }
    assert_eq!(keys(store, "ltx/0/"), all);
    assert_eq!(keys(store, "ltx/0/00000000000000a"), all[159..175]);
    // `/` sorts between `.` and `0`: the order is that of the bytes of the whole key.
    let mut every = all.clone();
    every.extend(["ltx/00/x", "ltx/0.x", "ltx/0-x", "ltx0/x", "z"].map(str::to_owned));
    every.sort_unstable();
    assert_eq!(keys(store, ""), every);
    assert_eq!(keys(store, "ltx/0")[..3], ["ltx/0-x", "ltx/0.x", "ltx/0/0000000000000001-0000000000000001.ltx"]);
    assert_eq!(keys(store, "lt"), every[..every.len() - 1]);
    std::thread::scope(|scope| {
        for part in every.chunks(every.len().div_ceil(8)) {
            scope.spawn(move || part.iter().for_each(|key| store.delete(key).unwrap()));
        }
    });
    assert_eq!(keys(store, ""), Vec::<String>::new());
}

fn copies(store: &(impl Store + ?Sized)) {
    let old = Metadata { timestamp: Some(Timestamp(1_000)), pairs: vec![("old".to_owned(), "1".to_owned())] };
    let new = Metadata { timestamp: Some(Timestamp(2_000)), pairs: vec![("new".to_owned(), "2".to_owned())] };
    store.put("copy/from", b"content", &old).unwrap();
    done(store.copy("copy/from", "copy/to", &new).unwrap());
    let object = store.head("copy/to").unwrap().unwrap();
    assert_eq!((object.size, object.metadata), (7, new));
    assert_eq!(store.head("copy/from").unwrap().unwrap().metadata, old);
    assert_eq!(store.copy("copy/none", "copy/to2", &NONE).unwrap_err().kind(), Kind::NotFound);
    store.delete("copy/from").unwrap();
    store.delete("copy/to").unwrap();
}

fn uploads(store: &(impl Store + ?Sized)) {
    let metadata = Metadata {
        timestamp: Some(Timestamp(1_795_370_133_964)),
        pairs: vec![("part".to_owned(), "whole".to_owned())],
    };
    // Larger than two parts, and neither a multiple of the part size nor of the size of the writes.
    let large: Vec<u8> = (0..(20 << 20) + 12_345).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [&large[..], &large[..100_000], &[]] {
        let mut upload = store.upload("up/big", &metadata, bytes.len() as u64).unwrap();
        for piece in bytes.chunks(777_777) {
            upload.write(piece).unwrap();
        }
        assert_eq!(store.head("up/big").unwrap(), None, "visible before it was finished");
        assert_eq!(keys(store, "up/"), Vec::<String>::new());
        let etag = done(upload.finish_if_absent().unwrap());
        let object = store.head("up/big").unwrap().unwrap();
        assert_eq!((object.size, &object.etag), (bytes.len() as u64, &etag));
        assert_eq!(object.metadata, metadata);
        let (read, _) = store.get("up/big", bytes.len() as u64).unwrap().unwrap();
        assert!(read == bytes, "{} bytes came back otherwise", bytes.len());
        let mut second = store.upload("up/big", &NONE, 100).unwrap();
        second.write(b"another").unwrap();
        assert_eq!(second.finish_if_absent().unwrap(), Put::Refused);
        store.delete("up/big").unwrap();
    }
    // A multipart object is refused like any other (P20, P29).
    store.put("up/there", b"first", &NONE).unwrap();
    let mut refused = store.upload("up/there", &NONE, large.len() as u64).unwrap();
    refused.write(&large).unwrap();
    assert_eq!(refused.finish_if_absent().unwrap(), Put::Refused);
    assert_eq!(store.get("up/there", 10).unwrap().unwrap().0, b"first");
    let mut dropped = store.upload("up/dropped", &NONE, large.len() as u64).unwrap();
    dropped.write(&large).unwrap();
    drop(dropped);
    assert_eq!(keys(store, "up/"), ["up/there"]);
    store.delete("up/there").unwrap();
}

/// P20, P29: twenty create at once, with and without pairs; exactly one wins, and what is there is the winner's.
fn one_of_twenty_creators_wins<S: Store + ?Sized + 'static>(store: &Arc<S>) {
    for round in 0..5 {
        let key = format!("race/{round}");
        let won = race(store, move |store, i| {
            let mark = vec![("by".to_owned(), i.to_string())];
            let pairs = if round % 2 == 0 || i % 2 == 0 { mark } else { Vec::new() };
            let metadata = Metadata { timestamp: None, pairs };
            matches!(store.put_if_absent(&key, format!("by {i:02}").as_bytes(), &metadata).unwrap(), Put::Done(_))
        });
        let key = format!("race/{round}");
        let [winner] = won[..] else { panic!("round {round}: the winners are {won:?}") };
        assert_eq!(store.get(&key, 9).unwrap().unwrap().0, format!("by {winner:02}").as_bytes());
        let pairs = store.head(&key).unwrap().unwrap().metadata.pairs;
        assert!(pairs.iter().all(|(_, by)| *by == winner.to_string()), "{winner}: {pairs:?}");
        assert!(!pairs.is_empty() || (round % 2 == 1 && winner % 2 == 1), "{winner} lost its pairs");
        store.delete(&key).unwrap();
    }
}

/// P29: twenty replace the same object at once; exactly one wins.
fn one_of_twenty_replacers_wins<S: Store + ?Sized + 'static>(store: &Arc<S>) {
    for round in 0..5 {
        let key = format!("race/lock{round}");
        let etag = store.put(&key, b"start", &NONE).unwrap();
        let raced = key.clone();
        let won = race(store, move |store, i| {
            let body = format!("by {i:02}");
            matches!(store.put_if_match(&raced, body.as_bytes(), &NONE, &etag).unwrap(), Put::Done(_))
        });
        let [winner] = won[..] else { panic!("round {round}: the winners are {won:?}") };
        assert_eq!(store.get(&key, 9).unwrap().unwrap().0, format!("by {winner:02}").as_bytes());
        store.delete(&key).unwrap();
    }
}

fn race<S: Store + ?Sized + 'static>(
    store: &Arc<S>,
    act: impl Fn(&S, usize) -> bool + Send + Sync + 'static,
) -> Vec<usize> {
    let (act, barrier) = (Arc::new(act), Arc::new(Barrier::new(20)));
    let threads: Vec<_> = (0..20)
        .map(|i| {
            let (store, act, barrier) = (Arc::clone(store), Arc::clone(&act), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                act(&store, i)
            })
        })
        .collect();
    let won: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    (0..20).filter(|i| won[*i]).collect()
}

fn deletion(store: &(impl Store + ?Sized)) {
    done(store.put_if_absent("d/x", b"1", &NONE).unwrap());
    store.delete("d/x").unwrap();
    store.delete("d/x").unwrap();
    done(store.put_if_absent("d/x", b"2", &NONE).unwrap());
    store.delete("d/x").unwrap();
    assert_eq!(keys(store, ""), Vec::<String>::new());
}

fn bad_names_are_refused(store: &(impl Store + ?Sized)) {
    for key in ["", "/a", "a/", "a//b", "../a", "a/./b", "a\nb", "a\0b", "a\\b"] {
        assert_eq!(store.put(key, b"", &NONE).unwrap_err().kind(), Kind::Invalid, "{key:?}");
        assert_eq!(store.get(key, 1).unwrap_err().kind(), Kind::Invalid, "{key:?}");
    }
    for (name, value) in [("Upper", "v"), ("", "v"), ("n", "ü"), ("n", "a\r\nb"), ("n", " v")] {
        let metadata = Metadata { timestamp: None, pairs: vec![(name.to_owned(), value.to_owned())] };
        assert_eq!(store.put("a", b"", &metadata).unwrap_err().kind(), Kind::Invalid, "{name:?}: {value:?}");
    }
}
