//! Trust anchors of a NetID whose servers do not have certificates of the federation's CA.

use std::sync::Arc;

use dnsbroker_ca::{anchors, chain};
use dnsbroker_federation::{MemberId, NetId};
use dnsbroker_zone::delta::{NetworkChange, Tlsa};
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::record::Anchors;
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// Publishes what the servers of a NetID are trusted by: in the bundle whole, and as TLSA records (RFC 6698) by digest.
pub struct SetAnchors {
    /// The NetID.
    pub netid: NetId,
    /// The member that asks, which may speak for its own NetIDs alone; none for an administrator.
    pub of: Option<MemberId>,
    /// Certificates, PEM: CAs, or the servers' own. Empty takes them back.
    pub pem: String,
}

impl Act for SetAnchors {
    type Done = Option<Arc<Anchors>>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let Self { netid, of, pem } = self;
        let before = transaction.view.zones.network(netid).cloned().ok_or(Refusal::NoNetwork(netid))?;
        if let Some(member) = of.filter(|member| *member != before.member) {
            return Err(Refusal::ForeignNetwork { netid, member });
        }
        let mut after = before.clone();
        if pem.trim().is_empty() {
            after.tlsa.clear();
        } else {
            if before.port.is_none() {
                return Err(Refusal::NoPort(netid));
            }
            let read = anchors(pem.as_bytes()).map_err(Refusal::Anchors)?;
            after.tlsa = read.iter().map(|anchor| Tlsa::of_key(anchor.is_ca, *anchor.key.as_bytes())).collect();
            after.tlsa.sort();
            after.tlsa.dedup();
        }
        let key = netid.as_u32().to_be_bytes();
        let published = (!after.tlsa.is_empty()).then(|| {
            // Written again, so that nothing but certificates is in the bundle.
            let certificates = chain::from_pem(pem.as_bytes()).unwrap_or_default();
            let pem = chain::to_pem(certificates.iter().map(Vec::as_slice));
            Arc::new(Anchors { netid, pem, since: transaction.now() })
        });
        let same = match (&published, transaction.view.anchors.get(&netid)) {
            (Some(new), Some(old)) => new.pem == old.pem,
            (None, None) => true,
            _ => false,
        };
        if same {
            return Ok((published, None));
        }
        match &published {
            Some(anchors) => {
                transaction.put(Table::Anchors, key, &**anchors)?;
                transaction.view.anchors.insert(netid, Arc::clone(anchors));
            }
            None => transaction.forget_anchors(netid),
        }
        let detail = json!({ "tlsa": after.tlsa });
        if after != before {
            transaction.change_zones(vec![], vec![NetworkChange { before: Some(before), after: Some(after) }])?;
        }
        Ok((published, Some(Note::new("netid.anchors", netid, detail))))
    }
}

impl Transaction<'_> {
    /// Takes the anchors of a NetID out of the bundle.
    pub(super) fn forget_anchors(&mut self, netid: NetId) {
        if self.view.anchors.remove(&netid).is_some() {
            self.batch.delete(Table::Anchors, netid.as_u32().to_be_bytes());
        }
    }
}
