//! What the configuration puts into the zones, and the serials that go with it: one more whenever it differs from that
//! of the last start or reload.

use dnsbroker_federation::{DomainName, Serial, Zone};
use dnsbroker_zone::zones::Timing;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Act;
use crate::audit::hash;
use crate::engine::{Engine, Table};
use crate::refusal::Refusal;
use crate::store::OpenError;
use crate::store::{PRIVATE_KEY, PUBLIC_KEY, PUBLIC_RECORDS_KEY};
use crate::transaction::{Note, Transaction};

/// Asks for the serial that goes with these records.
pub struct PublishPublic {
    /// The records in any stable form, which is kept, so that a standby serves the same.
    pub records: Vec<u8>,
}

/// Gives the private zones a new serial if their times or the broker's name are others than before. Every record has a
/// TTL and the apexes name the broker, so secondaries fetch them whole.
pub struct PublishPrivate {
    /// The times.
    pub timing: Timing,
    /// The broker's name.
    pub broker: DomainName,
}

/// What was published last: what a standby serves, whatever its own configuration says.
pub struct PublishedZones {
    /// The times of the private zones.
    pub timing: Timing,
    /// The broker's name in them.
    pub broker: DomainName,
    /// The serial of the public zone.
    pub public_serial: u32,
    /// Its records, in the form in which they were given.
    pub public_records: Vec<u8>,
}

impl PublishedZones {
    /// Reads it; nothing before anything was published.
    pub fn read(engine: &dyn Engine) -> Result<Option<Self>, OpenError> {
        let get = |key| engine.get(Table::Meta, key);
        let (Some(private), Some(public)) = (get(PRIVATE_KEY)?, get(PUBLIC_KEY)?) else { return Ok(None) };
        let Private { timing, broker } = serde_json::from_slice(&private).map_err(OpenError::row("private"))?;
        let Row { serial: public_serial, .. } = serde_json::from_slice(&public).map_err(OpenError::row("public"))?;
        let public_records = get(PUBLIC_RECORDS_KEY)?.unwrap_or_default();
        Ok(Some(Self { timing, broker, public_serial, public_records }))
    }
}

#[derive(Serialize, Deserialize, PartialEq)]
struct Private {
    timing: Timing,
    broker: DomainName,
}

impl Act for PublishPrivate {
    type Done = Serial;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Serial, Option<Note>), Refusal> {
        let wanted = Private { timing: self.timing, broker: self.broker };
        let row = transaction.stored(Table::Meta, PRIVATE_KEY)?;
        let known: Option<Private> = row.map(|row| serde_json::from_slice(&row)).transpose()?;
        if known.as_ref() == Some(&wanted) {
            return Ok((transaction.view().zones.serial(), None));
        }
        transaction.put(Table::Meta, PRIVATE_KEY, &wanted)?;
        // Of a new store nobody has a copy.
        if known.is_some() {
            transaction.break_history();
        }
        let serial = transaction.view().zones.serial();
        let detail = json!({ "timing": wanted.timing, "broker": wanted.broker, "serial": serial });
        let name = transaction.view().zones.names().apex(Zone::DevEui).to_string();
        Ok((serial, Some(Note::new("private.publish", name, detail))))
    }
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
            Some(row) if row.digest == digest && transaction.stored(Table::Meta, PUBLIC_RECORDS_KEY)?.is_some() => {
                return Ok((row.serial, None));
            }
            // An earlier program kept the digest alone.
            Some(row) if row.digest == digest => row.serial,
            Some(row) => Serial::new(row.serial).next().get(),
            None => 1,
        };
        transaction.put(Table::Meta, PUBLIC_KEY, &Row { digest, serial })?;
        transaction.batch.put(Table::Meta, PUBLIC_RECORDS_KEY, self.records);
        let name = transaction.view().zones.names().apex(Zone::Public).to_string();
        Ok((serial, Some(Note::new("public.publish", name, json!({ "serial": serial })))))
    }
}
