//! What is posted to a webhook: an event's JSON, with an id, a time and a signature in the form of Standard Webhooks, so
//! that receivers find a library for it.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dnsbroker_api::event::Event;
use zeroize::Zeroizing;

use crate::key::{self, KeyError};

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Octets of a secret.
const LENGTH: usize = 32;

/// A new secret, as it is shown, and its octets.
pub fn new_secret() -> Result<(Zeroizing<String>, Zeroizing<Vec<u8>>), KeyError> {
    let octets = key::new_secret(LENGTH)?;
    Ok((Zeroizing::new(format!("{PREFIX}{}", BASE64_STANDARD.encode(&*octets))), octets))
}

/// A message, ready to be posted again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The same for all attempts: who has seen it may throw the message away.
    pub id: String,
    /// JSON.
    pub body: Vec<u8>,
}

impl Message {
    /// Of an event to a webhook.
    pub fn new(webhook: u64, event: &Event) -> Self {
        // Events are strings, numbers and JSON: they always have a JSON form.
        Self { id: format!("evt_{webhook}_{}", event.id), body: serde_json::to_vec(event).unwrap_or_default() }
    }

    /// The value of `webhook-signature` at a time.
    pub fn signature(&self, secret: &[u8], timestamp: i64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{}.{timestamp}.", self.id).as_bytes());
        context.update(&self.body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let message =
            Message { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(), body: br#"{"test": 2432232314}"#.to_vec() };
        let signature = message.signature(&secret, 1_614_265_330);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn no_two_secrets_are_alike() {
        let (shown, octets) = new_secret().expect("made");
        assert!(shown.starts_with(PREFIX) && octets.len() == LENGTH);
        assert_ne!(*octets, *new_secret().expect("made").1);
    }
}
