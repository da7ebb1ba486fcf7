//! What is counted, in Prometheus' text format (0.0.4).

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::now;
use crate::daemon::Agent;
use crate::identity::renew_at;
use crate::upstream::doh::Failure;
use crate::{dns, lookup, server_certificate, ts002};

/// Writes families of metrics.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP dnsbroker_agent_{name} {help}\n# TYPE dnsbroker_agent_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "dnsbroker_agent_{name}{labels} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) {
        self.family(name, "counter", help);
        self.sample(name, &[], load(value));
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, samples: &[(&str, &AtomicU64)]) {
        self.family(name, "counter", help);
        for (text, value) in samples {
            self.sample(name, &[(label, text)], load(value));
        }
    }
}

fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ")
}

fn seconds(micros: &AtomicU64) -> f64 {
    load(micros) as f64 / 1e6
}

/// All of them.
pub fn render(agent: &Agent) -> String {
    let mut page = Page::default();
    resolver(&mut page, agent);
    endpoint(&mut page, agent);
    federations(&mut page, agent);
    syncs(&mut page, agent);
    page.family("ready", "gauge", "Whether each federation can be asked.");
    page.sample("ready", &[], u8::from(agent.trouble().is_none()));
    page.0
}

fn resolver(page: &mut Page, agent: &Agent) {
    let (desk, resolver) = (&agent.desk, agent.lookups.resolver());
    let [udp, tcp] = &desk.counts.queries;
    page.counters("dns_queries_total", "Queries to the resolver.", "transport", &[("udp", udp), ("tcp", tcp)]);
    let codes: Vec<_> = dns::Counts::CODES.into_iter().zip(&desk.counts.codes).collect();
    page.counters("dns_answers_total", "Answers of the resolver.", "rcode", &codes);
    page.counter("dns_withheld_total", "Private names that did not go to an upstream.", &desk.counts.withheld);
    let counts = &resolver.counts;
    let cache = [("hit", &counts.hits), ("miss", &counts.misses), ("stale", &counts.stale)];
    page.counters("cache_lookups_total", "Look-ups in the cache.", "result", &cache);
    page.counter("cache_prefetched_total", "Answers asked for anew before their end.", &counts.prefetched);
    page.counter("lookups_joined_total", "Questions that waited for the same one under way.", &counts.joined);
    page.counter("lookups_crowded_total", "Questions turned away: too many at once.", &counts.crowded);
    let (names, octets) = resolver.cache_size();
    page.family("cache_names", "gauge", "Answers in the cache.");
    page.sample("cache_names", &[], names);
    page.family("cache_octets", "gauge", "Octets of those.");
    page.sample("cache_octets", &[], octets);
    let outcomes: Vec<_> = lookup::Counts::LABELS.into_iter().zip(&agent.lookups.counts.outcomes).collect();
    page.counters("devices_total", "Devices looked up in all federations.", "outcome", &outcomes);
    let conflicts = &agent.lookups.counts.conflicts;
    page.counter("conflicts_total", "Devices that several federations claim.", conflicts);
}

fn endpoint(page: &mut Page, agent: &Agent) {
    let counts = &agent.endpoint.counts;
    let results: Vec<_> =
        ts002::message::ResultCode::COUNTED.iter().map(|code| code.text()).zip(&counts.results).collect();
    page.counters("home_ns_total", "HomeNSReq by result.", "result", &results);
    page.family("home_ns_seconds_total", "counter", "Time until the answers to HomeNSReq, of all together.");
    page.sample("home_ns_seconds_total", &[], seconds(&counts.micros));
    let others = [
        ("passed-on", &counts.passed_on),
        ("join-server-failed", &counts.join_failed),
        ("not-ours", &counts.not_ours),
        ("malformed", &counts.malformed),
    ];
    page.counters("ts002_others_total", "Messages that are no HomeNSReq.", "what", &others);
}

fn federations(page: &mut Page, agent: &Agent) {
    let all: Vec<_> = agent.federations().iter().map(|federation| (federation.name(), federation)).collect();
    page.family("federation_answers_total", "counter", "Questions to a federation's brokers, by outcome.");
    for (name, federation) in &all {
        let counts = &federation.counts;
        let outcomes = [("found", &counts.found), ("absent", &counts.absent), ("prohibited", &counts.prohibited)];
        for (outcome, value) in outcomes.into_iter().chain([("failed", &counts.failed)]) {
            page.sample("federation_answers_total", &[("federation", name), ("outcome", outcome)], load(value));
        }
    }
    page.family("federation_seconds_total", "counter", "Time until those were answered, of all together.");
    for (name, federation) in &all {
        page.sample("federation_seconds_total", &[("federation", name)], seconds(&federation.counts.micros));
    }
    page.family("federation_conflicts_total", "counter", "Devices that another federation was believed to have.");
    for (name, federation) in &all {
        page.sample("federation_conflicts_total", &[("federation", name)], load(&federation.counts.conflicts));
    }
    page.family("certificate_expiry_seconds", "gauge", "Time until our certificate ends.");
    page.family("certificate_renewal_seconds", "gauge", "Time until it is to be renewed.");
    for (name, federation) in &all {
        let life = federation.identity().map_or((0, 0), |identity| identity.life);
        page.sample("certificate_expiry_seconds", &[("federation", name)], life.1 - now());
        page.sample("certificate_renewal_seconds", &[("federation", name)], renew_at(life) - now());
    }
    page.family("certificate_renewals_total", "counter", "Renewals, by outcome.");
    for ((name, _), counts) in all.iter().zip(&agent.renewals) {
        for (outcome, value) in [("renewed", &counts.renewed), ("failed", &counts.failed)] {
            page.sample("certificate_renewals_total", &[("federation", name), ("outcome", outcome)], load(value));
        }
    }
    server_certificates(page, agent, &all);
    brokers(page, &all);
}

fn server_certificates(page: &mut Page, agent: &Agent, all: &[Named<'_>]) {
    if agent.servers.is_empty() {
        return;
    }
    let got: Vec<_> =
        all.iter().zip(&agent.servers).map(|((name, federation), state)| (name, federation, state)).collect();
    page.family("server_certificate_expiry_seconds", "gauge", "Time until the network server's certificate ends.");
    page.family("server_certificate_renewal_seconds", "gauge", "Time until it is to be renewed.");
    for (name, federation, _) in &got {
        let life = server_certificate::in_place(federation).map_or((0, 0), |facts| facts.life);
        page.sample("server_certificate_expiry_seconds", &[("federation", name)], life.1 - now());
        page.sample("server_certificate_renewal_seconds", &[("federation", name)], renew_at(life) - now());
    }
    page.family("server_certificate_renewals_total", "counter", "Certificates of the network server, by outcome.");
    for (name, _, state) in &got {
        for (outcome, value) in [("renewed", &state.counts.renewed), ("failed", &state.counts.failed)] {
            page.sample(
                "server_certificate_renewals_total",
                &[("federation", name), ("outcome", outcome)],
                load(value),
            );
        }
    }
}

type Named<'a> = (String, &'a std::sync::Arc<crate::upstream::federation::Federation>);

fn brokers(page: &mut Page, all: &[Named<'_>]) {
    page.family("broker_up", "gauge", "Whether the broker's last answer was good.");
    page.family("broker_rtt_seconds", "gauge", "Time of an exchange with the broker, smoothed.");
    page.family("broker_handshakes_total", "counter", "TLS handshakes with the broker.");
    page.family("broker_failures_total", "counter", "Exchanges with the broker that failed, by reason.");
    for (name, federation) in all {
        for broker in federation.brokers().iter() {
            let uri = broker.place.uri.to_string();
            let labels = [("federation", name.as_str()), ("broker", uri.as_str())];
            page.sample("broker_up", &labels, u8::from(broker.trouble().is_none() && broker.rtt().is_some()));
            let rtt = broker.rtt().unwrap_or_default().as_secs_f64();
            page.sample("broker_rtt_seconds", &labels, rtt);
            for (kind, value) in ["full", "resumed"].into_iter().zip(&broker.counts.handshakes) {
                page.sample("broker_handshakes_total", &[labels[0], labels[1], ("kind", kind)], load(value));
            }
            for (reason, value) in Failure::LABELS.into_iter().zip(&broker.counts.failures) {
                page.sample("broker_failures_total", &[labels[0], labels[1], ("reason", reason)], load(value));
            }
        }
    }
}

fn syncs(page: &mut Page, agent: &Agent) {
    let all: Vec<_> = agent.syncs.iter().map(|sync| sync.status()).collect();
    page.family("sync_devices", "gauge", "Devices of the source.");
    page.family("sync_rejected", "gauge", "Rows of the source that hold no DevEUI.");
    page.family("sync_claimed", "gauge", "Devices that another member holds.");
    page.family("sync_current", "gauge", "Whether the broker has what the source has.");
    page.family("sync_failures_total", "counter", "Passes that failed.");
    for status in &all {
        let netid = status.netid.to_string();
        let labels = [("federation", status.federation.as_str()), ("netid", netid.as_str())];
        page.sample("sync_devices", &labels, status.devices);
        page.sample("sync_rejected", &labels, status.rejected);
        page.sample("sync_claimed", &labels, status.claimed);
        page.sample("sync_current", &labels, u8::from(status.state == "current"));
        page.sample("sync_failures_total", &labels, status.failures);
    }
}
