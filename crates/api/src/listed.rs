//! What lists are asked for with: pages by cursor, filters, order.

use dnsbroker_federation::{DevEui, MemberId, NetId};
use schemars::JsonSchema;
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

macro_rules! list {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $field_about:literal])+ $field:ident: $type:ty,)* }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(
                $(#[doc = $field_about])+
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
            /// The `next` of the page before.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub after: Option<String>,
            /// Items of a page at most: 1 to 10000.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub limit: Option<usize>,
            /// In which order: by id, number or time, as the list says.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub order: Option<Order>,
        }

        impl $name {
            /// The page that is asked for.
            pub fn paging(&self) -> Paging {
                Paging { after: self.after.clone(), limit: self.limit, order: self.order.unwrap_or_default() }
            }
        }

        impl Paged for $name {
            fn go_on(&mut self, next: String) {
                self.after = Some(next);
            }
        }
    };
}

/// A query that can go on where a page ended.
pub trait Paged {
    /// Asks for the page after one that ended with this `next`.
    fn go_on(&mut self, next: String);
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paging {
    /// The `next` of the page before.
    pub after: Option<String>,
    /// Items at most.
    pub limit: Option<usize>,
    /// In which order.
    pub order: Order,
}

list! {
    /// Of `GET /api/v1/members`, by id.
    ListMembers {
        /// Only those that are suspended, or that are not.
        suspended: bool,
        /// Only those whose id or name has this text.
        text: String,
    }
}
list! {
    /// Of `GET /api/v1/netids`, by NetID.
    ListNetids {
        /// Only of this member.
        member: MemberId,
    }
}
list! {
    /// Of `GET /api/v1/tokens`, by the time of their end.
    ListTokens {
        /// Only of this member.
        member: MemberId,
        /// Only those that were used, or that were not.
        used: bool,
    }
}
list! {
    /// Of `GET /api/v1/certificates`, by the time they were issued.
    ListCertificates {
        /// Only of this member.
        member: MemberId,
        /// Only of this profile.
        profile: String,
        /// Only in this state: `valid`, `suspended`, `expired`, `revoked`.
        state: String,
    }
}
list! {
    /// Of `GET /api/v1/keys`, by name.
    ListKeys {
        /// Only of this holder: `member/<id>` or `replica/<id>`.
        holder: String,
    }
}
list! {
    /// Of `GET /api/v1/replicas`, by id.
    ListReplicas {
        /// Only those that this member holds.
        member: MemberId,
    }
}
list! {
    /// Of `GET /api/v1/sources`, by NetID.
    ListSources {
        /// Only of this member.
        member: MemberId,
        /// Only in this state: `new`, `transferring`, `current`, `held`, `failing`, `expired`.
        state: String,
    }
}
list! {
    /// Of `GET /api/v1/audit`, by number.
    ListAudit {
        /// Only by this actor.
        actor: String,
        /// Only acts whose name begins so: `member.`, `certificate.revoke`.
        act: String,
        /// Only to this object.
        object: String,
    }
}
list! {
    /// Of `GET /api/v1/devices`, by DevEUI.
    ListDevices {
        /// Only of this member.
        member: MemberId,
        /// Only of this NetID.
        netid: NetId,
        /// Only those whose DevEUI begins with these hexadecimal digits.
        prefix: String,
    }
}

list! {
    /// Of `GET /api/v1/administrators`, by name.
    ListAdministrators {
        /// Only of this role: `admin` or `auditor`.
        role: String,
    }
}
list! {
    /// Of `GET /api/v1/api-tokens`, by the time they were made.
    ListApiTokens {
        /// Only of this owner: `administrator:<name>` or `member:<id>`.
        owner: String,
    }
}
list! {
    /// Of `GET /api/v1/claims`, by claimant and DevEUI.
    ListClaims {
        /// Only by this member.
        claimant: MemberId,
        /// Only against this member.
        holder: MemberId,
        /// Only of this device.
        deveui: DevEui,
    }
}
list! {
    /// Of `GET /api/v1/moves`, by number.
    ListMoves {
        /// Only from or to this member.
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
