//! Updates: whatever comes in is read or refused with a code of RFC 2136, and what is read names devices and NetIDs only.
#![no_main]

use std::sync::{Arc, OnceLock};

use dnsbroker_federation::{Namespace, Serial, ZoneLabels};
use dnsbroker_zone::table::Devices;
use dnsbroker_zone::update::{Change, MAX_RECORDS, Prerequisite, parse};
use dnsbroker_zone::wire::Rcode;
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::zones::Zones;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    static ZONES: OnceLock<Zones> = OnceLock::new();
    let zones = ZONES.get_or_init(|| {
        let (federation, broker) = ("fed.example".parse().expect("a name"), "b.fed.example".parse().expect("a name"));
        let names = Namespace::new(federation, broker, &ZoneLabels::default()).expect("names");
        Zones::new(Arc::new(names), Serial::FIRST, Devices::default(), [])
    });
    let Ok(message) = Message::new(data) else { return };
    match parse(message, zones) {
        Err(error) => {
            let known = [Rcode::FORMERR, Rcode::REFUSED, Rcode::NOTAUTH, Rcode::NOTZONE];
            assert!(known.contains(&error.rcode) && !error.words.is_empty());
        }
        Ok(update) => {
            assert!(update.prerequisites.len() + update.changes.len() <= MAX_RECORDS);
            let records = usize::from(message.count(1)) + usize::from(message.count(2));
            assert_eq!(update.prerequisites.len() + update.changes.len(), records, "each record means one thing");
            for prerequisite in &update.prerequisites {
                let (Prerequisite::Registered { otherwise, .. } | Prerequisite::Absent { otherwise, .. }) =
                    prerequisite
                else {
                    continue;
                };
                assert_ne!(*otherwise, Rcode::NOERROR);
            }
            for change in &update.changes {
                let (Change::Set(device, _) | Change::Remove(device, _)) = change;
                assert!(device.as_u64() != 0 && device.as_u64() != u64::MAX);
            }
        }
    }
});
