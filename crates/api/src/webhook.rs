//! Messages about webhooks: where events are sent to, signed.

use std::collections::BTreeSet;

use dnsbroker_federation::MemberId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::KINDS;
use crate::timestamp::Timestamp;

/// `POST /api/v1/webhooks`, and `PUT /api/v1/webhooks/{id}`.
///
/// Each event is a POST of its JSON with three headers (Standard Webhooks): `webhook-id` is the same for all attempts,
/// `webhook-timestamp` is seconds since 1970, `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over
/// `<webhook-id>.<webhook-timestamp>.<body>` under the secret's octets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetWebhook {
    /// Where events go: `https://...`.
    pub url: String,
    /// Which kinds, by how they begin: `claim.`, `source.failed`. At least one kind begins with each.
    #[schemars(extend("items" = serde_json::json!({ "type": "string", "minLength": 1, "examples": KINDS })))]
    pub events: BTreeSet<String>,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Webhook {
    /// Its number.
    pub id: u64,
    /// Where events go.
    pub url: String,
    /// Which kinds.
    pub events: BTreeSet<String>,
    /// The member whose events alone it gets; all of them where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<MemberId>,
    /// When it was added.
    pub created: Timestamp,
    /// Why nothing is sent, if nothing is; to set it again makes it work again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<String>,
    /// The last event that was delivered, or was none of its kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<String>,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The secret: only in the answer to its making. `whsec_` and base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// `POST /api/v1/webhooks/{id}/test`: what became of one message of the kind `webhook.test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookTest {
    /// Whether it was taken.
    pub ok: bool,
    /// The HTTP status that was answered, where that is why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why not, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took.
    pub milliseconds: u64,
}
