//! Every bound on what the agent takes, in one place.

use std::time::Duration;

/// Time to connect to a broker and shake hands.
pub const CONNECT: Duration = Duration::from_secs(3);
/// Time for one exchange with a broker, whatever the asker's patience: the answer still fills the cache.
pub const EXCHANGE: Duration = Duration::from_secs(5);
/// A second broker is asked when the first has been silent for so long, at least and at most.
pub const HEDGE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(400));
/// A broker that failed is left alone for so long at first, and at most; until then others are asked.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// What is left of that is waited for, if it is not longer: a question that nobody else answers comes back with an answer.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// A broker is asked for its SOA this often: the connection stays warm, and it is known which one is fastest.
pub const PROBE: Duration = Duration::from_secs(45);
/// An HTTP/2 connection on which nothing moves is tried with a PING after so long, and given up after so long again.
pub const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));
/// A new connection's last words of the handshake wait so long for the first request, to go in one packet with it.
pub const FIRST_REQUEST: Duration = Duration::from_millis(10);
/// Time for a connection that broke to tell why.
pub const LAST_WORDS: Duration = Duration::from_millis(50);
/// Time for a broker that closes its connections to say why.
pub const VERDICT: Duration = Duration::from_millis(500);
/// Octets of a DNS message.
pub const MESSAGE: usize = 65_535;
/// TLS sessions kept for resumption, of one federation.
pub const SESSIONS: usize = 32;

/// Time for one try of a plain upstream over UDP, and how many there are.
pub const UDP_TRY: (Duration, usize) = (Duration::from_millis(800), 3);
/// Time for a plain upstream over TCP.
pub const TCP_TRY: Duration = Duration::from_secs(4);
/// Questions under way at once; more get SERVFAIL.
pub const FLIGHTS: usize = 4_096;
/// Time in which a client of the resolver gets an answer, if only SERVFAIL.
pub const CLIENT: Duration = Duration::from_secs(4);
/// After so long a stale answer is given while the fresh one is still waited for (RFC 8767, section 5).
pub const STALE_AFTER: Duration = Duration::from_millis(1_800);
/// TTL of a stale answer (RFC 8767, section 4).
pub const STALE_TTL: u32 = 30;
/// TCP connections of the resolver wait so long for a query.
pub const TCP_IDLE: Duration = Duration::from_secs(10);

/// Octets of a TS002 message: PHYPayload has 255 at most, and gateways some hundred octets each.
pub const TS002_BODY: usize = 256 * 1024;
/// Time for a Join Server to answer.
pub const JOIN_SERVER: Duration = Duration::from_secs(4);
/// Connections of the TS002 endpoint, of metrics and of the control socket, each.
pub const CONNECTIONS: usize = 512;
/// Time for the headers of a request.
pub const HEADERS: Duration = Duration::from_secs(10);
/// A connection without a request is closed after so long. ChirpStack keeps its own open for reuse.
pub const IDLE: Duration = Duration::from_secs(600);

/// Devices of one source.
pub const DEVICES: usize = 20_000_000;
/// Octets of a list in a file, a command's output or an answer of a service.
pub const LIST: u64 = 1024 * 1024 * 1024;
/// Time for a source to give its list.
pub const SOURCE: Duration = Duration::from_secs(600);
/// A difference is sent as one up to so many devices; the whole list is shorter to explain than a larger one.
pub const DELTA: usize = 50_000;
/// Rejected rows and claimed devices that are shown one by one.
pub const SHOWN: usize = 20;
/// Time for a hook to end.
pub const HOOK: Duration = Duration::from_secs(60);
