//! Where a name goes. Longest suffix wins; a name of a federation goes to that federation or to nobody.

use dnsbroker_federation::{DevEui, Labels, Namespace, Zone};
use dnsbroker_zone::transfer::inbound::device;

use crate::answer::is_within;

/// Where a name goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the brokers of a federation.
    Federation(usize),
    /// To all federations: a DevEUI without a suffix.
    Device(DevEui),
    /// To the upstreams.
    Upstream,
    /// Nowhere: a private name with a search domain behind it, which would tell the upstream what was heard.
    Withheld,
}

/// Decides.
pub fn route(name: &[u8], federations: &[impl AsRef<Namespace>]) -> Route {
    let longest = federations
        .iter()
        .enumerate()
        .filter(|(_, names)| is_within(name, names.as_ref().apex(Zone::Public).wire()))
        .max_by_key(|(_, names)| names.as_ref().apex(Zone::Public).wire().len());
    if let Some((index, _)) = longest {
        return Route::Federation(index);
    }
    if let Some(device) = name.split_last().and_then(|(_, labels)| device(labels)) {
        return Route::Device(device);
    }
    let private =
        |names: &Namespace| [Zone::DevEui, Zone::NetId].iter().any(|zone| has_inside(name, names.apex(*zone).wire()));
    if federations.iter().any(|names| private(names.as_ref())) { Route::Withheld } else { Route::Upstream }
}

/// Whether the labels of a zone stand somewhere in a name.
fn has_inside(name: &[u8], zone: &[u8]) -> bool {
    let zone = &zone[..zone.len() - 1];
    let mut labels = Labels::of(name);
    loop {
        if labels.rest().starts_with(zone) {
            return true;
        }
        if labels.next().is_none() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dnsbroker_federation::{DomainName, ZoneLabels};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().expect(text)
    }

    fn federations() -> Vec<Arc<Namespace>> {
        let make = |fed: &str| {
            let broker = name(fed).child("broker").expect("a name");
            Arc::new(Namespace::new(name(fed), broker, &ZoneLabels::default()).expect("valid"))
        };
        vec![make("fed.example"), make("sub.fed.example"), make("other.test")]
    }

    #[test]
    fn the_longest_suffix_wins() {
        let device: DevEui = "0004a30b001c0530".parse().expect("valid");
        for (text, expected) in [
            ("0004a30b001c0530.deveuis.fed.example", Route::Federation(0)),
            ("fed.example", Route::Federation(0)),
            ("0004a30b001c0530.deveuis.sub.fed.example", Route::Federation(1)),
            ("60002d.netids.other.test", Route::Federation(2)),
            ("xother.test", Route::Upstream),
            ("example", Route::Upstream),
            ("www.example.com", Route::Upstream),
            ("0004a30b001c0530", Route::Device(device)),
            ("0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0", Route::Device(device)),
            ("0004a30b001c053", Route::Upstream),
            // An LNS whose resolver appends a search domain.
            ("0004a30b001c0530.deveuis.fed.example.corp.test", Route::Withheld),
            ("60002d.netids.other.test.corp.test", Route::Withheld),
            ("netids.fed.example.corp.test", Route::Withheld),
            // TS002's public zone of JoinEUIs has nibbles too, and so has the reverse tree.
            ("0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.joineuis.lora-alliance.org", Route::Upstream),
            ("0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", Route::Upstream),
        ] {
            assert_eq!(route(name(text).wire(), &federations()), expected, "{text}");
        }
        assert_eq!(route(&[0], &federations()), Route::Upstream, "the root");
    }

    proptest! {
        #[test]
        fn no_private_name_goes_upstream(value in 1..u64::MAX, which in 0..3_usize, flat: bool, behind in "(\\.[a-z]{1,8}){0,3}") {
            let all = federations();
            let device = DevEui::from_u64(value).expect("in range");
            let own = if flat { all[which].flat_name(device) } else { all[which].nibble_name(device) };
            let text = own.trim_end_matches('.').to_owned() + &behind;
            prop_assert_ne!(route(name(&text).wire(), &all), Route::Upstream);
        }
    }
}
