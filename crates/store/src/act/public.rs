//! The serial of the public zone: one more whenever its records differ from those of the last start or reload.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Act;
use crate::audit::hash;
use crate::engine::Table;
use crate::refusal::Refusal;
use crate::store::PUBLIC_KEY;
use crate::transaction::{Note, Transaction};

/// Asks for the serial that goes with these records.
pub struct PublishPublic {
    /// The records in any stable form; only their digest is kept.
    pub records: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    digest: String,
    serial: u32,
}

impl Act for PublishPublic {
    type Done = u32;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(u32, Option<Note>), Refusal> {
        let digest = hash(&self.records);
        let row = transaction.stored(Table::Meta, PUBLIC_KEY)?;
        let row: Option<Row> = row.map(|row| serde_json::from_slice(&row)).transpose()?;
        let serial = match row {
            Some(row) if row.digest == digest => return Ok((row.serial, None)),
            Some(row) => dnsbroker_federation::Serial::new(row.serial).next().get(),
            None => 1,
        };
        transaction.put(Table::Meta, PUBLIC_KEY, &Row { digest, serial })?;
        let name = transaction.view().zones.names().apex(dnsbroker_federation::Zone::Public).to_string();
        Ok((serial, Some(Note::new("public.publish", name, json!({ "serial": serial })))))
    }
}
