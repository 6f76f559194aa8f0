//! Random workloads against a store with random faults, in simulated time.
//!
//! A seed decides what is committed, checkpointed, closed, stopped, killed and written unseen, and what happens to each
//! call of the store. At every step the spool keeps its bound. In the end the faults stop: everything arrives, each
//! TXID is a committed state, in order, and nothing was ever overwritten. One seed: `LITESTREAM_TEST_SEEDS=17-17`.

use super::simulation::{Random, Simulation};
use super::*;
use crate::error::{Error, Kind};
use crate::ltx::{Level, Txid};
use crate::store::MemoryStore;
use crate::store::fault::{Call, Fault, FaultStore};
use crate::writer::primary::State;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

const STEPS: u64 = 30;

/// How long a commit with its taps may take: it waits for nobody, least of all for the store.
const COMMIT_MOST: Duration = Duration::from_secs(5);

struct World {
    random: Random,
    simulation: Simulation,
    source: Option<Source>,
    memory: Arc<MemoryStore>,
    faults: Arc<FaultStore>,
    store: Arc<dyn Store>,
    primary: Option<Arc<Primary>>,
    options: Options,
    /// The hash of each committed state, in order.
    states: Vec<u64>,
}

fn state_of(db: &Connection) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut rows = db.prepare("SELECT id, v FROM t ORDER BY id").unwrap();
    let mut rows = rows.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        (row.get::<_, i64>(0).unwrap(), row.get::<_, String>(1).unwrap()).hash(&mut hasher);
    }
    hasher.finish()
}

/// What a call meets, by the seed: much trouble or little, in phases.
fn chooser(seed: u64) -> crate::store::fault::Chooser {
    let mut random = Random::new(seed ^ 0xfa17);
    let (mut share, mut left) = (0, 0);
    Box::new(move |call| {
        if left == 0 {
            (share, left) = ([0, 10, 40, 100][random.below(4) as usize], 1 + random.below(20));
        }
        left -= 1;
        if random.below(100) >= share {
            return None;
        }
        let error = |kind, text: &str| Error::new(kind, text);
        Some(match random.below(8) {
            0 => Fault::Before(error(Kind::Denied, "403 AccessDenied")),
            1 => Fault::Before(error(Kind::NotFound, "404 NoSuchBucket")),
            2 | 3 => Fault::Before(error(Kind::Unavailable, "503 SlowDown")),
            4 | 5 => Fault::After(error(Kind::Unavailable, "the answer was lost")),
            6 if call == Call::List => Fault::Empty,
            _ => Fault::Late(error(Kind::Unavailable, "timed out")),
        })
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let shared = Path::new("/dev/shm");
        let directory = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
        let source = Source::new_in(directory.unwrap());
        let memory = Arc::new(MemoryStore::new());
        let faults = Arc::new(FaultStore::new(Arc::clone(&memory) as Arc<dyn Store>));
        faults.choose(chooser(seed));
        let store = Arc::clone(&faults) as Arc<dyn Store>;
        let mut random = Random::new(seed);
        let spool_max = [Some(0), Some(20_000), None][random.below(3) as usize];
        let options = Options { spool_max, ..Options::default() };
        let states = vec![state_of(&source.db)];
        let simulation = Simulation::new();
        Self { random, simulation, source: Some(source), memory, faults, store, primary: None, options, states }
    }

    fn source(&self) -> &Source {
        self.source.as_ref().unwrap()
    }

    fn start(&mut self) {
        if self.primary.is_none() {
            // A store that is away, or lists nothing, may refuse; the caller asks again.
            self.primary = self.source().start_on(&self.store, self.options, self.simulation.pools()).ok();
        }
    }

    fn commit(&mut self) {
        let text = |random: &mut Random| format!("{:x}", random.below(u64::MAX)).repeat(1 + random.below(30) as usize);
        let sql = match self.random.below(10) {
            0 => "DELETE FROM t WHERE id % 3 = 0".to_owned(),
            1 => "DELETE FROM t WHERE id > 5; VACUUM".to_owned(),
            2 => format!("UPDATE t SET v = '{}' WHERE id % 4 = 1", text(&mut self.random)),
            _ => {
                let (rows, v) = (1 + self.random.below(20), text(&mut self.random));
                format!(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<{rows})
                         INSERT INTO t(v) SELECT '{v}' || i FROM n"
                )
            }
        };
        for statement in sql.split(';') {
            let source = self.source.as_ref().unwrap();
            let (before, begun) = (source.published(), Instant::now());
            source.db.execute_batch(statement).unwrap();
            let Some(after) = source.published().filter(|after| before != Some(*after)) else { continue };
            if let Some(primary) = &self.primary {
                if before.is_none_or(|before| before.salts != after.salts || before.max_frame == 0) {
                    primary.header_write(after.salts);
                }
                if primary.published(&after) {
                    primary.wake();
                }
            }
            assert!(begun.elapsed() < COMMIT_MOST, "a commit took {:?}", begun.elapsed());
            self.states.push(state_of(&source.db));
        }
    }

    fn checkpoint(&self) {
        let source = self.source();
        let header = source.published().filter(|header| header.max_frame > 0);
        if let Some(primary) = &self.primary {
            primary.barrier(header.as_ref());
        }
        source.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        if let (Some(primary), Some(_), Some(now)) = (&self.primary, header, source.published()) {
            primary.restarted(&now);
        }
    }

    /// The last close, with its taps if there is a primary, and the next open.
    fn close_and_open(&mut self) {
        let source = self.source.take().unwrap();
        if let Some(primary) = &self.primary {
            primary.barrier(source.published().filter(|header| header.max_frame > 0).as_ref());
        }
        let Source { directory, path, db, broken, host } = source;
        drop(db);
        if let Some(primary) = &self.primary {
            primary.last_close();
            primary.all_closed();
            self.simulation.run_for(Duration::from_secs(self.random.below(100)));
            primary.reopened();
        }
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA wal_autocheckpoint=0; SELECT count(*) FROM t").unwrap();
        if let Some(primary) = &self.primary {
            primary.wal_opened();
        }
        self.source = Some(Source { directory, path, db, broken, host });
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => self.commit(),
            8 => self.checkpoint(),
            9..=11 => self.simulation.run_for(Duration::from_millis(self.random.below(3000))),
            12 => self.simulation.run_for(Duration::from_secs(self.random.below(3600))),
            13 => self.close_and_open(),
            14 => {
                if let Some(primary) = &self.primary {
                    let _ = primary.sync(Duration::from_secs(self.random.below(60)), &|| false);
                }
            }
            15 => {
                if let Some(primary) = self.primary.take() {
                    let _ = primary.stop(&|| false);
                }
            }
            16 => self.primary = None,
            _ => self.start(),
        }
        self.check();
    }

    /// What holds at every moment.
    fn check(&self) {
        let directory = self.source().directory.path().join(".app.db-litestream/ltx/0");
        let in_store = self.memory.list("").unwrap().len() as u64;
        let mut waiting = 0;
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let txid = u64::from_str_radix(&name[..16], 16).unwrap();
            waiting += u64::from(txid > in_store);
        }
        // The one that is being sent, and the one that is merged into. With room, as many as closes made.
        let most = if self.options.spool_max == Some(0) { 2 } else { 66 };
        assert!(waiting <= most, "{waiting} files wait in the spool");
        if let Some(primary) = &self.primary {
            let status = primary.status();
            assert!(!status.state.is_final(), "{:?}: {:?}", status.state, status.last_error);
            let shipped = status.state == State::Running && status.lag == Duration::ZERO;
            assert!(!shipped || status.txid == status.durable.map(|(txid, _)| txid), "{status:?}");
        }
    }

    /// The faults are over.
    fn end(mut self) {
        self.faults.clear();
        let error = |world: &Self| world.source().start_on(&world.store, world.options, world.simulation.pools()).err();
        if self.primary.is_none() {
            self.start();
            assert!(self.primary.is_some(), "{:?}", error(&self));
        }
        self.commit();
        let primary = Arc::clone(self.primary.as_ref().unwrap());
        let head = primary.sync(Duration::from_secs(120), &|| false).unwrap().unwrap();
        let status = primary.status();
        assert_eq!((status.state, status.lag), (State::Running, Duration::ZERO), "{status:?}");
        let (mut from, mut newest) = (0, None);
        for txid in 1..=head.get() {
            let target = Target::Txid(Txid::new(txid).unwrap());
            self.source().restored(&self.store, target);
            let restored = Connection::open(self.source().directory.path().join("restored.db")).unwrap();
            let found = state_of(&restored);
            newest = Some(found);
            let at = self.states[from..].iter().position(|state| *state == found);
            from += at.unwrap_or_else(|| panic!("TXID {txid} of {head} is no committed state after the one before it"));
        }
        assert_eq!(newest, self.states.last().copied(), "the newest is not there");
        assert_same(&self.source().restored(&self.store, Target::Latest), &self.source().image());
        let listing = Replica::new(Arc::clone(&self.store)).list().unwrap();
        assert_eq!(listing.level(Level::L0).len() as u64, head.get());
        for call in [Call::Put, Call::PutIfMatch, Call::Delete, Call::Copy] {
            assert_eq!(self.faults.count(call), 0, "{call:?}");
        }
    }
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    let all = if std::env::var_os("LITESTREAM_TEST_FULL").is_some() { 1..=1000 } else { 1..=100 };
    let given = std::env::var("LITESTREAM_TEST_SEEDS").ok();
    let given = given.and_then(|text| {
        let (first, last) = text.split_once('-')?;
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    given.unwrap_or(all)
}

#[test]
fn p18_p19_p20_any_workload_arrives_in_order_whatever_the_store_does() {
    let mut failed = Vec::new();
    let count = seeds().count();
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
            }
            world.end();
        });
        if let Err(payload) = outcome {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            failed.push(format!("seed {seed}: {}", text.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{} of {count} seeds failed:\n{}", failed.len(), failed.join("\n"));
}
