//! Whose store it is, and in which format: checked before anything else is read.

use dnsbroker_federation::{DomainName, ZoneLabels};
use serde::{Deserialize, Serialize};

use crate::engine::{Batch, Engine, EngineError, Table};
use crate::store::OpenError;

/// The format this program writes. A store of a lower format is migrated when it is opened, one of a higher format is
/// refused by name.
///
/// Format 2 added policy, claims, moves, limits and accounts, all in tables and rows of their own: a store of format 1 has
/// none of them and is opened as it is. The number keeps format 1's program from opening a store whose policy it would
/// not know, and so not keep.
pub const FORMAT: u32 = 2;
/// The oldest format that is opened.
const OLDEST: u32 = 1;

/// Names that are burnt into the data: certificates name the federation, replicas know the zones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The federation's name.
    pub federation: DomainName,
    /// Labels of the private zones.
    pub labels: ZoneLabels,
}

const FORMAT_KEY: &[u8] = b"format";
const IDENTITY_KEY: &[u8] = b"identity";

impl Identity {
    /// Writes format and identity into a store that has neither.
    pub(crate) fn create(&self, engine: &dyn Engine, batch: &mut Batch) -> Result<(), OpenError> {
        if engine.get(Table::Meta, FORMAT_KEY)?.is_some() {
            return Err(OpenError::Exists);
        }
        batch.put(Table::Meta, FORMAT_KEY, FORMAT.to_string());
        batch.put(Table::Meta, IDENTITY_KEY, serde_json::to_vec(self).map_err(OpenError::row("identity"))?);
        Ok(())
    }

    /// Checks that the store is of this identity and of a format we know, and makes it ours.
    pub(crate) fn check(&self, engine: &dyn Engine) -> Result<(), OpenError> {
        let mut migration = Batch::default();
        match format(engine)? {
            None => return Err(OpenError::Missing),
            Some(FORMAT) => {}
            Some(OLDEST..FORMAT) => migration.put(Table::Meta, FORMAT_KEY, FORMAT.to_string()),
            Some(found) if found > FORMAT => return Err(OpenError::Newer { found, known: FORMAT }),
            Some(found) => return Err(OpenError::Older { found, known: FORMAT }),
        }
        let row = engine.get(Table::Meta, IDENTITY_KEY)?.ok_or(OpenError::Missing)?;
        let found: Self = serde_json::from_slice(&row).map_err(OpenError::row("identity"))?;
        if &found != self {
            return Err(OpenError::Foreign(Box::new((found, self.clone()))));
        }
        if !migration.is_empty() {
            engine.commit(migration)?;
        }
        Ok(())
    }
}

fn format(engine: &dyn Engine) -> Result<Option<u32>, EngineError> {
    let row = engine.get(Table::Meta, FORMAT_KEY)?;
    // What is no number was not written by a version we know: newer than all.
    Ok(row.map(|row| std::str::from_utf8(&row).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)))
}
