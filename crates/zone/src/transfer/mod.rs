//! Zone transfers (RFC 5936, RFC 1995) as data: what goes out, message by message, and what comes in.

pub mod inbound;
pub mod outgoing;

/// How devices are named in what a replica gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameForm {
    /// 16 nibble labels.
    #[default]
    Nibble,
    /// One label.
    Flat,
    /// A record of each.
    Both,
}
