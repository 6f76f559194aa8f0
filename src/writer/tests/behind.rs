//! A store that loses, while a primary runs, what was shipped to it.

use super::simulation::Simulation;
use super::*;
use crate::ltx::{Level, Txid, TxidRange};
use crate::store::MemoryStore;
use crate::store::fault::{Call, FaultStore};
use crate::writer::primary::State;

const MINUTE: Duration = Duration::from_secs(61);

struct World {
    source: Source,
    simulation: Simulation,
    faults: Arc<FaultStore>,
    store: Arc<dyn Store>,
    primary: Arc<Primary>,
}

impl World {
    /// With TXIDs 1 to `head` in the store.
    fn at(head: u64) -> Self {
        let (source, simulation) = (Source::new(), Simulation::new());
        let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new())));
        let store = Arc::clone(&faults) as Arc<dyn Store>;
        source.insert(10);
        let primary = source.start_on(&store, Options::default(), simulation.pools()).unwrap();
        let world = Self { source, simulation, faults, store, primary };
        world.sync().unwrap();
        (1..head).for_each(|_| assert!(world.commit().is_ok()));
        assert_eq!(world.primary.durable_txid().unwrap().0.get(), head);
        world
    }

    fn sync(&self) -> Result<Option<Txid>> {
        self.primary.sync(Duration::from_secs(20), &|| false)
    }

    /// The TXID that is durable afterwards.
    fn commit(&self) -> Result<u64> {
        self.source.commit(&self.primary, 10);
        self.sync().map(|txid| txid.unwrap().get())
    }

    fn key(&self, txid: u64) -> String {
        self.primary.key(Txid::new(txid).unwrap())
    }

    fn keys(&self) -> Vec<String> {
        self.store.list("").unwrap().into_iter().map(|entry| entry.key).collect()
    }

    fn assert_restores(&self) {
        assert_same(&self.source.restored(&self.store, Target::Latest), &self.source.image());
    }
}

#[test]
fn p17_nothing_is_shipped_behind_what_an_emptied_store_has_lost() {
    let world = World::at(3);
    let kept: Vec<_> =
        world.keys().into_iter().map(|key| (world.store.get(&key, u64::MAX).unwrap().unwrap().0, key)).collect();
    kept.iter().for_each(|(_, key)| world.store.delete(key).unwrap());
    world.simulation.run_for(MINUTE);
    let error = world.commit().unwrap_err().to_string();
    assert!(error.contains("at TXID 0000000000000004") && error.contains("nothing is there"), "{error}");
    assert_eq!(world.keys(), Vec::<String>::new());
    let status = world.primary.status();
    assert_eq!((status.state, status.durable), (State::Retrying, None));
    assert!(world.primary.wait(Txid::FIRST, Duration::from_secs(5), &|| false).is_err());
    world.simulation.run_for(10 * MINUTE);
    assert_eq!(world.keys(), Vec::<String>::new());
    // The bucket is put back, or the disk mounted again.
    for (bytes, key) in &kept {
        world.store.put(key, bytes, &crate::store::Metadata::default()).unwrap();
    }
    world.simulation.run_for(MINUTE);
    assert_eq!(world.sync().unwrap().map(Txid::get), Some(4));
    assert_eq!(world.primary.status().state, State::Running);
    world.assert_restores();
}

/// There is always an object that was shipped just now.
#[test]
fn p17_a_busy_primary_notices_that_its_store_was_emptied() {
    let world = World::at(3);
    let busy = |seconds: u64| {
        (0..seconds / 2).try_for_each(|_| {
            world.simulation.run_for(Duration::from_secs(2));
            world.commit().map(|_| ())
        })
    };
    busy(90).unwrap();
    world.keys().iter().for_each(|key| world.store.delete(key).unwrap());
    let error = busy(130).unwrap_err().to_string();
    assert!(error.contains("TXID 1"), "{error}");
    assert_eq!(world.primary.status().state, State::Retrying);
}

#[test]
fn p17_what_was_lost_and_is_still_in_the_spool_is_shipped_again() {
    let world = World::at(4);
    [3, 4].iter().for_each(|txid| world.store.delete(&world.key(*txid)).unwrap());
    world.simulation.run_for(MINUTE);
    assert_eq!(world.commit().unwrap(), 5);
    assert_eq!(world.keys().len(), 5);
    let pairs = |txid| world.store.head(&world.key(txid)).unwrap().unwrap().metadata.pairs;
    assert_eq!(pairs(4).len(), 3, "without checksums: {:?}", pairs(4));
    world.assert_restores();
}

#[test]
fn p17_what_was_lost_and_is_in_no_spool_is_not_passed_over() {
    let world = World::at(4);
    [3, 4].iter().for_each(|txid| world.store.delete(&world.key(*txid)).unwrap());
    std::fs::remove_file(world.primary.spool.file(Txid::new(3).unwrap())).unwrap();
    world.simulation.run_for(MINUTE);
    let error = world.commit().unwrap_err().to_string();
    assert!(error.contains("TXID 0000000000000003 is neither in the replica"), "{error}");
    assert_eq!(world.keys().len(), 2);
}

#[test]
fn p17_what_was_compacted_is_not_lost() {
    let world = World::at(1);
    let layout = world.primary.replica.layout();
    let above = layout.key(Level::new(1).unwrap(), TxidRange::single(Txid::FIRST));
    world.store.copy(&world.key(1), &above, &crate::store::Metadata::default()).unwrap();
    world.store.delete(&world.key(1)).unwrap();
    world.simulation.run_for(MINUTE);
    assert_eq!(world.commit().unwrap(), 2);
    assert_eq!(world.keys().len(), 2);
    assert_eq!(world.primary.status().last_error.map(|(error, _)| error.to_string()), None);
    world.assert_restores();
}

#[test]
fn p17_the_store_is_asked_once_a_minute_at_most_and_never_for_nothing() {
    let world = World::at(2);
    let before = (world.faults.count(Call::Head), world.faults.count(Call::List));
    let asked = || (world.faults.count(Call::Head) - before.0, world.faults.count(Call::List) - before.1);
    world.simulation.run_for(100 * MINUTE);
    world.sync().unwrap();
    assert_eq!(asked(), (0, 0), "while nothing was committed");
    for commits in 1..=3 {
        for _ in 0..5 {
            world.commit().unwrap();
        }
        assert_eq!(asked(), (commits, 0));
        world.simulation.run_for(MINUTE);
    }
}
