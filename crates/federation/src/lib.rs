//! Who and what: the identifiers of a LoRaWAN federation and the DNS names they become.
//!
//! This crate knows nothing of zones, certificates or sockets. Everything here is parsed once, at the edge, into a
//! type that cannot hold a wrong value; the rest of dnsbroker passes those types around.
//!
//! | type | what it is | source |
//! |---|---|---|
//! | [`DevEui`] | the EUI-64 of an end-device | TS002, IEEE EUI-64 |
//! | [`DevEuiPrefix`] | a block of DevEUIs that begin alike | ours |
//! | [`NetId`] | the 24-bit identifier of a network | TS002, TS013 |
//! | [`MemberId`] | an operator of the federation | ours |
//! | [`Serial`] | a zone's serial number | RFC 1982 |
//! | [`DomainName`] | a name in wire form, lower case | RFC 1035, RFC 4343 |
//! | [`Namespace`] | the zones of one federation | ours |

mod deveui;
mod domain;
mod member;
mod namespace;
mod netid;
mod prefix;
#[cfg(feature = "schema")]
mod schema;
mod serial;

pub use deveui::{DevEui, DevEuiError};
pub use domain::{DomainName, DomainNameError, Labels};
pub use member::{MemberId, MemberIdError};
pub use namespace::{Namespace, NamespaceError, Owner, Zone, ZoneLabels};
pub use netid::{NetId, NetIdError};
pub use prefix::{DevEuiPrefix, DevEuiPrefixError};
pub use serial::Serial;

/// Implements `Serialize` as the `Display` text and `Deserialize` through `FromStr`, so that a wrong value in a
/// message or a row is refused with the same words as one typed by a person.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;
