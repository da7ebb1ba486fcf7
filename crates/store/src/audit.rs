//! The audit: one row an act, each with the hash of the row before, so that a row cannot be changed, dropped or put in
//! between without breaking the chain.
//!
//! The hash of a row is SHA-256 over its octets as stored; the row's `previous` is the hash of the row before it, and
//! the store's head is the hash of the last.

use std::ops::ControlFlow;

use aws_lc_rs::digest::{SHA256, digest};
use dnsbroker_federation::{MemberId, Serial};
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, EngineError, Table};
use crate::record::Seconds;

/// One act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Counted from 1.
    pub number: u64,
    /// When.
    pub at: Seconds,
    /// Who, by which identity.
    pub actor: String,
    /// What was done: `member.add`, `devices.import`...
    pub act: String,
    /// To what.
    pub object: String,
    /// Particulars.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
    /// The serial that the private zones had afterwards.
    pub serial: Serial,
    /// The members whose business it is, beside the administrators'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concerns: Vec<MemberId>,
    /// Hash of the row before, in hexadecimal.
    pub previous: String,
}

/// The end of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of the last row; 0 where there is none.
    pub number: u64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { number: 0, hash: "0".repeat(64) }
    }
}

/// What a check of the chain found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Rows read.
    pub rows: u64,
    /// The first row that does not fit, and why.
    pub broken: Option<String>,
    /// The end of the chain.
    pub head: Head,
}

/// SHA-256 in hexadecimal.
pub(crate) fn hash(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    // Each update has a row: one allocation and not one an octet.
    let mut text = String::with_capacity(64);
    for octet in digest(&SHA256, octets).as_ref() {
        text.extend([digit(octet >> 4), digit(octet & 15)]);
    }
    text
}

/// Whether a row is wanted.
type Wanted<'a> = dyn Fn(&Row) -> bool + 'a;

/// Wanted rows in order, from a number on, at most `limit`.
pub fn list(engine: &dyn Engine, from: u64, limit: usize, wanted: &Wanted<'_>) -> Result<Vec<Row>, EngineError> {
    let mut rows = Vec::new();
    engine.scan(Table::Audit, &from.to_be_bytes(), &mut |_, value| taken(&mut rows, value, limit, wanted))?;
    Ok(rows)
}

/// The same in reverse order, from a number down.
pub fn list_back(engine: &dyn Engine, from: u64, limit: usize, wanted: &Wanted<'_>) -> Result<Vec<Row>, EngineError> {
    let mut rows = Vec::new();
    engine.scan_back(Table::Audit, &from.to_be_bytes(), &mut |_, value| taken(&mut rows, value, limit, wanted))?;
    Ok(rows)
}

fn taken(rows: &mut Vec<Row>, value: &[u8], limit: usize, wanted: &Wanted<'_>) -> ControlFlow<()> {
    rows.extend(serde_json::from_slice::<Row>(value).ok().filter(|row| wanted(row)));
    if rows.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The hash of a row, if there is one with this number: what a published head is compared with.
pub fn hash_of(engine: &dyn Engine, number: u64) -> Result<Option<String>, EngineError> {
    Ok(engine.get(Table::Audit, &number.to_be_bytes())?.map(|row| hash(&row)))
}

/// Reads the whole chain and compares it with the head.
pub fn verify(engine: &dyn Engine, head: &Head) -> Result<Verdict, EngineError> {
    let mut last = Head::default();
    let mut broken = None;
    engine.scan(Table::Audit, &[], &mut |_, value| {
        let number = last.number + 1;
        let problem = match serde_json::from_slice::<Row>(value) {
            Err(error) => Some(format!("row {number} does not read: {error}")),
            Ok(row) if row.number != number => Some(format!("row {number} is missing: row {} follows", row.number)),
            Ok(row) if row.previous != last.hash => {
                Some(format!("row {number} does not follow from row {}", last.number))
            }
            Ok(_) => None,
        };
        if problem.is_some() {
            broken = problem;
            return ControlFlow::Break(());
        }
        last = Head { number, hash: hash(value) };
        if number > head.number { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if broken.is_none() && last.number < head.number {
        broken = Some(format!("the last row is {}, and {} were written", last.number, head.number));
    }
    if broken.is_none() && last.number == head.number && last != *head {
        broken = Some(format!("row {} is not the one that was written", last.number));
    }
    Ok(Verdict { rows: last.number, broken, head: last })
}
