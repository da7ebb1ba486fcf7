//! Which broker takes changes: the primary says where it is, and a standby takes its place.
//!
//! An epoch counts how often that happened. A broker that meets a higher one than its own is not the primary any more, and
//! takes no changes from then on.

use std::net::IpAddr;
use std::sync::Arc;

use dnsbroker_federation::{DomainName, Serial};
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::record::Primary;
use crate::refusal::Refusal;
use crate::store::PRIMARY_KEY;
use crate::transaction::{Note, Transaction};

/// How far the serial goes ahead when a standby takes over: further than the changes that the old primary may have
/// served and not sent. Secondaries take the zones anew.
const SERIALS_AHEAD: u32 = 1 << 20;

/// Where a broker is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Its name.
    pub name: DomainName,
    /// Where it answers DNS over HTTPS; empty where it does not.
    pub doh_url: String,
    /// Where its API is; empty where it has none.
    pub api_url: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The primary says where it is, which standbys and members are told.
pub struct SetPrimary(pub Reached);

impl Act for SetPrimary {
    type Done = Arc<Primary>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let known = transaction.view.primary.clone();
        let epoch = known.as_ref().map_or(0, |known| known.epoch);
        let since = known.as_ref().map_or(transaction.now(), |known| known.since);
        let primary = self.0.at(epoch, since);
        if known.as_deref() == Some(&primary) {
            return Ok((Arc::new(primary), None));
        }
        let note = primary.note("primary.set");
        Ok((transaction.write_primary(primary)?, Some(note)))
    }
}

/// A standby takes the place of the primary.
pub struct Promote(pub Reached);

impl Act for Promote {
    type Done = Arc<Primary>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let epoch = transaction.view.primary.as_ref().map_or(0, |known| known.epoch) + 1;
        let primary = self.0.at(epoch, transaction.now());
        let ahead = transaction.view.zones.serial().get().wrapping_add(SERIALS_AHEAD);
        transaction.break_history_at(Serial::new(ahead));
        let note = primary.note("primary.promote");
        Ok((transaction.write_primary(primary)?, Some(note)))
    }
}

impl Reached {
    fn at(self, epoch: u64, since: i64) -> Primary {
        let Self { name, doh_url, api_url, addresses } = self;
        Primary { epoch, name, doh_url, api_url, addresses, since }
    }
}

impl Primary {
    fn note(&self, act: &'static str) -> Note {
        let Self { epoch, doh_url, api_url, addresses, .. } = self;
        let detail = json!({ "epoch": epoch, "doh_url": doh_url, "api_url": api_url, "addresses": addresses });
        Note::new(act, &self.name, detail)
    }
}

impl Transaction<'_> {
    fn write_primary(&mut self, primary: Primary) -> Result<Arc<Primary>, Refusal> {
        self.put(Table::Meta, PRIMARY_KEY, &primary)?;
        let primary = Arc::new(primary);
        self.view.primary = Some(Arc::clone(&primary));
        Ok(primary)
    }
}
