//! Objects of unknown length: one PUT if they fit in a part, a multipart upload else (P34).

use super::multipart::{Multipart, part_bytes};
use super::requests::{Call, Connection};
use crate::error::{Error, Result};
use crate::store::{Metadata, Put, Upload};
use bytes::Bytes;
use std::sync::Arc;

/// P34.
const PART_BYTES_DEFAULT: u64 = 8 << 20;
/// What is announced to be no larger goes in one PUT, which costs less than two parts do: in requests, in time, and in
/// memory, of which parts on their way need as much each.
const ONE_PUT_BYTES_MAX: u64 = 16 << 20;
/// Parts on their way, where neither the URL nor the provider says otherwise.
const PARALLEL_DEFAULT: usize = 3;
/// In parts on their way, so that an upload stays below 64 MiB of memory with the part that is being filled. A part may
/// be larger, of a database of more than 280 GiB: then one is on its way.
const BYTES_UNDER_WAY_MAX: u64 = 32 << 20;

/// An object on its way.
pub(super) struct S3Upload {
    connection: Arc<Connection>,
    key: String,
    metadata: Metadata,
    part_bytes: usize,
    buffer: Vec<u8>,
    /// Once the first part is full.
    multipart: Option<Multipart>,
}

impl S3Upload {
    pub(super) fn new(connection: Arc<Connection>, key: &str, metadata: &Metadata, expected: u64) -> Self {
        let default = if expected <= ONE_PUT_BYTES_MAX { expected.max(PART_BYTES_DEFAULT) } else { PART_BYTES_DEFAULT };
        let wanted = connection.config.part_size.unwrap_or(default);
        let part_bytes = usize::try_from(part_bytes(&connection, wanted, expected)).unwrap_or(usize::MAX);
        let (key, metadata) = (key.to_owned(), metadata.clone());
        Self { connection, key, metadata, part_bytes, buffer: Vec::new(), multipart: None }
    }

    /// Sends the buffer as the next part.
    fn send_part(&mut self) -> Result<()> {
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let multipart = match &mut self.multipart {
            Some(multipart) => multipart,
            None => {
                let config = &self.connection.config;
                let wanted = config.concurrency.or(config.provider.concurrency).unwrap_or(PARALLEL_DEFAULT);
                let fit = usize::try_from(BYTES_UNDER_WAY_MAX / self.part_bytes as u64).unwrap_or(1);
                let made = Multipart::create(&self.connection, &self.key, &self.metadata, wanted.min(fit))?;
                self.multipart.insert(made)
            }
        };
        multipart.part(bytes, |call| call)
    }
}

impl Upload for S3Upload {
    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.buffer.len() >= self.part_bytes {
                self.send_part()?;
            }
            let room = self.part_bytes - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn finish_if_absent(mut self: Box<Self>) -> Result<Put> {
        if self.multipart.is_none() {
            let body = Bytes::from(std::mem::take(&mut self.buffer));
            return self.connection.put(Call::put(&self.key).if_absent(), &self.key, body, &self.metadata);
        }
        self.send_part()?; // never empty: a full part waits until more comes
        self.multipart.take().ok_or_else(|| Error::bug("an upload ended twice"))?.complete_if_absent()
    }
}
