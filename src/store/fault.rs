//! A store that fails on command, around another one: for tests of everything above the stores.

use super::{Counters, ETag, Ending, Entry, Metadata, Object, Place, Put, Start, Store, Upload};
use crate::error::{Error, Result};
use crate::lock::{Condvar, Mutex};
use std::ops::Range;
use std::sync::Arc;

/// A method of [`Store`], or the finish of an [`Upload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum Call {
    List,
    Head,
    Get,
    GetRange,
    GetEnd,
    Put,
    PutIfAbsent,
    PutIfMatch,
    Upload,
    Finish,
    Delete,
    Copy,
}

/// What happens to a call.
#[derive(Clone)]
pub enum Fault {
    /// Fails without effect.
    Before(Error),
    /// Takes effect and fails: a lost answer (P19).
    After(Error),
    /// Waits until released, then goes on.
    Hold(Hold),
    /// A creation fails, and takes effect some calls later: a request that was still on its way. Of another call, as
    /// [`Fault::Before`].
    Late(Error),
    /// A listing has nothing in it. Of another call: none.
    Empty,
}

/// Says what happens to a call.
pub type Chooser = Box<dyn FnMut(Call) -> Option<Fault> + Send>;

/// After how many further calls a late creation takes effect.
const LATE_CALLS: u64 = 3;

/// Keeps calls waiting.
#[derive(Clone, Default)]
pub struct Hold(Arc<(Mutex<(u64, bool)>, Condvar)>);

impl Hold {
    /// Blocks until `calls` calls have come to wait here.
    pub fn wait_for(&self, calls: u64) {
        let mut state = self.0.0.lock();
        while state.0 < calls {
            self.0.1.wait(&mut state);
        }
    }

    /// Lets all go, now and later.
    pub fn release(&self) {
        self.0.0.lock().1 = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut state = self.0.0.lock();
        state.0 += 1;
        self.0.1.notify_all();
        while !state.1 {
            self.0.1.wait(&mut state);
        }
    }
}

struct Rule {
    call: Call,
    skip: u64,
    times: u64,
    fault: Fault,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    chooser: Option<Chooser>,
    calls: Vec<(Call, String)>,
    late: Vec<(u64, Box<dyn FnOnce() + Send>)>,
}

/// The wrapper; clones share rules and log.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    script: Arc<Mutex<Script>>,
}

impl FaultStore {
    /// Passes everything on until told otherwise.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// The `nth` `call` from now, counted from 1, meets the fault.
    pub fn at(&self, call: Call, nth: u64, fault: Fault) {
        self.script.lock().rules.push(Rule { call, skip: nth.saturating_sub(1), times: 1, fault });
    }

    /// Every `call` from now meets the fault, until [`clear`](Self::clear).
    pub fn always(&self, call: Call, fault: Fault) {
        self.script.lock().rules.push(Rule { call, skip: 0, times: u64::MAX, fault });
    }

    /// Asks `chooser` at every call that no rule is for.
    pub fn choose(&self, chooser: Chooser) {
        self.script.lock().chooser = Some(chooser);
    }

    /// Forgets the rules; who waits in a [`Hold`] stays there.
    pub fn clear(&self) {
        let mut script = self.script.lock();
        script.rules.clear();
        script.chooser = None;
    }

    /// The calls so far, with their keys, in order of arrival.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.script.lock().calls.clone()
    }

    /// How many of `call` there were.
    pub fn count(&self, call: Call) -> usize {
        self.script.lock().calls.iter().filter(|(made, _)| *made == call).count()
    }

    fn meet(&self, call: Call, key: &str) -> Option<Fault> {
        self.catch_up();
        let mut script = self.script.lock();
        script.calls.push((call, key.to_owned()));
        let mut met = script.chooser.as_mut().and_then(|choose| choose(call));
        for rule in script.rules.iter_mut().filter(|rule| rule.call == call) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 && met.is_none() {
                rule.times -= 1;
                met = Some(rule.fault.clone());
            }
        }
        met
    }

    /// What was on its way arrives.
    fn catch_up(&self) {
        let mut script = self.script.lock();
        script.late.iter_mut().for_each(|(calls, _)| *calls = calls.saturating_sub(1));
        let (now, later) = std::mem::take(&mut script.late).into_iter().partition(|(calls, _)| *calls == 0);
        script.late = later;
        drop(script);
        let now: Vec<(u64, Box<dyn FnOnce() + Send>)> = now;
        now.into_iter().for_each(|(_, effect)| effect());
    }

    fn delay(&self, effect: impl FnOnce() + Send + 'static) {
        self.script.lock().late.push((LATE_CALLS, Box::new(effect)));
    }

    fn pass<T>(&self, call: Call, key: &str, act: impl FnOnce(&dyn Store) -> Result<T>) -> Result<T> {
        self.act(self.meet(call, key), act)
    }

    fn act<T>(&self, fault: Option<Fault>, act: impl FnOnce(&dyn Store) -> Result<T>) -> Result<T> {
        match fault {
            None | Some(Fault::Empty) => act(&*self.inner),
            Some(Fault::Before(error) | Fault::Late(error)) => Err(error),
            Some(Fault::After(error)) => act(&*self.inner).and(Err(error)),
            Some(Fault::Hold(hold)) => {
                hold.pass();
                act(&*self.inner)
            }
        }
    }
}

impl Store for FaultStore {
    fn url(&self) -> &str {
        self.inner.url()
    }
    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        match self.meet(Call::List, prefix) {
            Some(Fault::Empty) => Ok(Vec::new()),
            fault => self.act(fault, |s| s.list(prefix)),
        }
    }
    fn head(&self, key: &str) -> Result<Option<Object>> {
        self.pass(Call::Head, key, |s| s.head(key))
    }
    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, ETag)>> {
        self.pass(Call::Get, key, |s| s.get(key, limit))
    }
    fn get_range(&self, key: &str, range: Range<u64>, if_match: Option<&ETag>) -> Result<Vec<u8>> {
        self.pass(Call::GetRange, key, |s| s.get_range(key, range, if_match))
    }
    fn get_start(&self, key: &str, length: u64, if_match: Option<&ETag>) -> Result<Start> {
        self.pass(Call::GetRange, key, |s| s.get_start(key, length, if_match))
    }
    fn get_end(&self, key: &str, length: u64) -> Result<Option<Ending>> {
        self.pass(Call::GetEnd, key, |s| s.get_end(key, length))
    }
    fn put(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<ETag> {
        self.pass(Call::Put, key, |s| s.put(key, bytes, metadata))
    }
    fn put_if_absent(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<Put> {
        let fault = self.meet(Call::PutIfAbsent, key);
        if let Some(Fault::Late(_)) = fault {
            let (inner, key, bytes, metadata) =
                (Arc::clone(&self.inner), key.to_owned(), bytes.to_owned(), metadata.clone());
            self.delay(move || drop(inner.put_if_absent(&key, &bytes, &metadata)));
        }
        self.act(fault, |s| s.put_if_absent(key, bytes, metadata))
    }
    fn put_if_match(&self, key: &str, bytes: &[u8], metadata: &Metadata, etag: &ETag) -> Result<Put> {
        self.pass(Call::PutIfMatch, key, |s| s.put_if_match(key, bytes, metadata, etag))
    }
    fn upload(&self, key: &str, metadata: &Metadata, expected: u64) -> Result<Box<dyn Upload>> {
        let inner = self.pass(Call::Upload, key, |s| s.upload(key, metadata, expected))?;
        Ok(Box::new(FaultUpload { store: self.clone(), key: key.to_owned(), inner }))
    }
    fn delete(&self, key: &str) -> Result<()> {
        self.pass(Call::Delete, key, |s| s.delete(key))
    }
    fn copy(&self, from: &str, to: &str, metadata: &Metadata) -> Result<Put> {
        self.pass(Call::Copy, to, |s| s.copy(from, to, metadata))
    }
    fn prove_conditions(&self) -> Result<()> {
        self.inner.prove_conditions()
    }
    fn sweep(&self) -> Result<usize> {
        self.inner.sweep()
    }
    fn place(&self) -> Place {
        self.inner.place()
    }
    fn at_path(&self, path: &str) -> Option<Arc<dyn Store>> {
        self.inner.at_path(path)
    }
    fn clock_offset_ms(&self) -> i64 {
        self.inner.clock_offset_ms()
    }
    fn trouble(&self) -> Option<(Error, crate::time::Timestamp)> {
        self.inner.trouble()
    }
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

struct FaultUpload {
    store: FaultStore,
    key: String,
    inner: Box<dyn Upload>,
}

impl Upload for FaultUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.write(bytes)
    }

    fn finish_if_absent(self: Box<Self>) -> Result<Put> {
        let Self { store, key, inner } = *self;
        match store.meet(Call::Finish, &key) {
            Some(Fault::Late(error)) => {
                store.delay(move || drop(inner.finish_if_absent()));
                Err(error)
            }
            fault => store.act(fault, |_| inner.finish_if_absent()),
        }
    }
}
