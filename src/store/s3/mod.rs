//! `s3://`: Amazon S3 and what speaks its protocol, in Litestream's key layout (FORMATS 9).
//!
//! Nothing is created without If-None-Match or replaced without If-Match where that matters (P20); what the answers
//! mean is in [`answers`]. A key is `<path of the URL>/<key>`; with an empty path it starts with a slash, as
//! Litestream's do.

mod answers;
mod conditions;
mod config;
mod copy;
mod credentials;
mod ending;
mod hosts;
mod keys;
mod multipart;
mod object;
mod providers;
mod requests;
mod sign;
mod upload;
mod xml;

pub(super) use config::Config;
pub(super) use sign::environment;

use super::names::{check_key, check_metadata};
use super::tally::Tally;
use super::{Counters, ETag, Ending, Entry, Metadata, Object, Options, Place, Put, SWEEP_AGE_MS, Start, Store, Upload};
use crate::error::{Context, Error, Kind, Result};
use crate::time::Timestamp;
use bytes::Bytes;
use requests::{Call, Connection};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// A page of a listing is smaller: 1,000 rows of at most 1,024 bytes of key, escaped, and some words.
const PAGE_BYTES_MAX: u64 = 16 << 20;
/// A listing longer than that is an error, not an endless loop.
const LIST_ROWS_MAX: usize = 10_000_000;

/// A store in a bucket.
pub(super) struct S3Store(Arc<Connection>);

impl S3Store {
    /// Sends nothing yet.
    pub(super) fn new(config: Config, env: HashMap<String, String>, options: &Options) -> Self {
        Self(Arc::new(Connection::new(config, env, options)))
    }

    /// One PUT, under the condition of `call`.
    fn write(&self, call: Call, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<Put> {
        check_key(key)?;
        check_metadata(metadata)?;
        self.0.put(call, key, Bytes::copy_from_slice(bytes), metadata)
    }

    /// One GET of a range. The pairs are the object's, whatever part of it was asked for.
    fn part(&self, key: &str, range: Range<u64>, if_match: Option<&ETag>) -> Result<Start> {
        check_key(key)?;
        // No object is longer than 2^63 bytes, and some servers read offsets as signed numbers.
        let (start, end) = (range.start, range.end.min(i64::MAX as u64));
        if start >= end {
            return Ok(Start::default());
        }
        let what = self.0.what("get", key);
        let mut call = Call::get(key).header("range", &format!("bytes={start}-{}", end - 1));
        call = call.answer_bytes_max(end - start);
        if let Some(etag) = if_match {
            call = call.header("if-match", &etag.0);
        }
        let answer = self.0.send(call, Bytes::new())?;
        let pairs = object::pairs(&answer);
        let bytes = match answer.status.as_u16() {
            206 => object::ranged(answer, start..end).context(what)?,
            // A part under the status of a whole, from rclone.
            200 if answer.header("content-range").is_some() => object::ranged(answer, start..end).context(what)?,
            // The whole object, by a store that ignores ranges, or of an empty object.
            200 if start == 0 => answer.body,
            416 => Vec::new(),
            412 => return Err(super::replaced(&self.0.config.shown, key)),
            404 if answers::is_of_object(&answer) => return Err(super::no_object(&self.0.config.shown, key)),
            200 => {
                let why = "the store ignores ranges, without which pages cannot be read";
                return Err(Error::invalid(format!("{what}: {why}")));
            }
            _ => return Err(answers::failure(&what, &answer)),
        };
        Ok(Start { bytes, pairs, has_strays: false })
    }
}

impl Store for S3Store {
    fn url(&self) -> &str {
        &self.0.config.shown
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>> {
        let what = self.0.what("list", prefix);
        let full = format!("{}{prefix}", self.0.config.prefix);
        let (mut rows, mut next) = (Vec::new(), None::<String>);
        loop {
            let mut call = Call::list().query("list-type", "2").query("max-keys", "1000").query("prefix", &full);
            if let Some(token) = &next {
                call = call.query("continuation-token", token);
            }
            let answer = self.0.send(call.answer_bytes_max(PAGE_BYTES_MAX), Bytes::new())?;
            if !answer.status.is_success() {
                return Err(answers::failure(&what, &answer));
            }
            let page = xml::page(&answer.body).context(&what)?;
            let own = page.entries.into_iter().filter_map(|entry| {
                let key = entry.key.strip_prefix(&self.0.config.prefix)?.to_owned();
                // What no call could name, as the folders that web consoles make, is not an object of ours; nor is
                // the one by which the store was tried.
                let is_object = check_key(&key).is_ok() && key != conditions::KEY;
                (key.starts_with(prefix) && is_object).then_some(Entry { key, ..entry })
            });
            rows.extend(own);
            if page.next.is_none() {
                break;
            }
            if page.next == next || rows.len() > LIST_ROWS_MAX {
                return Err(Error::corrupt(format!("{what}: the listing does not end")));
            }
            next = page.next;
        }
        // Some stores order by path segments rather than by bytes.
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }

    fn head(&self, key: &str) -> Result<Option<Object>> {
        check_key(key)?;
        self.0.head(key)
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, ETag)>> {
        check_key(key)?;
        let what = self.0.what("get", key);
        let answer = self.0.send(Call::get(key).answer_bytes_max(limit), Bytes::new())?;
        match answer.status.as_u16() {
            200 => {
                let etag = object::etag(&answer).context(&what)?;
                Ok(Some((answer.body, etag)))
            }
            404 if answers::is_of_object(&answer) => Ok(None),
            _ => Err(answers::failure(&what, &answer)),
        }
    }

    fn get_range(&self, key: &str, range: Range<u64>, if_match: Option<&ETag>) -> Result<Vec<u8>> {
        Ok(self.part(key, range, if_match)?.bytes)
    }

    fn get_start(&self, key: &str, length: u64, if_match: Option<&ETag>) -> Result<Start> {
        self.part(key, 0..length, if_match)
    }

    fn get_end(&self, key: &str, length: u64) -> Result<Option<Ending>> {
        check_key(key)?;
        ending::get_end(self, key, length)
    }

    fn put(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<ETag> {
        match self.write(Call::put(key), key, bytes, metadata)? {
            Put::Done(etag) => Ok(etag),
            Put::Refused => Err(Error::new(Kind::Conflict, self.0.what("put", key) + ": refused without a condition")),
        }
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8], metadata: &Metadata) -> Result<Put> {
        conditions::prove(&self.0)?;
        self.write(Call::put(key).if_absent(), key, bytes, metadata)
    }

    fn put_if_match(&self, key: &str, bytes: &[u8], metadata: &Metadata, etag: &ETag) -> Result<Put> {
        self.write(Call::put(key).if_match(etag), key, bytes, metadata)
    }

    fn upload(&self, key: &str, metadata: &Metadata, expected: u64) -> Result<Box<dyn Upload>> {
        check_key(key)?;
        check_metadata(metadata)?;
        conditions::prove(&self.0)?;
        Ok(Box::new(upload::S3Upload::new(Arc::clone(&self.0), key, metadata, expected)))
    }

    fn delete(&self, key: &str) -> Result<()> {
        check_key(key)?;
        let answer = self.0.send(Call::delete(key), Bytes::new())?;
        if answer.status.is_success() || (answer.status.as_u16() == 404 && answers::is_of_object(&answer)) {
            return Ok(());
        }
        Err(answers::failure(&self.0.what("delete", key), &answer))
    }

    fn copy(&self, from: &str, to: &str, metadata: &Metadata) -> Result<Put> {
        check_key(from)?;
        check_key(to)?;
        check_metadata(metadata)?;
        conditions::prove(&self.0)?;
        copy::copy(&self.0, from, to, metadata)
    }

    fn place(&self) -> Place {
        let config = &self.0.config;
        let name = format!("{}{} {}", config.origin, config.base_path, config.bucket);
        Place { name, path: config.prefix.trim_end_matches('/').to_owned() }
    }

    fn at_path(&self, path: &str) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self(Arc::new(self.0.at_path(path)))))
    }

    fn prove_conditions(&self) -> Result<()> {
        conditions::prove(&self.0)
    }

    fn sweep(&self) -> Result<usize> {
        let now = Timestamp::now().0.saturating_add(self.0.clock_offset_ms());
        multipart::abort_older(&self.0, Timestamp(now.saturating_sub(SWEEP_AGE_MS)))
    }

    fn clock_offset_ms(&self) -> i64 {
        self.0.clock_offset_ms()
    }

    fn trouble(&self) -> Option<(Error, Timestamp)> {
        self.0.trouble()
    }

    fn counters(&self) -> Counters {
        Tally::read(&self.0.tally)
    }
}
