//! What is counted, and its form for Prometheus (text format 0.0.4).
//!
//! Counters are relaxed atomics on lines of their own, so that counting costs a query a few nanoseconds.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use dnsbroker_store::{Denial, View};
use dnsbroker_zone::answer::{Answered, Outcome};

use crate::histogram::{Counts, Histogram, at_most};
use crate::shared::Tally;
use crate::statistics::Sample;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// DNS over HTTPS.
    Doh,
    /// Plain DNS, UDP.
    Udp,
    /// Plain DNS, TCP.
    Tcp,
    /// DNS over TLS for transfers.
    Xot,
}

impl Transport {
    const ALL: [Self; 4] = [Self::Doh, Self::Udp, Self::Tcp, Self::Xot];

    fn label(self) -> &'static str {
        match self {
            Self::Doh => "doh",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Xot => "xot",
        }
    }
}

/// How a handshake ended; the label of a metric and the start of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With a new session.
    Full,
    /// By resuming one.
    Resumed,
    /// The client sent no certificate.
    NoCertificate,
    /// Of another CA.
    WrongCa,
    /// No longer or not yet valid.
    Expired,
    /// Revoked.
    Revoked,
    /// None, several, or those of another federation.
    Identity,
    /// Not registered, suspended, or gone.
    Denied,
    /// The client doesn't trust us.
    Distrust,
    /// No TLS, or none that we speak.
    Protocol,
    /// The client went away, or was too slow.
    Broken,
    /// Too many connections.
    Crowded,
}

impl Handshake {
    const ALL: [Self; 12] = [
        Self::Full,
        Self::Resumed,
        Self::NoCertificate,
        Self::WrongCa,
        Self::Expired,
        Self::Revoked,
        Self::Identity,
        Self::Denied,
        Self::Distrust,
        Self::Protocol,
        Self::Broken,
        Self::Crowded,
    ];

    /// The label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::NoCertificate => "no-certificate",
            Self::WrongCa => "wrong-ca",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Identity => "identity",
            Self::Denied => "denied",
            Self::Distrust => "distrust",
            Self::Protocol => "protocol",
            Self::Broken => "broken",
            Self::Crowded => "crowded",
        }
    }
}

/// A label of a metric: one of a few.
trait Label: Copy + PartialEq + 'static {
    const ALL: &'static [Self];
    fn text(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$head:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$head])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];
            fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

labels! {
    /// Which way a transfer went.
    Direction {
        /// From a member's primary.
        In = "in",
        /// To a replica.
        Out = "out",
    }
}

labels! {
    /// What a transfer was.
    TransferKind {
        /// The whole zone.
        Whole = "axfr",
        /// What had changed.
        Difference = "ixfr",
        /// Nothing had changed.
        Current = "current",
    }
}

impl TransferKind {
    /// Its name in logs.
    pub fn label(self) -> &'static str {
        self.text()
    }
}

labels! {
    /// What became of an update.
    UpdateResult {
        /// It is durable.
        Done = "done",
        /// A prerequisite did not hold.
        Prerequisite = "prerequisite",
        /// A rule forbids it.
        Refused = "refused",
        /// The store failed.
        Failed = "failed",
    }
}

labels! {
    /// What became of a NOTIFY.
    Notified {
        /// From a source of ours.
        Accepted = "accepted",
        /// From somebody else.
        Refused = "refused",
    }
}

/// Why a record of a transfer in is not taken: its name is no DevEUI, another member holds the device, it is out of the
/// member's ranges, another source of the member brings it.
pub const REJECTED: [&str; 4] = ["no-deveui", "claimed", "outside", "filled"];

/// Counters by label.
struct By<L: Label>(Vec<Counter>, std::marker::PhantomData<L>);

impl<L: Label> Default for By<L> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|_| Counter::default()).collect(), std::marker::PhantomData)
    }
}

impl<L: Label> By<L> {
    fn at(&self, label: L) -> &Counter {
        &self.0[L::ALL.iter().position(|known| *known == label).unwrap_or_default()]
    }
}

/// Upper bounds of the latency buckets, in nanoseconds and as Prometheus writes them.
const BUCKETS: [(u64, &str); 8] = [
    (1_000, "0.000001"),
    (2_000, "0.000002"),
    (5_000, "0.000005"),
    (10_000, "0.00001"),
    (100_000, "0.0001"),
    (1_000_000, "0.001"),
    (10_000_000, "0.01"),
    (100_000_000, "0.1"),
];

/// One counter on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts so many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted.
#[derive(Default)]
pub struct Metrics {
    answers: [[Counter; Outcome::ALL.len()]; Transport::ALL.len()],
    /// Time to make an answer over DoH, and over all else.
    took: [Histogram; 2],
    handshakes: [Counter; Handshake::ALL.len()],
    xot_handshakes: [Counter; Handshake::ALL.len()],
    transfers: [By<TransferKind>; 2],
    transfer_failures: By<Direction>,
    transfer_records: By<Direction>,
    transfer_rejected: [Counter; REJECTED.len()],
    transfer_octets: By<Direction>,
    transfer_microseconds: By<Direction>,
    updates: By<UpdateResult>,
    notifies: By<Notified>,
    bad_signatures: Counter,
    denials: Counter,
    http_errors: Counter,
    connections: AtomicI64,
    commits: Counter,
    acts: Counter,
    commit_microseconds: Counter,
    store_failures: Counter,
}

impl Metrics {
    /// Counts an answer.
    pub fn dns(&self, transport: Transport, answered: &Answered, took: Duration) {
        let outcome = Outcome::ALL.iter().position(|outcome| *outcome == answered.outcome).unwrap_or_default();
        self.answers[transport as usize][outcome].add(1);
        self.took[usize::from(transport != Transport::Doh)].add(took);
    }

    /// What statistics are made of, as of now.
    pub fn sample(&self) -> Sample {
        Sample {
            answers: std::array::from_fn(|outcome| self.answers[Transport::Doh as usize][outcome].get()),
            took: self.took[0].counts(),
            commits: self.commits.get(),
            acts: self.acts.get(),
        }
    }

    /// Open DoH connections.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed).max(0) as u64
    }

    /// Counts a handshake.
    pub fn handshake(&self, result: Handshake) {
        self.handshakes[result as usize].add(1);
    }

    /// Counts a handshake of XoT.
    pub fn xot_handshake(&self, result: Handshake) {
        self.xot_handshakes[result as usize].add(1);
    }

    /// Counts a transfer.
    pub fn transferred(
        &self,
        direction: Direction,
        kind: TransferKind,
        whole: bool,
        records: u64,
        octets: u64,
        took: Duration,
    ) {
        if whole {
            self.transfers[usize::from(direction == Direction::Out)].at(kind).add(1);
        } else {
            self.transfer_failures.at(direction).add(1);
        }
        self.transfer_records.at(direction).add(records);
        self.transfer_octets.at(direction).add(octets);
        self.transfer_microseconds.at(direction).add(took.as_micros() as u64);
    }

    /// Counts what a transfer in brought that was not taken, in the order of [`REJECTED`].
    pub fn rejected(&self, counts: [u64; REJECTED.len()]) {
        self.transfer_rejected.iter().zip(counts).for_each(|(counter, count)| counter.add(count));
    }

    /// Counts an update.
    pub fn updated(&self, result: UpdateResult) {
        self.updates.at(result).add(1);
    }

    /// Counts a NOTIFY that came.
    pub fn notified(&self, result: Notified) {
        self.notifies.at(result).add(1);
    }

    /// Counts a TSIG signature that is not accepted.
    pub fn bad_signature(&self) {
        self.bad_signatures.add(1);
    }

    /// Counts a live connection or request that is no longer admitted.
    pub fn denied(&self, _denial: &Denial) {
        self.denials.add(1);
    }

    /// Counts a request that got an HTTP error.
    pub fn http_error(&self) {
        self.http_errors.add(1);
    }

    /// A connection of a member opened (1) or closed (-1).
    pub fn connection(&self, change: i64) {
        self.connections.fetch_add(change, Ordering::Relaxed);
    }

    /// Counts a group commit.
    pub fn store_committed(&self, acts: usize, took: Duration) {
        self.commits.add(1);
        self.acts.add(acts as u64);
        self.commit_microseconds.add(took.as_micros() as u64);
    }

    /// Counts a commit that failed.
    pub fn store_failed(&self) {
        self.store_failures.add(1);
    }

    /// All of it as text.
    pub fn render(&self, view: &View, members: &[(dnsbroker_federation::MemberId, std::sync::Arc<Tally>)]) -> String {
        let mut page = Page::default();
        page.family("dnsbroker_dns_answers_total", "counter", "DNS answers by transport and result.");
        for (transport, outcomes) in Transport::ALL.iter().zip(&self.answers) {
            for (outcome, counter) in Outcome::ALL.iter().zip(outcomes) {
                let labels = format!("transport=\"{}\",result=\"{}\"", transport.label(), outcome.label());
                page.sample(&labels, counter.get());
            }
        }
        self.render_took(&mut page);
        page.family("dnsbroker_handshakes_total", "counter", "TLS handshakes of DoH by result.");
        for (result, counter) in Handshake::ALL.iter().zip(&self.handshakes) {
            page.sample(&format!("result=\"{}\"", result.label()), counter.get());
        }
        self.render_transfers(&mut page);
        page.one(
            "dnsbroker_denials_total",
            "counter",
            "Requests of open connections whose member or certificate is no longer admitted.",
            self.denials.get(),
        );
        page.one(
            "dnsbroker_http_errors_total",
            "counter",
            "DoH requests answered with an HTTP error.",
            self.http_errors.get(),
        );
        page.one("dnsbroker_connections", "gauge", "Open DoH connections.", self.connections());
        page.family("dnsbroker_member_queries_total", "counter", "DoH queries by member.");
        for (id, tally) in members {
            page.sample(&format!("member=\"{id}\""), tally.answers().iter().sum());
        }
        page.family(
            "dnsbroker_member_unknown_total",
            "counter",
            "Names that nobody has registered, asked for by member.",
        );
        for (id, tally) in members {
            page.sample(&format!("member=\"{id}\""), tally.unknown_total.load(Ordering::Relaxed));
        }
        page.family(
            "dnsbroker_member_limited_total",
            "counter",
            "DoH queries refused for too many of those, by member.",
        );
        for (id, tally) in members {
            page.sample(&format!("member=\"{id}\""), tally.limited.load(Ordering::Relaxed));
        }
        page.one("dnsbroker_commits_total", "counter", "Durable group commits.", self.commits.get());
        page.one("dnsbroker_acts_total", "counter", "Changes taken by them, refused ones included.", self.acts.get());
        page.seconds(
            "dnsbroker_commit_seconds_total",
            "Time spent in commits.",
            self.commit_microseconds.get() as f64 / 1e6,
        );
        page.one("dnsbroker_store_failures_total", "counter", "Commits that failed.", self.store_failures.get());
        page.one("dnsbroker_devices", "gauge", "Devices registered.", view.zones.devices().len());
        page.one("dnsbroker_netids", "gauge", "NetIDs registered.", view.zones.networks().len() as u64);
        page.one("dnsbroker_members", "gauge", "Members of the federation.", view.members.len() as u64);
        page.one("dnsbroker_zone_serial", "gauge", "Serial of the private zones.", view.zones.serial().get().into());
        page.process();
        page.0
    }

    fn render_transfers(&self, page: &mut Page) {
        page.family("dnsbroker_xot_handshakes_total", "counter", "TLS handshakes of XoT by result.");
        for (result, counter) in Handshake::ALL.iter().zip(&self.xot_handshakes) {
            page.sample(&format!("result=\"{}\"", result.label()), counter.get());
        }
        page.family("dnsbroker_transfers_total", "counter", "Whole zone transfers by direction and kind.");
        for (direction, kinds) in Direction::ALL.iter().zip(&self.transfers) {
            for kind in TransferKind::ALL {
                let labels = format!("direction=\"{}\",kind=\"{}\"", direction.text(), kind.text());
                page.sample(&labels, kinds.at(*kind).get());
            }
        }
        let directions: [(&'static str, &str, &By<Direction>); 3] = [
            ("dnsbroker_transfer_failures_total", "Zone transfers that failed.", &self.transfer_failures),
            ("dnsbroker_transfer_records_total", "Records of zone transfers.", &self.transfer_records),
            ("dnsbroker_transfer_bytes_total", "Octets of zone transfers.", &self.transfer_octets),
        ];
        for (name, help, counters) in directions {
            page.family(name, "counter", help);
            for direction in Direction::ALL {
                page.sample(&format!("direction=\"{}\"", direction.text()), counters.at(*direction).get());
            }
        }
        page.family(
            "dnsbroker_transfer_rejected_total",
            "counter",
            "Records of transfers in that were not taken, by reason.",
        );
        for (reason, counter) in REJECTED.iter().zip(&self.transfer_rejected) {
            page.sample(&format!("reason=\"{reason}\""), counter.get());
        }
        page.family("dnsbroker_transfer_seconds_total", "counter", "Time spent in zone transfers.");
        for direction in Direction::ALL {
            let seconds = self.transfer_microseconds.at(*direction).get() as f64 / 1e6;
            page.line(&format!("dnsbroker_transfer_seconds_total{{direction=\"{}\"}} {seconds}", direction.text()));
        }
        page.family("dnsbroker_updates_total", "counter", "Dynamic updates (RFC 2136) by result.");
        for result in UpdateResult::ALL {
            page.sample(&format!("result=\"{}\"", result.text()), self.updates.at(*result).get());
        }
        page.family("dnsbroker_notifies_total", "counter", "NOTIFY messages received, by result.");
        for result in Notified::ALL {
            page.sample(&format!("result=\"{}\"", result.text()), self.notifies.at(*result).get());
        }
        page.one(
            "dnsbroker_bad_signatures_total",
            "counter",
            "TSIG signatures that were not accepted.",
            self.bad_signatures.get(),
        );
    }

    fn render_took(&self, page: &mut Page) {
        let name = "dnsbroker_answer_seconds";
        page.family(name, "histogram", "Time to make an answer, without transport.");
        let [doh, others] = [self.took[0].counts(), self.took[1].counts()];
        let counts: Counts = std::array::from_fn(|place| doh[place] + others[place]);
        for (nanoseconds, bound) in BUCKETS {
            let count = at_most(&counts, nanoseconds);
            page.line(&format!("{name}_bucket{{le=\"{bound}\"}} {count}"));
        }
        let count: u64 = counts.iter().sum();
        page.line(&format!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        page.line(&format!("{name}_sum {}", (self.took[0].sum() + self.took[1].sum()) as f64 / 1e9));
        page.line(&format!("{name}_count {count}"));
    }
}

/// A page in the making.
#[derive(Default)]
struct Page(String, &'static str);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        self.line(&format!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, labels: &str, value: u64) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{}{{{labels}}} {value}", self.1);
    }

    fn one(&mut self, name: &'static str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.line(&format!("{name} {value}"));
    }

    fn seconds(&mut self, name: &'static str, help: &str, value: f64) {
        self.family(name, "counter", help);
        self.line(&format!("{name} {value}"));
    }

    /// Memory and processor time of the process (proc(5)).
    fn process(&mut self) {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = status.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or_default();
        let bytes = pages * rustix::param::page_size() as u64;
        self.one("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The program's name, in parentheses, may have blanks; fields are counted after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        let seconds = (ticks(11) + ticks(12)) as f64 / rustix::param::clock_ticks_per_second() as f64;
        self.seconds("process_cpu_seconds_total", "Processor time.", seconds);
    }
}
