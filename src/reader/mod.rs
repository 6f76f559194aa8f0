//! The replica: states of a database, read page by page from a store, for connections that may follow the primary.
//!
//! | File | Holds |
//! |---|---|
//! | `connected` | one open file of SQLite: what it sees, and from when to when |
//! | `source` | one replica, shared by the connections that read it: fetching pages, each once (R8) |
//! | `open` | from a plan to a state (R5) |
//! | `follow` | the next state (R2, R9) |
//! | `state` | what one transaction sees (R10, R11) |
//! | `index`, `lazy` | where the pages of a state are; of large objects in part only (R6) |
//! | `object` | an LTX object, by its content (R1) |
//! | `prefetch`, `rows`, `trees`, `btree` | what is fetched before it is asked for (R8): along siblings and chains, by an index |
//! | `disk` | pages kept between processes (R14) |
//! | `hydrate`, `hydrating`, `sidecar` | a copy in a local file, made in the background (R13) |
//! | `session` | whether the primary is alive (P28) |
//! | `verified` | what is copied, as a whole (R7) |
//! | `cache`, `flight` | what all replicas of the process share: pages, requests under way, threads |

mod btree;
mod cache;
mod connected;
mod copies;
mod disk;
mod flight;
mod follow;
mod hydrate;
mod hydrating;
mod index;
mod lazy;
mod object;
mod open;
mod prefetch;
mod rows;
mod session;
mod sidecar;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod trees;
mod verified;

pub use connected::{Connected, Settings, Status, connect, statuses};
