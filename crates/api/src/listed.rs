//! What lists are asked for with: pages by cursor, filters, order.

use std::borrow::Cow;

use dnsbroker_federation::{DevEui, MemberId, NetId};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The order of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Ascending.
    #[default]
    Asc,
    /// Descending.
    Desc,
}

/// What a list can be sorted by: fields of its items.
pub trait SortKey: Copy + Default + PartialEq + Send + Sync + 'static {
    /// All of them; the first unless asked for otherwise.
    const ALL: &'static [Self];

    /// Its name in queries.
    fn name(self) -> &'static str;

    /// The one of this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.name() == name)
    }
}

macro_rules! list {
    (
        $(#[doc = $about:literal])+
        $name:ident by $sort:ident($first:ident = $first_name:literal $(, $other:ident = $other_name:literal)*) {
            $($(#[doc = $field_about:literal])+ $field:ident: $type:ty,)*
        }
    ) => {
        #[doc = concat!("What [`", stringify!($name), "`] sorts by.")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $sort {
            #[doc = concat!("`", $first_name, "`, unless asked for otherwise.")]
            #[default]
            #[serde(rename = $first_name)]
            $first,
            $(
                #[doc = concat!("`", $other_name, "`.")]
                #[serde(rename = $other_name)]
                $other,
            )*
        }

        impl SortKey for $sort {
            const ALL: &'static [Self] = &[Self::$first $(, Self::$other)*];

            fn name(self) -> &'static str {
                match self {
                    Self::$first => $first_name,
                    $(Self::$other => $other_name,)*
                }
            }
        }

        impl JsonSchema for $sort {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($sort).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "enum": [$first_name $(, $other_name)*] })
            }
        }

        $(#[doc = $about])+
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(
                $(#[doc = $field_about])+
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
            /// The `next` of the page before, which had the same sort and order.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub after: Option<String>,
            /// Items of a page at most: 1 to 10000.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub limit: Option<usize>,
            #[doc = concat!("By which field; `", $first_name, "` unless said otherwise. What an item lacks comes first.")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub sort: Option<$sort>,
            /// Ascending, unless said otherwise, or descending.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub order: Option<Order>,
        }

        impl $name {
            /// The page that is asked for.
            pub fn paging(&self) -> Paging<$sort> {
                let (after, limit) = (self.after.clone(), self.limit);
                Paging { after, limit, sort: self.sort.unwrap_or_default(), order: self.order.unwrap_or_default() }
            }
        }

        impl Paged for $name {
            type Sort = $sort;

            fn go_on(&mut self, next: String) {
                self.after = Some(next);
            }

            fn sort(&mut self, by: Option<$sort>, order: Order) {
                (self.sort, self.order) = (by, Some(order));
            }
        }
    };
}

/// A query for a list.
pub trait Paged {
    /// What the list can be sorted by.
    type Sort: SortKey;

    /// Asks for the page after one that ended with this `next`.
    fn go_on(&mut self, next: String);

    /// Says in which order.
    fn sort(&mut self, by: Option<Self::Sort>, order: Order);
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paging<S> {
    /// The `next` of the page before.
    pub after: Option<String>,
    /// Items at most.
    pub limit: Option<usize>,
    /// By what.
    pub sort: S,
    /// In which order.
    pub order: Order,
}

list! {
    /// Of `GET /api/v1/members`.
    ListMembers by SortMembers(Id = "id", Name = "name", Since = "since", Devices = "devices", CertifiedUntil = "certified_until") {
        /// Only those that are suspended, or that are not.
        suspended: bool,
        /// Only those whose id or name has this text.
        text: String,
    }
}
list! {
    /// Of `GET /api/v1/netids`.
    ListNetids by SortNetids(Netid = "netid", Member = "member", Devices = "devices") {
        /// Only of this member.
        member: MemberId,
    }
}
list! {
    /// Of `GET /api/v1/tokens`.
    ListTokens by SortTokens(Expires = "expires", Created = "created", Member = "member") {
        /// Only of this member.
        member: MemberId,
        /// Only those that were used, or that were not.
        used: bool,
    }
}
list! {
    /// Of `GET /api/v1/certificates`; `issued` is when they were.
    ListCertificates by SortCertificates(Issued = "issued", NotAfter = "not_after", RenewAt = "renew_at", Member = "member", Revoked = "revoked") {
        /// Only of this member.
        member: MemberId,
        /// Only of this profile.
        profile: String,
        /// Only in this state: `valid`, `suspended`, `expired`, `revoked`.
        state: String,
    }
}
list! {
    /// Of `GET /api/v1/keys`.
    ListKeys by SortKeys(Name = "name", Holder = "holder", Created = "created") {
        /// Only of this holder: `member/<id>` or `replica/<id>`.
        holder: String,
    }
}
list! {
    /// Of `GET /api/v1/replicas`.
    ListReplicas by SortReplicas(Id = "id", Since = "since") {
        /// Only those that this member holds.
        member: MemberId,
    }
}
list! {
    /// Of `GET /api/v1/sources`.
    ListSources by SortSources(Netid = "netid", Member = "member", State = "state", Devices = "devices", Succeeded = "succeeded") {
        /// Only of this member.
        member: MemberId,
        /// Only in this state: `new`, `transferring`, `current`, `held`, `failing`, `expired`.
        state: String,
    }
}
list! {
    /// Of `GET /api/v1/audit`. Here `after` may be any number.
    ListAudit by SortAudit(Number = "number") {
        /// Only by this actor.
        actor: String,
        /// Only acts whose name begins so: `member.`, `certificate.revoke`.
        act: String,
        /// Only to this object.
        object: String,
    }
}
list! {
    /// Of `GET /api/v1/devices`. Here `after` may be any DevEUI.
    ListDevices by SortDevices(Deveui = "deveui") {
        /// Only of this member.
        member: MemberId,
        /// Only of this NetID.
        netid: NetId,
        /// Only those whose DevEUI begins with these hexadecimal digits.
        prefix: String,
    }
}

list! {
    /// Of `GET /api/v1/administrators`.
    ListAdministrators by SortAdministrators(Name = "name", Created = "created") {
        /// Only of this role: `admin` or `auditor`.
        role: String,
    }
}
list! {
    /// Of `GET /api/v1/api-tokens`.
    ListApiTokens by SortApiTokens(Created = "created", Expires = "expires", Name = "name", Owner = "owner") {
        /// Only of this owner: `administrator:<name>` or `member:<id>`.
        owner: String,
    }
}
list! {
    /// Of `GET /api/v1/claims`.
    ListClaims by SortClaims(Claimant = "claimant", Deveui = "deveui", Since = "since", Seen = "seen") {
        /// Only by this member.
        claimant: MemberId,
        /// Only against this member.
        holder: MemberId,
        /// Only of this device.
        deveui: DevEui,
    }
}
list! {
    /// Of `GET /api/v1/moves`.
    ListMoves by SortMoves(Id = "id", At = "at", Created = "created", Devices = "devices") {
        /// Only from or to this member.
        member: MemberId,
    }
}
list! {
    /// Of `GET /api/v1/webhooks`.
    ListWebhooks by SortWebhooks(Id = "id", Url = "url", Failures = "failures") {
        /// Only of this member.
        member: MemberId,
    }
}

/// Of `PATCH /api/v1/members/{id}/netids/{netid}/devices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeOptions {
    /// Only say what would happen.
    pub dry_run: bool,
    /// Let most of the devices go.
    pub allow_shrink: bool,
}

/// Of `PUT /api/v1/ca/root-crl`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RootCrlOptions {
    /// Only say what would happen.
    pub dry_run: bool,
}

/// Of `GET /api/v1/devices/{deveui}/lookup`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LookUp {
    /// As which member; without it as anybody on plain DNS. A member looks up as itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#as: Option<MemberId>,
}

/// Of the routes that take a list of devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportOptions {
    /// `add` (unless said otherwise), `full` or `remove`; PUT is `full` always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `plain`, `getdb`, `csv`, `json`, `ndjson`, `zone` (RFC 1035), where it is not to be guessed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Let a full list drop most of the devices.
    pub allow_shrink: bool,
}

/// Of `GET /api/v1/zones/{zone}/export`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExportOptions {
    /// `nibble`, `flat` or `both`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
}

/// A device's first digits, as a range.
pub fn prefix_range(prefix: &str) -> Option<(u64, u64)> {
    let digits = prefix.trim();
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let value =
        u64::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|octet| octet.is_ascii_hexdigit()))?;
    let below = 4 * (16 - digits.len() as u32);
    let first = value.checked_shl(below).unwrap_or(0);
    let last = first | 1_u64.checked_shl(below).map_or(u64::MAX, |bound| bound - 1);
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range_of_devices() {
        assert_eq!(prefix_range("0004a30b"), Some((0x0004_a30b_0000_0000, 0x0004_a30b_ffff_ffff)));
        assert_eq!(prefix_range("0004a30b001c0530"), Some((0x0004_a30b_001c_0530, 0x0004_a30b_001c_0530)));
        assert_eq!(prefix_range("f"), Some((0xf000_0000_0000_0000, u64::MAX)));
        for wrong in ["", "xyz", "+1", "00000000000000000"] {
            assert_eq!(prefix_range(wrong), None, "{wrong:?}");
        }
    }
}
