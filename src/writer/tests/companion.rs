//! The companion index of a large object (R6), as the primary leaves it.

use super::*;
use crate::ltx::{Decoder, Level, TAIL_SIZE, Tail, Txid, TxidRange, page_checksum, parse_index};
use crate::replica::companion::{Head, key};
use crate::store::fault::{Call, Fault, FaultStore};
use crate::store::{FileStore, MemoryStore, Metadata, Object};
use crate::time::Timestamp;
use crate::writer::primary::State;

/// More than enough for 4,096 pages of 1 KiB.
const LARGE: u32 = 24_000;

fn away() -> Error {
    Error::new(Kind::Unavailable, "the store is away")
}

fn faulty() -> (Arc<FaultStore>, Arc<dyn Store>) {
    let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new())));
    let store = Arc::clone(&faults) as Arc<dyn Store>;
    (faults, store)
}

fn range(txid: u64) -> TxidRange {
    TxidRange::single(Txid::new(txid).unwrap())
}

fn sync(primary: &Arc<Primary>) {
    primary.sync(TIMEOUT, &|| false).unwrap();
    // The step that shipped has ended.
    drop(primary.shipping.lock());
    primary.await_companions(primary.now() + TIMEOUT, &|| false);
}

fn companions(store: &Arc<dyn Store>) -> Vec<String> {
    store.list("index/").unwrap().into_iter().map(|entry| entry.key).collect()
}

/// The companion says of the object what the object itself says.
fn assert_describes(store: &Arc<dyn Store>, txid: u64) -> Object {
    let listing = Replica::new(Arc::clone(store)).list().unwrap();
    let file = listing.level(Level::L0).iter().find(|file| file.txids == range(txid)).unwrap();
    let (bytes, _) = store.get(&key(Level::L0, range(txid)), u64::MAX).unwrap().unwrap();
    let head = Head::parse(&bytes).unwrap();
    assert!(head.describes(file), "{head:?} {file:?}");
    let mut entries = Vec::new();
    for block in 0..head.blocks() {
        let range = head.block_range(block);
        entries.extend(head.parse_block(block, &bytes[range.start as usize..range.end as usize]).unwrap());
    }
    let (ltx, _) = store.get(&file.key, u64::MAX).unwrap().unwrap();
    let tail = Tail::parse(ltx.last_chunk::<TAIL_SIZE>().unwrap(), ltx.len() as u64).unwrap();
    let index = tail.index_range(ltx.len() as u64);
    let mut decoder = Decoder::new(&ltx[..]).unwrap();
    let header = *decoder.header();
    assert_eq!((head.page_size, head.commit, head.timestamp), (header.page_size, header.commit, header.timestamp));
    assert_eq!((head.pages_end, head.file_checksum), (tail.pages_end(head.size), tail.trailer.file_checksum));
    let index = parse_index(&ltx[index.start as usize..index.end as usize], &header, head.pages_end).unwrap();
    assert_eq!(index.len(), entries.len());
    let mut page = vec![0; header.page_size.bytes()];
    for (entry, in_file) in entries.iter().zip(index) {
        assert_eq!((entry.pgno, entry.offset, entry.len), (in_file.pgno, in_file.offset, in_file.len));
        assert_eq!(decoder.next_page(&mut page).unwrap(), Some(entry.pgno));
        assert_eq!(entry.checksum, page_checksum(entry.pgno, &page));
    }
    store.head(&key(Level::L0, range(txid))).unwrap().unwrap()
}

#[test]
fn r6_a_large_first_image_and_a_large_commit_get_a_companion_and_others_none() {
    let source = Source::new();
    source.insert(LARGE);
    let (_, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    assert_describes(&store, 1);
    source.commit(&primary, 10);
    sync(&primary);
    source.commit(&primary, LARGE);
    sync(&primary);
    assert_describes(&store, 3);
    assert_eq!(companions(&store), [key(Level::L0, range(1)), key(Level::L0, range(3))]);
    assert_same(&source.restored(&store, Target::Latest), &source.image());
    assert_eq!(primary.status().last_error.map(|(error, _)| error.to_string()), None);
}

/// A first image of so many rows, and three commits.
fn replicated(rows: u32) -> (Arc<FaultStore>, Arc<dyn Store>) {
    let source = Source::new();
    source.insert(rows);
    let (faults, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    for _ in 0..3 {
        source.commit(&primary, 1000);
        sync(&primary);
    }
    (faults, store)
}

#[test]
fn r6_a_small_database_gets_no_companion() {
    let (faults, store) = replicated(100);
    assert_eq!((companions(&store), faults.count(Call::Put)), (Vec::new(), 0));
}

/// R7: so that a page of it is verified alone. It is one request in the life of a database.
#[test]
fn r6_a_first_image_gets_a_companion_from_64_pages_on() {
    let (faults, store) = replicated(1000);
    assert_describes(&store, 1);
    assert_eq!((companions(&store), faults.count(Call::Put)), (vec![key(Level::L0, range(1))], 1));
}

/// A close leaves it complete, and a start after which nothing is large leaves it alone.
#[test]
fn r6_a_close_waits_for_the_companion() {
    let source = Source::new();
    source.insert(LARGE);
    let (faults, store) = faulty();
    let hold = crate::store::fault::Hold::default();
    faults.at(Call::Put, 1, Fault::Hold(hold.clone()));
    let primary = source.start(&store).unwrap();
    primary.sync(TIMEOUT, &|| false).unwrap();
    hold.wait_for(1);
    // Shipping goes on meanwhile.
    source.commit(&primary, 10);
    assert_eq!(primary.sync(TIMEOUT, &|| false).unwrap().unwrap().get(), 2);
    assert_eq!(companions(&store), Vec::<String>::new());
    let closing = std::thread::spawn(move || primary.stop(&|| false).unwrap());
    std::thread::sleep(Duration::from_millis(100));
    assert!(!closing.is_finished());
    hold.release();
    closing.join().unwrap();
    assert_describes(&store, 1);
}

/// What fails here fails nothing else, and is told.
#[test]
fn r6_a_companion_that_cannot_be_put_is_a_warning() {
    let source = Source::new();
    source.insert(LARGE);
    let (faults, store) = faulty();
    faults.always(Call::Put, Fault::Before(away()));
    let primary = source.start(&store).unwrap();
    sync(&primary);
    source.commit(&primary, 10);
    sync(&primary);
    let status = primary.status();
    assert_eq!((status.state, status.durable.unwrap().0.get()), (State::Running, 2));
    let text = status.last_error.unwrap().0.to_string();
    assert!(text.contains("no companion index") && text.contains("the store is away"), "{text}");
    assert_eq!(companions(&store), Vec::<String>::new());
    assert_same(&source.restored(&store, Target::Latest), &source.image());
}

/// P19: the answer was lost; HEAD tells which object it is.
#[test]
fn r6_the_companion_of_an_object_whose_answer_was_lost_names_what_is_there() {
    let source = Source::new();
    let (faults, store) = faulty();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    faults.at(Call::Finish, 1, Fault::After(away()));
    source.commit(&primary, LARGE);
    sync(&primary);
    assert_describes(&store, 2);
}

/// A companion of nothing is removed after a day, by the start that looks for what died before it.
#[test]
fn r6_orphans_are_removed_when_they_are_a_day_old() {
    let source = Source::new();
    source.insert(LARGE);
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FileStore::new(directory.path()));
    let old = Metadata { timestamp: Some(Timestamp(Timestamp::now().0 - 25 * 3_600_000)), pairs: Vec::new() };
    let (orphan, young) = (key(Level::L0, range(77)), key(Level::L0, range(78)));
    store.put(&orphan, b"of an earlier time", &old).unwrap();
    store.put("index/readme", b"of somebody", &old).unwrap();
    store.put(&young, b"", &Metadata::default()).unwrap();
    let primary = source.start(&store).unwrap();
    sync(&primary);
    assert_eq!(companions(&store), [key(Level::L0, range(1)), young.clone(), "index/readme".to_owned()]);
    primary.stop(&|| false).unwrap();
    drop(primary);
    // That of an object which is there stays, however old.
    let (bytes, _) = store.get(&key(Level::L0, range(1)), u64::MAX).unwrap().unwrap();
    store.put(&key(Level::L0, range(1)), &bytes, &old).unwrap();
    let primary = source.start(&store).unwrap();
    source.commit(&primary, LARGE);
    sync(&primary);
    let expected = [key(Level::L0, range(1)), key(Level::L0, range(2)), young, "index/readme".to_owned()];
    assert_eq!(companions(&store), expected);
    assert_describes(&store, 1);
    assert_describes(&store, 2);
}
