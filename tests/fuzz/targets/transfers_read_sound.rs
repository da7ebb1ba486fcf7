//! Messages of a primary: whatever they say, they are taken within bounds or refused, and what is taken has a closing
//! SOA. The first octet says what was asked for; messages follow, each behind two octets of length.
#![no_main]

use dnsbroker_federation::{DomainName, Serial};
use dnsbroker_zone::transfer::inbound::{Asked, Bounds, Content, Inbound};
use dnsbroker_zone::tsig::{Algorithm, Chain, Key, Signature};
use dnsbroker_zone::wire::message::Message;
use libfuzzer_sys::fuzz_target;

const BOUNDS: Bounds = Bounds { records: 500, octets: 4_000 };

fuzz_target!(|data: &[u8]| {
    let Some((what, mut rest)) = data.split_first() else { return };
    let zone: DomainName = "z.example".parse().expect("a name");
    let asked = if what & 1 == 0 { Asked::Whole } else { Asked::Since(Serial::new(u32::from(*what))) };
    let mut inbound = Inbound::new(&zone, asked, [0, 7], &[], BOUNDS);
    let (mut complete, mut failed) = (false, false);
    while let Some((length, body)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(body.len());
        let (message, next) = body.split_at(length);
        rest = next;
        signed(message);
        match inbound.take(message) {
            Ok(done) => complete = done,
            Err(_) => {
                failed = true;
                break;
            }
        }
        assert!(inbound.tally().records <= BOUNDS.records && inbound.tally().octets <= BOUNDS.octets);
        if complete {
            break;
        }
    }
    let finished = inbound.finish();
    if failed {
        return;
    }
    assert_eq!(finished.is_ok(), complete, "what has its closing SOA is complete, and nothing else");
    match finished.map(|received| received.content) {
        Ok(Content::Whole(devices)) => {
            assert!(devices.is_sorted() && devices.windows(2).all(|pair| pair[0] != pair[1]))
        }
        Ok(Content::Difference { came, gone }) => assert!(came.iter().all(|device| !gone.contains(device))),
        Ok(Content::Current) | Err(_) => {}
    }
});

/// Nobody's signature verifies, and none panics.
fn signed(octets: &[u8]) {
    let Ok(message) = Message::new(octets) else { return };
    let key = Key::new("k.example".parse().expect("a name"), Algorithm::HmacSha256, b"a secret that nobody guesses");
    if let Ok(Some(signature)) = Signature::of(message) {
        assert!(dnsbroker_zone::tsig::verify(message, &signature, Some(key.clone()), 1).is_err());
    }
    let mut query = vec![0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(Chain::request(key, &mut query, 1).verify(message, 1).is_err());
}
