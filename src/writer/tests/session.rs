//! P28: signs of life, in simulated time.

use super::simulation::Simulation;
use super::*;
use crate::replica::session::{POINTER, Sign, last_sign};
use crate::store::fault::{Call, Fault, FaultStore};
use crate::store::{MemoryStore, Metadata};

const INTERVAL: Duration = Duration::from_secs(10);

struct World {
    source: Source,
    simulation: Simulation,
    faults: Arc<FaultStore>,
    store: Arc<dyn Store>,
}

impl World {
    fn new() -> Self {
        let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new())));
        let store = Arc::clone(&faults) as Arc<dyn Store>;
        Self { source: Source::new(), simulation: Simulation::new(), faults, store }
    }

    fn start(&self, source: &Source) -> Arc<Primary> {
        source.start_on(&self.store, Options::default(), self.simulation.pools()).unwrap()
    }

    fn sessions(&self) -> Vec<String> {
        self.store.list("session/").unwrap().into_iter().map(|entry| entry.key).collect()
    }

    /// It may still be busy with what it does.
    fn beat(&self) {
        let due = self.simulation.beat().unwrap();
        assert!(due <= INTERVAL, "{due:?}");
    }
}

#[test]
fn p28_one_session_for_all_databases_of_a_place_and_nobody_waits_for_it() {
    let world = World::new();
    let (other, primary) = (Source::new(), world.start(&world.source));
    assert_eq!(world.sessions(), [""; 0], "who only looks in leaves none");
    let _second = world.start(&other);
    for beats in 1..=3 {
        let before = world.faults.count(Call::Put);
        world.beat();
        // The session, and at the first time a pointer for each database, which are one here.
        assert_eq!(world.faults.count(Call::Put) - before, if beats == 1 { 3 } else { 1 });
        assert_eq!(world.sessions().len(), 2);
        let Sign::Session(Some(_), ttl) = last_sign(&world.store).unwrap() else { panic!("no session") };
        assert_eq!(ttl, INTERVAL * 3);
    }
    // One is left: the session stays.
    primary.stop(&|| false).unwrap();
    world.beat();
    assert!(matches!(last_sign(&world.store).unwrap(), Sign::Stopped(_)));
    assert_eq!(world.sessions().len(), 2);
}

#[test]
fn p28_a_stop_is_no_death_and_leaves_no_session() {
    let world = World::new();
    let primary = world.start(&world.source);
    world.beat();
    primary.stop(&|| false).unwrap();
    world.beat();
    assert!(matches!(last_sign(&world.store).unwrap(), Sign::Stopped(_)));
    assert_eq!(world.sessions(), [POINTER]);
    // Nothing more is due.
    while world.simulation.beat().is_some() {}
    assert_eq!(world.sessions(), [POINTER]);
}

/// Another primary goes on elsewhere: who stops later says nothing of it.
#[test]
fn p28_a_pointer_of_another_primary_stays() {
    let world = World::new();
    let primary = world.start(&world.source);
    world.beat();
    let theirs = crate::replica::session::Pointer::new("", 7, INTERVAL).to_json();
    world.store.put(POINTER, &theirs, &Metadata::default()).unwrap();
    primary.stop(&|| false).unwrap();
    world.beat();
    assert_eq!(world.store.get(POINTER, 4096).unwrap().unwrap().0, theirs);
}

/// A process that died leaves its session; the next one of the database removes it, once it does not hold any more.
#[test]
fn p28_the_session_of_a_dead_process_is_removed() {
    let world = World::new();
    let dead = world.start(&world.source);
    world.beat();
    dead.abandon();
    drop(dead);
    let [former, _] = &world.sessions()[..] else { panic!("no session") };
    let later = Simulation::new();
    let _next = world.source.start_on(&world.store, Options::default(), later.pools()).unwrap();
    // It holds by its time, which is that of this moment.
    later.beat().unwrap();
    assert!(world.sessions().contains(former));
    let expired = br#"{"session":"FORMER","ttl_ms":0}"#;
    let expired = String::from_utf8_lossy(expired).replace("FORMER", former);
    std::thread::sleep(Duration::from_millis(2));
    world.store.put(POINTER, expired.as_bytes(), &Metadata::default()).unwrap();
    let third = Simulation::new();
    let other = Source::new();
    let _third = other.start_on(&world.store, Options::default(), third.pools()).unwrap();
    third.beat().unwrap();
    assert!(!world.sessions().contains(former), "{:?}", world.sessions());
}

/// It shows, replication goes on, and the store is not asked all the time.
#[test]
fn p28_a_store_that_refuses_signs_of_life_is_told_once() {
    let world = World::new();
    let primary = world.start(&world.source);
    primary.sync(TIMEOUT, &|| false).unwrap();
    world.faults.always(Call::Put, Fault::Before(Error::new(Kind::Denied, "no such permission")));
    world.beat();
    let status = primary.status();
    let (error, _) = status.last_error.unwrap();
    assert!(error.to_string().contains("the sign of life for readers: no such permission"), "{error}");
    assert_eq!(status.state, crate::writer::primary::State::Running);
    assert!(world.simulation.beat().unwrap() > INTERVAL * 10);
}

/// What lies under the pointer's key is not trusted.
#[test]
fn p28_a_pointer_that_is_none_is_an_error() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    assert_eq!(last_sign(&store).unwrap(), Sign::None);
    for hostile in [
        &b""[..],
        b"[]",
        br#"{"session":"x","ttl_ms":1}"#,
        br#"{"session":"xsession/1.json","ttl_ms":1}"#,
        br#"{"session":"session/1.json","ttl_ms":99999999999}"#,
        br#"{"session":"session/1.json","ttl_ms":-1}"#,
        br#"{"session":"session/../../1.json","ttl_ms":1}"#,
        br#"{"session":"../session/1.json","ttl_ms":1}"#,
        br#"{"session":"\u00e9session/1.json","ttl_ms":1}"#,
    ] {
        store.put(POINTER, hostile, &Metadata::default()).unwrap();
        let text = String::from_utf8_lossy(hostile);
        last_sign(&store).expect_err(&text);
    }
    store.put(POINTER, br#"{"session":"session/0000000000000001.json","ttl_ms":1}"#, &Metadata::default()).unwrap();
    assert_eq!(last_sign(&store).unwrap(), Sign::Session(None, Duration::from_millis(1)));
    // Elsewhere, which a store that is alone cannot reach.
    store.put(POINTER, br#"{"session":"a/session/0000000000000001.json","ttl_ms":1}"#, &Metadata::default()).unwrap();
    assert_eq!(last_sign(&store).unwrap(), Sign::Session(None, Duration::from_millis(1)));
}
