//! Bad input on every served call and on the wire: always an answer of PVE's kind, never a panic, a stray file or a change.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may stop anywhere")]

#[path = "../support/client.rs"]
mod client;
mod judge;
mod parameters;
mod single;
mod subject;
mod transport;
