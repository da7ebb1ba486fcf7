//! Every bound on what peers may take, in one place. Defaults suit a federation of some hundred members on one machine.

use std::time::Duration;

use serde::Deserialize;

/// Bounds that are set under `[limits]`; where nothing else is said, of the DoH front.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections of all members together; more are closed at once.
    pub connections: usize,
    /// Connections of one member; more are closed after the handshake, so that one member's fault leaves room for others.
    pub connections_per_member: usize,
    /// Handshakes at once; more wait their turn within `handshake_seconds`.
    pub handshakes: usize,
    /// Seconds from accepting a connection to the end of its handshake.
    pub handshake_seconds: u64,
    /// Seconds without a request after which a connection is closed.
    pub idle_seconds: u64,
    /// Seconds for the headers of an HTTP/1.1 request, and for the body of any.
    pub request_seconds: u64,
    /// HTTP/2 streams of one connection at once (RFC 9113, section 5.1.2).
    pub streams: u32,
    /// Octets of a request's headers.
    pub header_octets: u32,
    /// Sessions that can be resumed without a new signature.
    pub sessions: usize,
    /// Connections of plain DNS (TCP).
    pub dns_connections: usize,
    /// The same of one address.
    pub dns_connections_per_address: usize,
    /// Connections of zone transfers over TLS.
    pub xot_connections: usize,
    /// The same of one member or replica.
    pub xot_connections_per_principal: usize,
    /// Records of one transfer from a source.
    pub source_records: u64,
    /// Octets of one transfer from a source.
    pub source_octets: u64,
    /// Requests a minute of one member, administrator or API token over the API.
    pub api_requests_per_minute: u32,
    /// The same of one address without an identity: enrolments, logins.
    pub api_requests_per_minute_anonymous: u32,
    /// Look-ups a minute of one member that may end in NXDOMAIN; 0 is no bound. More is how a zone is walked.
    pub nxdomain_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_member: 512,
            handshakes: 256,
            handshake_seconds: 10,
            idle_seconds: 300,
            request_seconds: 10,
            streams: 256,
            header_octets: 16 * 1024,
            sessions: 8_192,
            dns_connections: 1_024,
            dns_connections_per_address: 64,
            xot_connections: 512,
            xot_connections_per_principal: 32,
            source_records: 20_000_000,
            source_octets: 2 * 1024 * 1024 * 1024,
            api_requests_per_minute: 6_000,
            api_requests_per_minute_anonymous: 600,
            nxdomain_per_minute: 60_000,
        }
    }
}

/// Streams a client has reset that HTTP/2 still keeps; a client that resets more is cut (CVE-2023-44487).
pub const PENDING_RESETS: usize = 64;
/// Streams we reset for a client's errors before it is cut (RUSTSEC-2024-0332).
pub const ERROR_RESETS: usize = 256;
/// Octets of one stream in flight: a DNS message fits, and little more.
pub const STREAM_WINDOW: u32 = 128 * 1024;
/// Octets of one connection in flight.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Transfers of one replica at once: both zones, and those of a secondary that has just been restarted.
pub const TRANSFERS: usize = 8;
/// Octets of a DNS message (RFC 8484, section 6).
pub const MESSAGE: usize = 65_535;
/// Octets of a request's target: as long as hyper takes one. Messages that do not fit go by POST.
pub const TARGET: usize = 65_534;

impl Limits {
    /// Time for a handshake.
    pub fn handshake(&self) -> Duration {
        Duration::from_secs(self.handshake_seconds)
    }

    /// Time for headers or body.
    pub fn request(&self) -> Duration {
        Duration::from_secs(self.request_seconds)
    }

    /// What would make the broker useless, in words.
    pub fn problem(&self) -> Option<&'static str> {
        let zero = [self.connections, self.connections_per_member, self.handshakes, self.sessions].contains(&0)
            || [self.dns_connections, self.dns_connections_per_address].contains(&0)
            || [self.xot_connections, self.xot_connections_per_principal].contains(&0);
        let no_time = [self.handshake_seconds, self.idle_seconds, self.request_seconds].contains(&0);
        match () {
            () if zero => Some("numbers of connections, handshakes and sessions are at least 1"),
            () if no_time => Some("times are at least 1 second"),
            () if self.streams == 0 => Some("streams is at least 1"),
            () if self.header_octets < 1_024 => Some("header_octets is at least 1024"),
            () => None,
        }
    }
}
