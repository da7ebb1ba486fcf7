//! The zones of a federation as data: the DevEUI table, snapshots, deltas and the answers to queries.
//!
//! No I/O, no clock, no randomness: bytes in, bytes out. So everything here can be fuzzed, simulated and replayed.
//!
//! | module | what |
//! |---|---|
//! | [`table`] | the devices, packed, with snapshots |
//! | [`delta`] | what changes between two serials, and its stored form |
//! | [`zones`] | one snapshot of the three zones |
//! | [`wire`] | DNS messages: reading a query, writing a response |
//! | [`answer`] | the answer to a query on one snapshot |
//! | [`policy`] | who may resolve whose devices |
//! | [`presentation`] | zones as RFC 1035 text |
//! | [`tsig`] | signatures of messages |
//! | [`transfer`] | zone transfers, out and in |

pub mod answer;
pub mod delta;
pub mod policy;
pub mod presentation;
pub mod table;
pub mod transfer;
pub mod tsig;
pub mod update;
pub mod wire;
pub mod zones;
