//! What a response needs of its request: header, question, EDNS, and the chain of signatures.

use dnsbroker_zone::tsig::Chain;
use dnsbroker_zone::wire::message::Message;
use dnsbroker_zone::wire::{Answerless, Edns, ExtendedError, Header, Rcode, Response};

use crate::committer::now;

/// A response to be, so far without content.
pub(super) struct Envelope {
    pub(super) header: Header,
    /// Question section as it came.
    pub(super) question: Vec<u8>,
    pub(super) edns: Option<Edns>,
    /// Set where the request was signed: then the response is.
    pub(super) chain: Option<Chain>,
}

impl Envelope {
    pub(super) fn new(message: Message<'_>) -> Self {
        let question = message.question().ok().flatten().map_or_else(Vec::new, |question| question.octets.to_vec());
        Self { header: message.header(), question, edns: message.edns_so_far(), chain: None }
    }

    /// A response without records, signed.
    pub(super) fn empty(mut self, answer: impl Into<Answerless>) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        Response::empty(&mut out, &self.header, &self.question, self.edns, answer.into());
        self.sign(&mut out);
        out
    }

    /// Signs a message of the response.
    pub(super) fn sign(&mut self, message: &mut Vec<u8>) {
        if let Some(chain) = &mut self.chain {
            chain.sign(message, now().unsigned_abs());
        }
    }
}

/// A refusal with the rule in words.
pub(super) fn refusal(rcode: Rcode, code: u16, text: &'static str) -> Answerless {
    Answerless { error: Some(ExtendedError { code, text }), ..rcode.into() }
}

/// Done, by authority.
pub(super) fn done() -> Answerless {
    Answerless { authoritative: true, ..Rcode::NOERROR.into() }
}
