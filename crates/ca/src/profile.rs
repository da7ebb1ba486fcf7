//! Profiles: files that decide everything in a certificate but the public key. `certs/README.md` describes them for
//! those who write one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::key::{KeyKind, KeyPolicy};
use crate::serde_as_text;

/// What a certificate of one kind contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    name: String,
    names: Vec<NameKind>,
    extended_key_usages: Vec<ExtendedKeyUsage>,
    key_types: Vec<KeyKind>,
    validity: Seconds,
    backdate: Seconds,
}

/// What a certificate may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameKind {
    /// One member, as a URI.
    Member,
    /// One replica, as a URI.
    Replica,
    /// One gateway of a member, as a URI.
    Gateway,
    /// DNS names of a server.
    Dns,
    /// Addresses of a server.
    Ip,
}

/// What the holder of the key may do with it (RFC 5280, section 4.2.1.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtendedKeyUsage {
    /// Be a TLS client.
    ClientAuth,
    /// Be a TLS server.
    ServerAuth,
}

/// A length of time, in text a number and a unit: `30s`, `5m`, `24h`, `14d` or `2w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(i64);

/// Why a text is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a length of time; write a number and one of s, m, h, d, w, such as \"14d\"")]
pub struct SecondsError {
    found: String,
}

/// Why a file is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not TOML, a field missing or unknown, or a value of the wrong form.
    #[error("the profile cannot be read: {reason}")]
    Toml {
        /// With the line and what is wrong there.
        reason: String,
    },
    /// Profiles are named in commands and in the audit log.
    #[error("the profile's name {name:?} is not 1 to 32 lower-case letters, digits and hyphens")]
    Name {
        /// The name.
        name: String,
    },
    /// A list without entries.
    #[error("the profile {name} has an empty list {field}; give at least one entry")]
    Empty {
        /// The profile.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// An entry twice.
    #[error("the profile {name} has an entry twice in {field}; take one out")]
    Repeated {
        /// The profile.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// A certificate names one principal, or a server.
    #[error(
        "the profile {name} mixes names; give [\"member\"], [\"replica\"] or [\"gateway\"] alone, or \"dns\" and \"ip\" for a \
         server"
    )]
    Names {
        /// The profile.
        name: String,
    },
    /// No life, or over [`MAX_VALIDITY`].
    #[error("the profile {name} has a validity that is not 1m to 398d")]
    Validity {
        /// The profile.
        name: String,
    },
    /// Over [`MAX_BACKDATE`].
    #[error("the profile {name} has a backdate over 1d; it makes up for slow clocks, minutes are enough")]
    Backdate {
        /// The profile.
        name: String,
    },
}

/// The profiles of a federation, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profiles(BTreeMap<String, Profile>);

impl Profile {
    /// The profile of members.
    pub const OPERATOR: &'static str = "operator";
    /// The profile of the broker's own server.
    pub const BROKER_SERVER: &'static str = "broker-server";
    /// The profile of replicas.
    pub const REPLICA: &'static str = "replica";
    /// The profile of members' network and application servers.
    pub const LNS: &'static str = "lns";
    /// The profile of members' gateways.
    pub const GATEWAY: &'static str = "gateway";

    /// Reads a file of `certs/profiles`. Unknown fields are refused by name.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let file: File = toml::from_str(text).map_err(|error| ProfileError::Toml { reason: error.to_string() })?;
        file.check()?;
        let File { name, names, extended_key_usages, key_types, validity, backdate } = file;
        Ok(Self { name, names, extended_key_usages, key_types, validity, backdate })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its certificates may name.
    pub fn names(&self) -> &[NameKind] {
        &self.names
    }

    /// What the holder may do.
    pub fn extended_key_usages(&self) -> &[ExtendedKeyUsage] {
        &self.extended_key_usages
    }

    /// Which keys it takes.
    pub fn key_policy(&self) -> KeyPolicy {
        KeyPolicy::allowing(self.key_types.iter().copied())
    }

    /// How long a certificate lives after it was issued.
    pub fn validity(&self) -> Seconds {
        self.validity
    }

    /// How long before it was issued a certificate is valid, for clients whose clocks are slow.
    pub fn backdate(&self) -> Seconds {
        self.backdate
    }
}

impl Profiles {
    /// Those that come with the program: `certs/profiles`.
    pub fn builtin() -> Result<Self, ProfileError> {
        let mut profiles = Self(BTreeMap::new());
        for text in BUILTIN {
            profiles.insert(Profile::from_toml(text)?);
        }
        Ok(profiles)
    }

    /// Adds a profile. One of the same name gives way, and is returned.
    pub fn insert(&mut self, profile: Profile) -> Option<Profile> {
        self.0.insert(profile.name.clone(), profile)
    }

    /// The profile of this name.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.values()
    }
}

/// A profile as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    names: Vec<NameKind>,
    extended_key_usages: Vec<ExtendedKeyUsage>,
    key_types: Vec<KeyKind>,
    validity: Seconds,
    backdate: Seconds,
}

impl File {
    fn check(&self) -> Result<(), ProfileError> {
        let name = self.name.clone();
        let in_alphabet = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !in_alphabet || !(1..=32).contains(&name.len()) {
            return Err(ProfileError::Name { name });
        }
        check_list(&name, "names", &self.names)?;
        check_list(&name, "extended_key_usages", &self.extended_key_usages)?;
        check_list(&name, "key_types", &self.key_types)?;
        let principal =
            self.names.iter().any(|kind| matches!(kind, NameKind::Member | NameKind::Replica | NameKind::Gateway));
        if principal && self.names.len() > 1 {
            return Err(ProfileError::Names { name });
        }
        if !(MIN_VALIDITY..=MAX_VALIDITY).contains(&self.validity) {
            return Err(ProfileError::Validity { name });
        }
        if self.backdate > MAX_BACKDATE {
            return Err(ProfileError::Backdate { name });
        }
        Ok(())
    }
}

fn check_list<T: Ord>(name: &str, field: &'static str, list: &[T]) -> Result<(), ProfileError> {
    if list.is_empty() {
        return Err(ProfileError::Empty { name: name.to_owned(), field });
    }
    let mut sorted: Vec<&T> = list.iter().collect();
    sorted.sort();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ProfileError::Repeated { name: name.to_owned(), field });
    }
    Ok(())
}

impl Seconds {
    /// As a number.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl FromStr for Seconds {
    type Err = SecondsError;

    fn from_str(text: &str) -> Result<Self, SecondsError> {
        let error = || SecondsError { found: text.chars().take(32).collect() };
        let unit = text.chars().last().ok_or_else(error)?;
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        let digits = &text[..text.len() - unit.len_utf8()];
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let count: i64 = digits.parse().map_err(|_| error())?;
        count.checked_mul(*seconds).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Seconds {
    /// In the longest unit of days and below that says it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().filter(|(name, _)| *name != 'w');
        let (name, seconds) = exact.rev().find(|(_, seconds)| self.0 % seconds == 0).unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.0 / seconds)
    }
}

serde_as_text!(Seconds);

/// The longest life of a leaf: that of a year and a renewal, as with public CAs.
pub const MAX_VALIDITY: Seconds = Seconds(398 * DAY);
/// The longest time that a leaf is valid before it was issued.
pub const MAX_BACKDATE: Seconds = Seconds(DAY);
const MIN_VALIDITY: Seconds = Seconds(60);
const DAY: i64 = 86_400;
const UNITS: [(char, i64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', DAY), ('w', 7 * DAY)];
const BUILTIN: [&str; 5] = [
    include_str!("../../../certs/profiles/operator.toml"),
    include_str!("../../../certs/profiles/broker-server.toml"),
    include_str!("../../../certs/profiles/replica.toml"),
    include_str!("../../../certs/profiles/lns.toml"),
    include_str!("../../../certs/profiles/gateway.toml"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_built_in_profiles_are_whole() {
        let profiles = Profiles::builtin().expect("they are tested here");
        let names: Vec<_> = profiles.iter().map(Profile::name).collect();
        assert_eq!(
            names,
            [Profile::BROKER_SERVER, Profile::GATEWAY, Profile::LNS, Profile::OPERATOR, Profile::REPLICA]
        );
        let operator = profiles.get(Profile::OPERATOR).expect("built in");
        assert_eq!((operator.validity().get(), operator.backdate().get()), (14 * DAY, 300));
        assert_eq!(operator.names(), [NameKind::Member]);
        assert_eq!(operator.extended_key_usages(), [ExtendedKeyUsage::ClientAuth]);
    }

    #[test]
    fn what_is_no_profile_is_refused_with_the_reason() {
        let good = BUILTIN[0];
        let error = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            Profile::from_toml(&good.replace(from, to)).expect_err(to)
        };
        let name = || "operator".to_owned();
        assert!(error("backdate", "back_date").to_string().contains("unknown field `back_date`"));
        assert!(error("\"14d\"", "\"14y\"").to_string().contains("\"14y\" is not a length of time"));
        assert!(error("client-auth", "code-signing").to_string().contains("unknown variant `code-signing`"));
        assert_eq!(error("name = \"operator\"", "name = \"Op\""), ProfileError::Name { name: "Op".to_owned() });
        assert_eq!(error("[\"member\"]", "[]"), ProfileError::Empty { name: name(), field: "names" });
        assert_eq!(error("[\"member\"]", "[\"member\", \"dns\"]"), ProfileError::Names { name: name() });
        assert_eq!(
            error("[\"member\"]", "[\"dns\", \"dns\"]"),
            ProfileError::Repeated { name: name(), field: "names" }
        );
        assert_eq!(error("14d", "0s"), ProfileError::Validity { name: name() });
        assert_eq!(error("14d", "399d"), ProfileError::Validity { name: name() });
        assert_eq!(error("5m", "25h"), ProfileError::Backdate { name: name() });
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in ["", "d", "14", "-1d", "+1d", "1.5h", "1 d", "99999999999999999999d", "9223372036854775807w", "1é"]
        {
            assert!(text.parse::<Seconds>().is_err(), "{text:?}");
        }
        assert_eq!("2w".parse::<Seconds>().map(|s| s.to_string()), Ok("14d".to_owned()));
    }

    proptest! {
        #[test]
        fn lengths_of_time_survive_text(seconds in 0..i64::MAX) {
            prop_assert_eq!(Seconds(seconds).to_string().parse(), Ok(Seconds(seconds)));
        }
    }
}
