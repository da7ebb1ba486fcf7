//! NetIDs: who holds one, and where its LNS is reached.

use std::net::IpAddr;

use dnsbroker_federation::NetId;
use dnsbroker_zone::delta::{Network, NetworkChange};
use serde_json::{Value, json};

use super::Act;
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// Addresses of a NetID at most: they all go into one answer.
pub const MAX_ADDRESSES: usize = 16;

/// Gives a NetID its holder and its LNS, or changes the latter.
pub struct SetNetwork {
    /// The NetID with all its data.
    pub network: Network,
}

impl Act for SetNetwork {
    type Done = Network;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Network, Option<Note>), Refusal> {
        let mut network = self.network;
        transaction.member(&network.member)?;
        check_addresses(&network)?;
        let before = transaction.view.zones.network(network.netid).cloned();
        if before.as_ref().is_some_and(|before| before.member != network.member) {
            return Err(Refusal::NetworkHeld { netid: network.netid });
        }
        // Anchors are published apart, and stay.
        network.tlsa = before.as_ref().map(|before| before.tlsa.clone()).unwrap_or_default();
        if network.port.is_none() && !network.tlsa.is_empty() {
            return Err(Refusal::NoPort(network.netid));
        }
        if before.as_ref() == Some(&network) {
            return Ok((network, None));
        }
        let detail = json!({
            "member": network.member, "addresses": network.addresses, "port": network.port, "target": network.target,
        });
        let note = Note::new("netid.set", network.netid, detail);
        transaction.change_zones(vec![], vec![NetworkChange { before, after: Some(network.clone()) }])?;
        Ok((network, Some(note)))
    }
}

fn check_addresses(network: &Network) -> Result<(), Refusal> {
    let netid = network.netid;
    match network.addresses.len() {
        0 => return Err(Refusal::NoAddress(netid)),
        1..=MAX_ADDRESSES => {}
        count => return Err(Refusal::TooManyAddresses { netid, count, limit: MAX_ADDRESSES }),
    }
    let unreachable = |address: &&IpAddr| {
        address.is_unspecified() || address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
    };
    match network.addresses.iter().find(unreachable) {
        Some(&address) => Err(Refusal::BadAddress { address }),
        None => Ok(()),
    }
}

/// Takes a NetID without devices out of the federation.
pub struct RemoveNetwork {
    /// Which.
    pub netid: NetId,
}

impl Act for RemoveNetwork {
    type Done = ();

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<((), Option<Note>), Refusal> {
        let netid = self.netid;
        let before = transaction.view.zones.network(netid).cloned().ok_or(Refusal::NoNetwork(netid))?;
        match transaction.view.zones.devices().count(netid) {
            0 => {}
            devices => return Err(Refusal::NetworkInUse { netid, devices }),
        }
        transaction.check_not_filled(netid)?;
        transaction.forget_anchors(netid);
        transaction.prune_policy(|policy| policy.without_netid(netid))?;
        transaction.change_zones(vec![], vec![NetworkChange { before: Some(before), after: None }])?;
        Ok(((), Some(Note::new("netid.remove", netid, Value::Null))))
    }
}
