//! A look-up with every step and rule that decided it: what to show when roaming does not work.

use dnsbroker_api::message::Lookup;
use dnsbroker_federation::{DevEui, MemberId, NetId};
use dnsbroker_store::View;
use dnsbroker_zone::answer::{Asker, answer};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candour {
    /// Everything: to administrators and auditors.
    All,
    /// Nothing that the answer itself does not tell: to members. What policy hides looks unregistered.
    AsAnswered,
}

/// Resolves a device, as a member or, without one, as anybody on plain DNS would.
pub fn explain(view: &View, deveui: DevEui, member: Option<MemberId>, candour: Candour) -> Lookup {
    let zones = &view.zones;
    let name = zones.names().nibble_name(deveui);
    let mut steps = vec![format!("{deveui} is asked for as {name} (or {})", zones.names().flat_name(deveui))];
    match &member {
        None => steps.push("nobody is named with --as: this is what plain DNS answers".to_owned()),
        Some(id) => match view.members.get(id) {
            None => steps.push(format!("{id} is not a member: its certificate would be refused at the handshake")),
            Some(member) => match &member.suspended {
                Some(suspension) => {
                    steps.push(format!("member {id} is suspended ({}): its handshake is refused", suspension.reason));
                }
                None => steps.push(format!("member {id} is in the federation and active")),
            },
        },
    }
    let hidden = |netid: &NetId| {
        let ruling = member.as_ref().and_then(|id| zones.ruling(id, *netid));
        candour == Candour::AsAnswered && !zones.policy().tell && ruling.is_some_and(|ruling| !ruling.is_seen())
    };
    match zones.devices().get(deveui).filter(|netid| !hidden(netid)) {
        None => steps.push("the device is not registered by any member: NXDOMAIN".to_owned()),
        Some(netid) => {
            steps.push(format!(
                "the device is registered under NetID {netid}: CNAME {}",
                zones.names().network_name(netid)
            ));
            if let Some(network) = zones.network(netid) {
                let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
                let holder = if member.as_ref() == Some(&network.member) { " (the asker itself)" } else { "" };
                steps.push(format!("NetID {netid} is held by {}{holder}: {}", network.member, addresses.join(", ")));
            }
            if let Some(ruling) = member.as_ref().and_then(|id| zones.ruling(id, netid)) {
                let consequence = match (ruling.is_seen(), zones.policy().tell) {
                    (true, _) => "",
                    (false, true) => ": NXDOMAIN, with the extended error Prohibited",
                    (false, false) => ": NXDOMAIN, as if it were not registered",
                };
                steps.push(format!("rule: {ruling}{consequence}"));
            }
        }
    }
    if member.is_none() {
        steps.push(
            "rule: private names are answered over DoH to members with their certificate, and to nobody else"
                .to_owned(),
        );
    }
    let (rcode, answer) = resolve(view, &name, member.as_ref());
    steps.push(format!("the answer is {rcode}, serial {}", zones.serial()));
    Lookup { deveui, name, member, steps, rcode, answer }
}

fn resolve(view: &View, name: &str, member: Option<&MemberId>) -> (String, Vec<String>) {
    let admitted = member.filter(|id| view.members.get(*id).is_some_and(|member| member.suspended.is_none()));
    let asker = match (member, admitted) {
        (Some(_), None) => return ("refused at the door".to_owned(), vec![]),
        (_, Some(id)) => Asker::Member(id),
        (None, None) => Asker::Public,
    };
    let mut query = Message::new(1, MessageType::Query, OpCode::Query);
    let Ok(qname) = Name::from_ascii(name) else { return ("no name".to_owned(), vec![]) };
    query.add_query(Query::query(qname, RecordType::A));
    let mut out = Vec::new();
    let Ok(octets) = query.to_vec() else { return ("no query".to_owned(), vec![]) };
    match answer(&view.zones, asker, &octets, &mut out) {
        Err(error) => (error.to_string(), vec![]),
        Ok(answered) => {
            let records = Message::from_vec(&out)
                .map(|message| message.answers.iter().chain(&message.authorities).map(ToString::to_string).collect());
            (answered.rcode.mnemonic().to_owned(), records.unwrap_or_default())
        }
    }
}
