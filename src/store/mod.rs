//! Object storage: one narrow trait, and the stores behind it.
//!
//! Keys are relative to the store's URL: `ltx/0/<min>-<max>.ltx` on `file://`, `0000/<min>-<max>.ltx` on `s3://`
//! (`replica::layout` knows which). Every call is complete in itself: deadlines and retries are inside it, and an
//! error that leaves it is final, or [`Kind::Unavailable`](crate::error::Kind::Unavailable) after the retries ran out.

mod digest;
pub mod fault;
mod file;
mod http;
mod location;
mod memory;
mod names;
mod s3;
mod tally;

pub use file::FileStore;
pub use http::{Gate, Limits};
pub use memory::MemoryStore;

use crate::error::{Error, Kind, Result};
use crate::time::Timestamp;
use location::Location;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// How a store is used, beside its URL.
#[derive(Clone, Default)]
pub struct Options {
    /// Deadlines and waits of requests; `file://` has none.
    pub limits: Limits,
    /// Asked before each attempt that creates, replaces or deletes, retries included (P24).
    pub gate: Option<Gate>,
    /// In place of the process's variables, for endpoint, region and credentials.
    pub env: Option<HashMap<String, String>>,
}

/// The store of a URL: `file:///absolute/path` or `s3://bucket/path?…`. Does no I/O: whether the place is there and lets
/// us in is proven by the first call, for which [`Store::list`] is meant.
pub fn open(url: &str) -> Result<Arc<dyn Store>> {
    open_with(url, &Options::default())
}

/// As [`open`], with other limits or a gate.
pub fn open_with(url: &str, options: &Options) -> Result<Arc<dyn Store>> {
    let location = Location::parse(url)?;
    match location.scheme.as_str() {
        "file" => Ok(Arc::new(FileStore::new(location.directory()?).with_gate(options.gate.clone()))),
        "s3" => {
            let env = s3::environment(options.env.clone());
            let config = s3::Config::new(&location, &env)?;
            Ok(Arc::new(s3::S3Store::new(config, env, options)))
        }
        _ => Err(location.unknown_scheme()),
    }
}

/// What is unfinished for so long is nobody's any more.
const SWEEP_AGE_MS: i64 = 24 * 3_600_000;

fn no_object(url: &str, key: &str) -> Error {
    Error::new(Kind::NotFound, format!("{url}: there is no object {key}"))
}

fn replaced(url: &str, key: &str) -> Error {
    Error::new(Kind::Conflict, format!("{url}: {key} is another object than the one that was opened"))
}

fn too_large(url: &str, key: &str, size: u64, limit: u64) -> Error {
    Error::corrupt(format!("{url}: {key} has {size} bytes, more than the {limit} that it may have"))
}

/// The ETag, as the store gave it, quotes included; on `file://` made of inode, size and mtime.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(pub String);

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the store's URL.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// The store's own time of the object: LastModified, mtime.
    pub modified: Timestamp,
    /// Where the listing has it.
    pub etag: Option<ETag>,
}

/// What HEAD tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// In bytes.
    pub size: u64,
    /// The store's own time of the object.
    pub modified: Timestamp,
    /// Names this content of this key.
    pub etag: ETag,
    /// What was given at creation.
    pub metadata: Metadata,
}

/// The end of an object, and what HEAD tells of the same object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its ETag pins what is read further.
    pub object: Object,
    /// The last bytes; all, if the object is not longer than what was asked for.
    pub bytes: Vec<u8>,
}

/// Where a store lies, within what can be reached with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The server and the bucket; of a store that is alone, its URL.
    pub name: String,
    /// In the bucket, without slashes at the ends.
    pub path: String,
}

/// The start of an object, and what is stored beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The first bytes; all, if the object is not longer than what was asked for.
    pub bytes: Vec<u8>,
    /// [`Metadata::pairs`].
    pub pairs: Vec<(String, String)>,
    /// Pairs lie beside it that are of other content, so that they are not told. Only files can be taken apart so.
    pub has_strays: bool,
}

/// What is stored beside the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The header's timestamp (S3: `x-amz-meta-litestream-timestamp`, RFC 3339; `file://`: the mtime).
    pub timestamp: Option<Timestamp>,
    /// Further pairs; names are lower-case ASCII with hyphens (S3: `x-amz-meta-<name>`; `file://`: `<key>.meta`
    /// beside the object, a JSON object).
    pub pairs: Vec<(String, String)>,
}

/// How a conditional write ended. An unknown outcome is an error, never a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object is there, made by this call.
    Done(ETag),
    /// The condition did not hold: nothing was written by this call. After a retry whose first answer was lost it may
    /// be our own object that is in the way: the caller compares the bytes (P19).
    Refused,
}

/// An object being written, of a length not known before. Nothing is visible until `finish`; dropping it unfinished
/// leaves nothing behind that a listing shows.
pub trait Upload: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes the object visible if none has that key (P20).
    fn finish_if_absent(self: Box<Self>) -> Result<Put>;
}

/// A place that keeps objects. Implementations are shared by all threads of the process.
pub trait Store: Send + Sync {
    /// The URL without credentials, for messages.
    fn url(&self) -> &str;
    /// All objects whose key starts with `prefix`, complete, in ascending order of key. No such prefix: empty.
    fn list(&self, prefix: &str) -> Result<Vec<Entry>>;
    /// The object's size, ETag and metadata; `None` if there is none.
    fn head(&self, key: &str) -> Result<Option<Object>>;
    /// The whole object; `None` if there is none. At most `limit` bytes, more is an error.
    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, ETag)>>;
    /// Bytes of the object, exactly as many as asked for unless the object ends before. With `if_match`, an object with
    /// another ETag is [`Kind::Conflict`](crate::error::Kind::Conflict). No object: [`Kind::NotFound`](crate::error::Kind::NotFound).
    fn get_range(&self, key: &str, range: Range<u64>, if_match: Option<&ETag>) -> Result<Vec<u8>>;
    /// The first `length` bytes of the object, all of it if it is shorter, and the pairs of its metadata. Else as
    /// [`get_range`](Self::get_range), and counted as one.
    fn get_start(&self, key: &str, length: u64, if_match: Option<&ETag>) -> Result<Start>;
    /// The last `length` bytes of the object as it is now, whatever caches lie between, all of it if it is shorter, and
    /// what [`head`](Self::head) would tell; `None` if there is none. One request, counted as a GET (R9).
    fn get_end(&self, key: &str, length: u64) -> Result<Option<Ending>>;
    /// Creates or replaces. For objects whose content does not matter; never for LTX files (P20).
    fn put(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<ETag>;
    /// Creates, if no object has that key (P20).
    fn put_if_absent(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<Put>;
    /// Replaces, if the object has that ETag.
    fn put_if_match(&self, key: &str, bytes: &[u8], metadata: &Metadata, etag: &ETag) -> Result<Put>;
    /// Starts an object of unknown length. `expected` is an upper bound of its size in bytes.
    fn upload(&self, key: &str, metadata: &Metadata, expected: u64) -> Result<Box<dyn Upload>>;
    /// Removes the object; absent is success.
    fn delete(&self, key: &str) -> Result<()>;
    /// Copies within the store, metadata given anew; refused if the target exists, where the store can tell.
    fn copy(&self, from: &str, to: &str, metadata: &Metadata) -> Result<Put>;
    /// Where it lies.
    fn place(&self) -> Place {
        Place { name: self.url().to_owned(), path: String::new() }
    }
    /// The store at another path of the same place; `None` if it is alone.
    fn at_path(&self, _path: &str) -> Option<Arc<dyn Store>> {
        None
    }
    /// Proves that creations are refused where an object is (P29), or that nobody asks for that. Every creation does the
    /// same before; here it is said early.
    fn prove_conditions(&self) -> Result<()> {
        Ok(())
    }
    /// Removes what writers that died left unfinished: multipart uploads, temporary files. Only what is older than a day,
    /// so that nobody's work of today is lost, a primary's that starts elsewhere in this moment included. Says how much.
    fn sweep(&self) -> Result<usize> {
        Ok(0)
    }
    /// The store's clock minus ours, in milliseconds, as of its last answer (P22); 0 where the clock is ours.
    fn clock_offset_ms(&self) -> i64;
    /// What the last attempt failed of, and when, while its call is being repeated inside the store.
    fn trouble(&self) -> Option<(Error, Timestamp)> {
        None
    }
    /// What was asked of the store so far.
    fn counters(&self) -> Counters;
}

/// Requests and bytes since the store was opened; bytes are payload, without headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what its name says")]
pub struct Counters {
    pub get: u64,
    pub put: u64,
    pub list: u64,
    pub head: u64,
    pub delete: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}
