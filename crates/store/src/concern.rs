//! Whose business an act is: the members that are told of it, beside the administrators.
//!
//! It is worked out once, in the act's own transaction, where it is known both what was before and what is after, and stands
//! in the audit row. So an event that is read years later goes to the same members as on the day.
//!
//! A member is concerned when the act is its own, when the note names it as a party, when devices, NetIDs, moves or
//! certificates of its own are changed. Who only has the name of a member is not concerned: a device that is claimed
//! concerns its claimant and its holder, and nobody else.

use std::collections::BTreeSet;

use dnsbroker_ca::SerialNumber;
use dnsbroker_federation::{DevEui, MemberId, NetId};
use serde_json::Value;

use crate::record::TokenOwner;
use crate::transaction::{Actor, Note};
use crate::view::View;

/// Members of a note's detail that name a party.
const PARTIES: [&str; 5] = ["member", "from", "to", "claimant", "by"];
/// Members of a note's detail that list certificates.
const CERTIFICATES: [&str; 2] = ["certificates", "of_the_same_key"];
/// Acts whose object is a member, by the beginning of their names.
const OF_MEMBERS: [&str; 4] = ["member.", "limits.", "token.create", "claim.withdraw"];

/// The members that an act concerns. `touched` are the NetIDs between which it moved devices.
pub(crate) fn concerned(
    actor: &Actor,
    note: &Note,
    touched: &BTreeSet<NetId>,
    before: &View,
    after: &View,
) -> Vec<MemberId> {
    let mut found = Found { members: BTreeSet::new(), before, after };
    match actor {
        Actor::Member(member) | Actor::ApiToken(_, TokenOwner::Member(member)) => found.member(member.as_str()),
        Actor::Certificate(serial) => found.certificate(serial),
        Actor::Source(netid) => found.netid(*netid),
        _ => {}
    }
    touched.iter().for_each(|netid| found.netid(*netid));
    for party in PARTIES {
        if let Some(member) = note.detail[party].as_str() {
            found.member(member);
        }
    }
    for list in CERTIFICATES {
        for serial in note.detail[list].as_array().into_iter().flatten().filter_map(Value::as_str) {
            found.serial(serial);
        }
    }
    // `member/<id>` of a key, `{"member": "<id>"}` of an API token.
    let holder = note.detail["holder"].as_str().and_then(|holder| holder.strip_prefix("member/"));
    holder.or(note.detail["owner"]["member"].as_str()).into_iter().for_each(|member| found.member(member));
    found.object(note);
    found.members.into_iter().collect()
}

struct Found<'v> {
    members: BTreeSet<MemberId>,
    before: &'v View,
    after: &'v View,
}

impl Found<'_> {
    fn views(&self) -> [&View; 2] {
        [self.before, self.after]
    }

    /// A text that is the id of a member now or was it a moment ago.
    fn member(&mut self, text: &str) {
        if let Ok(member) = text.parse::<MemberId>()
            && self.views().iter().any(|view| view.members.contains_key(&member))
        {
            self.members.insert(member);
        }
    }

    fn netid(&mut self, netid: NetId) {
        for view in [self.before, self.after] {
            self.members.extend(view.zones.network(netid).map(|network| network.member.clone()));
        }
    }

    fn device(&mut self, device: DevEui) {
        for view in [self.before, self.after] {
            self.members.extend(view.holder(device).cloned());
        }
    }

    fn serial(&mut self, text: &str) {
        if let Ok(serial) = text.parse() {
            self.certificate(&serial);
        }
    }

    fn certificate(&mut self, serial: &SerialNumber) {
        for view in [self.before, self.after] {
            self.members.extend(view.certificates.get(serial).and_then(|known| known.member.clone()));
        }
    }

    fn object(&mut self, Note { act, object, .. }: &Note) {
        if OF_MEMBERS.iter().any(|begin| act.starts_with(begin)) {
            return self.member(object);
        }
        match act.split('.').next().unwrap_or_default() {
            "certificate" => self.serial(object),
            "netid" | "source" => object.parse().into_iter().for_each(|netid| self.netid(netid)),
            "claim" => object.parse().into_iter().for_each(|device| self.device(device)),
            "devices" => {
                object.parse().into_iter().for_each(|netid| self.netid(netid));
                object.parse().into_iter().for_each(|device| self.device(device));
            }
            "move" => {
                let moves =
                    self.views().map(|view| object.parse().ok().and_then(|id: u64| view.ownership.moves.get(&id)));
                let parties =
                    moves.into_iter().flatten().flat_map(|planned| [planned.from.clone(), Some(planned.to.clone())]);
                let parties: Vec<MemberId> = parties.flatten().collect();
                self.members.extend(parties);
            }
            "webhook" => {
                let hooks =
                    self.views().map(|view| object.parse().ok().and_then(|id: u64| view.accounts.webhooks.get(&id)));
                let owners: Vec<MemberId> =
                    hooks.into_iter().flatten().filter_map(|hook| hook.member.clone()).collect();
                self.members.extend(owners);
            }
            "key" => {
                let keys = self.views().map(|view| {
                    object.parse().ok().and_then(|name: dnsbroker_federation::DomainName| view.tsig_keys.get(&name))
                });
                let holders: Vec<MemberId> = keys
                    .into_iter()
                    .flatten()
                    .filter_map(|key| match &key.holder {
                        dnsbroker_ca::Principal::Member(member) => Some(member.clone()),
                        dnsbroker_ca::Principal::Replica(_) => None,
                    })
                    .collect();
                self.members.extend(holders);
            }
            _ => {}
        }
    }
}
