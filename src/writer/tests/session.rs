//! P28: signs of life, in simulated time.

use super::simulation::Simulation;
use super::*;
use crate::replica::session::{POINTER, Sign, last_sign};
use crate::store::fault::{Call, Fault, FaultStore, Hold};
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

/// Processes that died have left their sessions; each is removed by the next one, once it does not hold any more.
#[test]
fn p28_the_sessions_of_dead_processes_are_removed() {
    let memory = Arc::new(MemoryStore::new());
    let store = Arc::clone(&memory) as Arc<dyn Store>;
    let source = Source::new();
    let mut last = None;
    for _ in 0..3 {
        let simulation = Simulation::new();
        let primary = source.start_on(&store, Options::default(), simulation.pools()).unwrap();
        simulation.beat().unwrap();
        primary.abandon();
        last = Some(simulation);
    }
    drop(last);
    let simulation = Simulation::new();
    let _primary = source.start_on(&store, Options::default(), simulation.pools()).unwrap();
    simulation.beat().unwrap();
    let names = || store.list("session/").unwrap().len();
    // The pointer, the own one, and those whose process was killed before it could look again.
    assert_eq!(names(), 5);
    memory.set_clock_offset_ms(31_000);
    simulation.beat().unwrap();
    assert_eq!(names(), 4, "the one that the pointer named");
}

/// It shows, replication goes on, and the store is asked at intervals that double.
#[test]
fn p28_a_store_that_refuses_signs_of_life_is_shown_and_asked_seldom() {
    let world = World::new();
    let primary = world.start(&world.source);
    primary.sync(TIMEOUT, &|| false).unwrap();
    world.faults.always(Call::Put, Fault::Before(Error::new(Kind::Denied, "no such permission")));
    let mut waits = Vec::new();
    while waits.len() < 9 {
        waits.push(world.simulation.beat().unwrap().as_secs_f64().round() as u64);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    let status = primary.status();
    let (error, _) = status.last_error.unwrap();
    assert!(error.to_string().contains("the sign of life for readers: no such permission"), "{error}");
    assert_eq!(status.state, crate::writer::primary::State::Running);
}

/// Beside one database of the bucket nothing may be put: the others give their signs.
#[test]
fn p28_a_replica_that_refuses_pointers_silences_no_other() {
    for refused in [0, 1] {
        let world = World::new();
        let memory = MemoryStore::new();
        let faults = [(); 2].map(|()| Arc::new(FaultStore::new(Arc::new(memory.clone()))));
        faults[refused].always(Call::Put, Fault::Before(Error::new(Kind::Denied, "403")));
        let sources = [Source::new(), Source::new()];
        let primaries = [0, 1].map(|n| {
            let store = Arc::clone(&faults[n]) as Arc<dyn Store>;
            // One object is enough for both here.
            if n == 1 {
                for entry in memory.list("").unwrap() {
                    memory.delete(&entry.key).unwrap();
                }
            }
            let primary = sources[n].start_on(&store, Options::default(), world.simulation.pools()).unwrap();
            primary.sync(TIMEOUT, &|| false).unwrap();
            primary
        });
        for _ in 0..4 {
            world.simulation.beat().unwrap();
        }
        // Beside the other one, if it was refused.
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        assert!(matches!(last_sign(&store).unwrap(), Sign::Session(Some(_), _)), "{refused}");
        world.beat();
        let error = primaries[refused].status().last_error.unwrap().0;
        assert!(error.to_string().contains("the sign of life for readers: 403"), "{error}");
        if refused == 1 {
            assert!(primaries[0].status().last_error.is_none());
        }
    }
}

/// A stop that comes while a first sign is given leaves no session, and says so.
#[test]
fn p28_a_stop_beside_the_first_sign_leaves_no_session() {
    for call in 1..=2 {
        let world = World::new();
        let primary = world.start(&world.source);
        primary.sync(TIMEOUT, &|| false).unwrap();
        let hold = Hold::default();
        world.faults.at(Call::Put, call, Fault::Hold(hold.clone()));
        let simulation = world.simulation.clone();
        let beat = std::thread::spawn(move || simulation.beat());
        hold.wait_for(1);
        primary.stop(&|| false).unwrap();
        hold.release();
        beat.join().unwrap();
        while world.simulation.beat().is_some() {}
        match last_sign(&world.store).unwrap() {
            Sign::None => assert_eq!((call, world.sessions().len()), (1, 0)),
            sign => assert!(call == 2 && matches!(sign, Sign::Stopped(_)) && world.sessions() == [POINTER], "{sign:?}"),
        }
    }
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
