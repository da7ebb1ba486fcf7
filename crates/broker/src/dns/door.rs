//! The one check of what a DNS message may do.
//!
//! | transport | nobody | TSIG key that allows it | certificate |
//! |---|---|---|---|
//! | UDP | public names | SOA of private zones; lone SOA for IXFR; NOTIFY; UPDATE | |
//! | TCP | public names | the same; AXFR and IXFR where the replica may have them in clear text | |
//! | XoT | | as the certificate, and must be of the same holder | SOA, AXFR, IXFR; NOTIFY; UPDATE |
//!
//! Look-ups of devices and NetIDs are answered over DoH only. A signature that does not verify is answered as RFC 8945
//! says, before anything else is looked at. The transports only carry octets; each calls [`Desk::receive`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dnsbroker_ca::Principal;
use dnsbroker_federation::{DomainName, Labels, MemberId, Owner, Zone};
use dnsbroker_store::act::{Update, Updated};
use dnsbroker_store::record::{Permission, Replica};
use dnsbroker_store::{Actor, Refusal, View};
use dnsbroker_zone::answer::{Asker, answer};
use dnsbroker_zone::tsig::{self, Signature, TsigError};
use dnsbroker_zone::update::{self, UpdateError};
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{Answerless, Query, Rcode, RecordType, Section};

use super::Desk;
use super::envelope::{Envelope, done, refusal};
use super::transfer::{Asked, Transfer};
use crate::committer::{CommitError, Pending, now};
use crate::metrics::{Notified, Transport, UpdateResult};

/// Octets of a UDP response at most, whatever the client says (RFC 9715, section 3.1).
const UDP_PAYLOAD: u16 = 1_232;
/// Octets of a UDP response for a client without EDNS (RFC 1035, section 4.2.1).
const UDP_PLAIN: u16 = 512;

/// Where a message came from.
pub(super) struct Caller<'a> {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    /// By its certificate.
    pub(super) principal: Option<&'a Principal>,
}

/// What becomes of a message.
pub(super) enum Reply {
    /// It gets no response.
    Nothing,
    /// One message.
    Message(Vec<u8>),
    /// One message, once its change is durable.
    Update(Box<WaitingUpdate>),
    /// As many messages as it takes.
    Transfer(Box<Transfer>),
}

/// Who sent a message, and by what proof.
enum Proof {
    Nobody,
    Certificate(Principal),
    Key { name: DomainName, holder: Principal, allows: Vec<Permission> },
}

impl Proof {
    fn principal(&self, needs: Permission) -> Option<&Principal> {
        match self {
            Self::Nobody => None,
            Self::Certificate(principal) => Some(principal),
            Self::Key { holder, allows, .. } => allows.contains(&needs).then_some(holder),
        }
    }

    fn key(&self) -> Option<&DomainName> {
        match self {
            Self::Key { name, .. } => Some(name),
            _ => None,
        }
    }
}

const OTHER_HOLDER: &str = "the TSIG key is of another holder than the certificate";
const NOT_ADMITTED: &str = "the holder of the key is suspended or has left the federation";
const NO_UPDATE: &str = "updates need a TSIG key or certificate of a member that allows them";
const SIG0: &str = "SIG(0) is not implemented: sign with TSIG";
const NO_NOTIFY: &str = "NOTIFY is taken from a configured source only, signed where it has a key";
const CLEAR_TEXT: &str = "this replica may fetch over TLS only (XoT)";
const CROWDED: &str = "this replica has too many transfers under way";
const STALE: &str = "this standby does not know what its primary has revoked lately";
const STANDBY: &str = "this broker takes no changes: it is a standby, or was replaced; send them to the primary";
const UDP_TRANSFER: &str = "AXFR is not defined over UDP";

impl Desk {
    /// Decides what becomes of a message.
    pub(super) async fn receive(&self, octets: &[u8], caller: &Caller<'_>) -> Reply {
        let Ok(message) = Message::new(octets) else { return Reply::Nothing };
        if message.is_response() {
            return Reply::Nothing;
        }
        let opcode = message.header().opcode;
        // The allow-list stands before the full parse.
        if !matches!(opcode, 0 | 4 | 5) {
            return self.look_up(octets, Asker::Public, None, caller);
        }
        let view = self.shared.view.load_full();
        let (proof, envelope) = match self.prove(message, caller, &view) {
            Ok(proved) => proved,
            Err(response) => return Reply::Message(response),
        };
        match opcode {
            0 => self.query(octets, proof, envelope, caller, &view),
            4 => Reply::Message(self.notify(message, &proof, envelope, caller, &view)),
            _ => self.update(message, &proof, envelope, caller, &view).await,
        }
    }

    /// Verifies the signature, if there is one. The error is the response that says why it is not good.
    fn prove(&self, message: Message<'_>, caller: &Caller<'_>, view: &View) -> Result<(Proof, Envelope), Vec<u8>> {
        let mut envelope = Envelope::new(message);
        let signature = match Signature::of(message) {
            Ok(Some(signature)) => signature,
            Ok(None) => {
                let proof = caller.principal.cloned().map_or(Proof::Nobody, Proof::Certificate);
                return Ok((proof, envelope));
            }
            Err(error) => {
                tracing::debug!(client = %caller.address, %error, "a malformed message");
                return Err(envelope.empty(Rcode::FORMERR));
            }
        };
        let time = now().unsigned_abs();
        let known = view.tsig_keys.values().find(|key| key.name.wire() == signature.key.as_slice());
        let key = known.and_then(|key| self.sealer.unseal(key).ok());
        match (tsig::verify(message, &signature, key, time), known) {
            (Ok(chain), Some(known)) => {
                let fault = chain.fault();
                envelope.chain = Some(chain);
                if let Some(fault) = fault {
                    self.bad_signature(caller, &known.name.to_string(), fault);
                    return Err(envelope.empty(Rcode::NOTAUTH));
                }
                let (name, holder) = (known.name.clone(), known.holder.clone());
                if view.admit_principal(&holder).is_err() {
                    return Err(envelope.empty(refusal(Rcode::REFUSED, 18, NOT_ADMITTED)));
                }
                let same = caller.principal.is_none_or(|principal| same_holder(view, principal, &holder));
                if !same {
                    return Err(envelope.empty(refusal(Rcode::REFUSED, 18, OTHER_HOLDER)));
                }
                Ok((Proof::Key { name, holder, allows: known.allows.iter().copied().collect() }, envelope))
            }
            (Ok(_), None) => Err(envelope.empty(Rcode::NOTAUTH)),
            (Err(fault), known) => {
                let name = known.map_or_else(|| "unknown".to_owned(), |key| key.name.to_string());
                self.bad_signature(caller, &name, fault);
                let mut response = envelope.empty(tsig::rcode(fault));
                if let Some(code) = fault.code() {
                    tsig::append_unsigned(&mut response, &signature, time, code);
                }
                Err(response)
            }
        }
    }

    fn bad_signature(&self, caller: &Caller<'_>, key: &str, fault: TsigError) {
        self.shared.metrics.bad_signature();
        if crate::handshake::may_log() {
            tracing::warn!(client = %caller.address, key, cause = %fault, "a TSIG signature is not accepted");
        }
    }

    fn query(&self, octets: &[u8], proof: Proof, envelope: Envelope, caller: &Caller<'_>, view: &Arc<View>) -> Reply {
        let asker = if proof.key().is_some() { Asker::Signed } else { Asker::Public };
        let Ok(query) = Query::parse(octets) else { return self.look_up(octets, asker, Some(envelope), caller) };
        let owner = view.zones.names().owner(query.name.as_slice());
        let zone = match owner {
            Owner::Apex(zone) if zone.is_private() && query.qclass == 1 => zone,
            _ => return self.look_up(octets, asker, Some(envelope), caller),
        };
        let replica = proof.principal(Permission::Transfer).and_then(|principal| view.replica_of(principal));
        let Some(replica) = replica else { return self.look_up(octets, asker, Some(envelope), caller) };
        if self.shared.standing.is_stale(now()) {
            return Reply::Message(envelope.empty(refusal(Rcode::SERVFAIL, 0, STALE)));
        }
        match query.qtype {
            RecordType::SOA => self.look_up(octets, Asker::Secondary, Some(envelope), caller),
            RecordType::AXFR if caller.transport == Transport::Udp => {
                Reply::Message(envelope.empty(refusal(Rcode::FORMERR, 21, UDP_TRANSFER)))
            }
            RecordType::AXFR | RecordType::IXFR => self.transfer(octets, &proof, replica, zone, envelope, caller, view),
            _ => self.look_up(octets, asker, Some(envelope), caller),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what decides about a transfer, each of its own kind")]
    fn transfer(
        &self,
        octets: &[u8],
        proof: &Proof,
        replica: &Arc<Replica>,
        zone: Zone,
        envelope: Envelope,
        caller: &Caller<'_>,
        view: &Arc<View>,
    ) -> Reply {
        let asked = match Message::new(octets).ok().and_then(|message| Asked::of(message)) {
            Some(asked) => asked,
            None => return Reply::Message(envelope.empty(Rcode::FORMERR)),
        };
        let lone = caller.transport == Transport::Udp;
        if caller.transport != Transport::Xot && !replica.clear_text && !lone {
            tracing::warn!(client = %caller.address, replica = %replica.id, "transfer refused: {CLEAR_TEXT}");
            return Reply::Message(envelope.empty(refusal(Rcode::REFUSED, 18, CLEAR_TEXT)));
        }
        let Some(place) = self.sending.take(replica.id.clone()) else {
            tracing::warn!(client = %caller.address, replica = %replica.id, "transfer refused: {CROWDED}");
            return Reply::Message(envelope.empty(refusal(Rcode::REFUSED, 0, CROWDED)));
        };
        let transfer = Transfer {
            _place: place,
            shared: Arc::clone(&self.shared),
            view: Arc::clone(view),
            engine: Arc::clone(&self.engine),
            replica: Arc::clone(replica),
            key: proof.key().cloned(),
            zone,
            asked,
            envelope,
            client: caller.address,
        };
        if lone {
            transfer.lone_soa().map_or(Reply::Nothing, Reply::Message)
        } else {
            Reply::Transfer(Box::new(transfer))
        }
    }

    /// What `zone::answer` says to this asker.
    fn look_up(&self, octets: &[u8], asker: Asker<'_>, envelope: Option<Envelope>, caller: &Caller<'_>) -> Reply {
        let started = Instant::now();
        let mut out = Vec::with_capacity(512);
        let view = self.shared.view.load();
        let Ok(answered) = answer(&view.zones, asker, octets, &mut out) else { return Reply::Nothing };
        self.shared.metrics.dns(caller.transport, &answered, started.elapsed());
        let Some(mut envelope) = envelope else { return Reply::Message(out) };
        if caller.transport == Transport::Udp {
            let payload = envelope.edns.map_or(UDP_PLAIN, |edns| edns.payload.clamp(UDP_PLAIN, UDP_PAYLOAD));
            let signature = envelope.chain.as_ref().map_or(0, |chain| chain.signature_len());
            if out.len() + signature > usize::from(payload) {
                let truncated = Answerless { truncated: true, authoritative: true, ..answered.rcode.into() };
                return Reply::Message(envelope.empty(truncated));
            }
        }
        envelope.sign(&mut out);
        Reply::Message(out)
    }

    fn notify(
        &self,
        message: Message<'_>,
        proof: &Proof,
        envelope: Envelope,
        caller: &Caller<'_>,
        view: &View,
    ) -> Vec<u8> {
        let question = match message.question() {
            Ok(Some(question)) if question.qtype == RecordType::SOA && question.qclass == 1 => question,
            Ok(Some(_)) => return envelope.empty(refusal(Rcode::REFUSED, 21, "NOTIFY is for the SOA of class IN")),
            _ => return envelope.empty(Rcode::FORMERR),
        };
        let mut accepted = false;
        let sources = view.sources.values().filter(|source| source.zone.wire() == question.name.as_slice());
        for source in sources {
            // By key, or by address where there is none; over XoT the certificate says who it is.
            let allowed = match (&source.key, proof) {
                (_, Proof::Certificate(principal)) => *principal == Principal::Member(source.member.clone()),
                (Some(key), Proof::Key { name, .. }) => key == name && caller.address.ip() == source.primary.ip(),
                (Some(_), Proof::Nobody) => false,
                (None, _) => caller.address.ip() == source.primary.ip(),
            };
            if allowed {
                self.sources.notified(source.netid);
                accepted = true;
            }
        }
        self.shared.metrics.notified(if accepted { Notified::Accepted } else { Notified::Refused });
        if accepted {
            return envelope.empty(done());
        }
        if crate::handshake::may_log() {
            let labels = Labels::of(question.name.as_slice()).map(|label| label.escape_ascii().to_string() + ".");
            let zone: String = labels.collect();
            let cause = why_no_notify(proof, caller.address, question.name.as_slice(), view);
            tracing::warn!(client = %caller.address, zone, cause, "NOTIFY refused");
        }
        envelope.empty(refusal(Rcode::REFUSED, 18, NO_NOTIFY))
    }

    async fn update(
        &self,
        message: Message<'_>,
        proof: &Proof,
        envelope: Envelope,
        caller: &Caller<'_>,
        view: &View,
    ) -> Reply {
        let refused = |envelope: Envelope, rcode: Rcode, words: &'static str, member: Option<&MemberId>| {
            self.shared.metrics.updated(UpdateResult::Refused);
            if crate::handshake::may_log() {
                let client = caller.address;
                tracing::warn!(%client, member = member.map(tracing::field::display), cause = words, "an update is refused");
            }
            Reply::Message(envelope.empty(refusal(rcode, 18, words)))
        };
        let Some(Principal::Member(member)) = proof.principal(Permission::Update) else {
            let why = if matches!(proof, Proof::Nobody) && has_sig0(message) { SIG0 } else { NO_UPDATE };
            return refused(envelope, Rcode::REFUSED, why, None);
        };
        let wanted = match update::parse(message, &view.zones) {
            Ok(wanted) => wanted,
            Err(UpdateError { rcode, words }) => return refused(envelope, rcode, words, Some(member)),
        };
        let actor = proof.key().map_or_else(|| Actor::Member(member.clone()), |key| Actor::Key(key.clone()));
        match self.committer.submit(actor, Update { member: member.clone(), wanted }).await {
            Ok(pending) => {
                let (member, client) = (member.clone(), caller.address);
                Reply::Update(Box::new(WaitingUpdate { pending, envelope, member, client }))
            }
            Err(CommitError::Elsewhere(_)) => refused(envelope, Rcode::REFUSED, STANDBY, Some(member)),
            Err(_) => Reply::Message(envelope.empty(Rcode::SERVFAIL)),
        }
    }
}

/// Why a NOTIFY is not taken, for the log: which source it seems to be about, and what it lacks.
fn why_no_notify(proof: &Proof, from: SocketAddr, zone: &[u8], view: &View) -> String {
    let sources = view.sources.values().filter(|source| source.zone.wire() == zone);
    // The one whose primary it comes from, if there is one.
    let Some(source) = sources.min_by_key(|source| source.primary.ip() != from.ip()) else {
        let near = view.sources.values().find(|source| source.primary.ip() == from.ip());
        let near = near.map(|source| format!("; the source of NetID {} there has {}", source.netid, source.zone));
        return format!("no source has this zone{}", near.unwrap_or_default());
    };
    let (netid, primary) = (source.netid, source.primary.ip());
    let signed = match proof {
        Proof::Nobody => "is not signed".to_owned(),
        Proof::Certificate(principal) => format!("came with the certificate of {principal}"),
        Proof::Key { name, .. } => format!("is signed with {name}"),
    };
    let address = if primary == from.ip() { "as it did".to_owned() } else { format!("and not from {}", from.ip()) };
    match (&source.key, proof) {
        (_, Proof::Certificate(_)) => {
            format!("it {signed}: for the source of NetID {netid} it must be that of member {}", source.member)
        }
        (Some(key), _) => format!(
            "it {signed}: for the source of NetID {netid} it must be signed with the TSIG key {key} and come from {primary}, \
             {address}"
        ),
        (None, _) => format!("for the source of NetID {netid} it must come from {primary}, {address}"),
    }
}

/// Whether a message is signed by a public key (RFC 2931): nobody's is known here.
fn has_sig0(message: Message<'_>) -> bool {
    let mut records = message.records().into_iter().flatten().filter_map(Result::ok);
    records.any(|record| record.section == Section::Additional && record.rtype == RecordType::SIG)
}

/// Whether a certificate and a key belong together: of the same holder, or of one replica.
fn same_holder(view: &View, certificate: &Principal, key: &Principal) -> bool {
    let replica = |principal| view.replica_of(principal).map(|replica| &replica.id);
    certificate == key || replica(certificate).is_some_and(|id| replica(key) == Some(id))
}

/// An update in the committer's queue.
pub(super) struct WaitingUpdate {
    pending: Pending<Updated>,
    envelope: Envelope,
    member: MemberId,
    client: SocketAddr,
}

impl WaitingUpdate {
    /// The response, once the change is durable or refused.
    pub(super) async fn done(self, desk: &Desk) -> Vec<u8> {
        let Self { pending, envelope, member, client } = self;
        let metrics = &desk.shared.metrics;
        match pending.done().await {
            Ok(Updated { added, moved, removed }) => {
                metrics.updated(UpdateResult::Done);
                tracing::debug!(%client, %member, added, moved, removed, "update");
                envelope.empty(done())
            }
            Err(CommitError::Refused(Refusal::Prerequisite(rcode))) => {
                metrics.updated(UpdateResult::Prerequisite);
                envelope.empty(Answerless { authoritative: true, ..rcode.into() })
            }
            Err(CommitError::Refused(why)) => {
                metrics.updated(UpdateResult::Refused);
                if crate::handshake::may_log() {
                    tracing::warn!(%client, %member, cause = %why, "an update is refused");
                }
                envelope.empty(refusal(Rcode::REFUSED, 18, words(&why)))
            }
            Err(error) => {
                metrics.updated(UpdateResult::Failed);
                tracing::error!(%client, %member, %error, "an update failed");
                envelope.empty(Rcode::SERVFAIL)
            }
        }
    }
}

/// The rule in the few words of an extended error; the log has them all.
fn words(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Claimed(_) => "the device is held by another member of this federation",
        Refusal::ForeignNetwork { .. } => "the NetID is not held by this member",
        Refusal::NoNetwork(_) => "there is no such NetID in this federation",
        Refusal::Filled { .. } => "the devices of this NetID come from the member's own primary: change them there",
        Refusal::MemberSuspended { .. } => "the member is suspended",
        _ => "a rule of the federation forbids it",
    }
}
