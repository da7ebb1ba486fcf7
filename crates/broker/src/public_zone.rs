//! The public zone: the broker's own names and nothing else.
//!
//! - the broker's addresses;
//! - `_dns.<broker>` SVCB: where and how it answers DNS (RFC 9461), and `_dns.resolver.arpa` SVCB: the same for a client
//!   that only knows its address (RFC 9462);
//! - CAA at the apex: who may issue certificates for the federation's names (RFC 8659).
//!
//! SOA and NS of the apex are made from the configuration by `zone` itself.

use std::net::IpAddr;

use dnsbroker_federation::{DomainName, DomainNameError};
use dnsbroker_zone::wire::{RecordType, rdata};
use dnsbroker_zone::zones::PublicRecord;

use crate::config::Config;

/// The path of DoH queries, as a URI template (RFC 9461, section 5).
const DOH_PATH: &str = "/dns-query{?dns}";

/// What the records are made of.
pub struct PublicNames<'a> {
    /// The federation's name.
    pub federation: &'a DomainName,
    /// The broker's name.
    pub broker: &'a DomainName,
    /// The broker's addresses.
    pub addresses: &'a [IpAddr],
    /// The port of DoH, if it is served.
    pub doh_port: Option<u16>,
    /// Who may issue certificates; nobody else's CA where it is empty.
    pub caa: &'a [String],
    /// Brokers that answer beside it.
    pub others: &'a [OtherBroker],
    /// Seconds.
    pub ttl: u32,
}

/// A broker that answers beside this one: a standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherBroker {
    /// Its name.
    pub name: DomainName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its port of DoH.
    pub port: u16,
}

impl PublicNames<'_> {
    /// The records, in a stable order.
    pub fn records(&self) -> Result<Vec<PublicRecord>, DomainNameError> {
        let record =
            |owner: &DomainName, rtype, rdata| PublicRecord { owner: owner.clone(), rtype, ttl: self.ttl, rdata };
        let mut records = Vec::new();
        let at = |owner: &DomainName, address: &IpAddr| match address {
            IpAddr::V4(address) => record(owner, RecordType::A, rdata::a(*address)),
            IpAddr::V6(address) => record(owner, RecordType::AAAA, rdata::aaaa(*address)),
        };
        records.extend(self.addresses.iter().map(|address| at(self.broker, address)));
        if let Some(port) = self.doh_port {
            let svcb = rdata::svcb_doh(self.broker, port, DOH_PATH);
            records.push(record(&self.broker.child("_dns")?, RecordType::SVCB, svcb.clone()));
            records.push(record(&"_dns.resolver.arpa".parse()?, RecordType::SVCB, svcb));
        }
        for other in self.others {
            records.extend(other.addresses.iter().map(|address| at(&other.name, address)));
            let svcb = rdata::svcb_doh(&other.name, other.port, DOH_PATH);
            records.push(record(&other.name.child("_dns")?, RecordType::SVCB, svcb.clone()));
            // Whoever knows the broker by its name finds the others there.
            records.push(record(&self.broker.child("_dns")?, RecordType::SVCB, svcb));
        }
        if self.caa.is_empty() {
            // ";" is nobody: the federation's own CA doesn't look at CAA, and no public CA shall issue these names.
            records.push(record(self.federation, RecordType::CAA, rdata::caa("issue", ";")));
        }
        for issuer in self.caa {
            records.push(record(self.federation, RecordType::CAA, rdata::caa("issue", issuer)));
        }
        Ok(records)
    }
}

/// Adds records of the administrator. For a name and type that the broker makes by itself, theirs take its place.
pub fn merge(records: &mut Vec<PublicRecord>, brought: Vec<PublicRecord>) {
    let same = |a: &PublicRecord, b: &PublicRecord| a.owner == b.owner && a.rtype == b.rtype;
    records.retain(|own| !brought.iter().any(|other| same(own, other)));
    records.extend(brought);
}

/// The octets that tell whether the records are the same as before.
pub fn fingerprint(records: &[PublicRecord]) -> Vec<u8> {
    let mut octets = Vec::new();
    for PublicRecord { owner, rtype, ttl, rdata } in records {
        octets.extend_from_slice(owner.wire());
        octets.extend_from_slice(&rtype.0.to_be_bytes());
        octets.extend_from_slice(&ttl.to_be_bytes());
        octets.extend_from_slice(&(rdata.len() as u32).to_be_bytes());
        octets.extend_from_slice(rdata);
    }
    octets
}

/// The records of such octets; none where they are no such.
pub fn read(mut octets: &[u8]) -> Option<Vec<PublicRecord>> {
    let mut records = Vec::new();
    while !octets.is_empty() {
        // A name ends with the empty label.
        let mut end = 0;
        while *octets.get(end)? != 0 {
            end += 1 + usize::from(octets[end]);
        }
        let (owner, rest) = octets.split_at_checked(end + 1)?;
        let (rtype, rest) = rest.split_first_chunk()?;
        let (ttl, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (rdata, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        records.push(PublicRecord {
            owner: name(owner)?,
            rtype: RecordType(u16::from_be_bytes(*rtype)),
            ttl: u32::from_be_bytes(*ttl),
            rdata: rdata.to_vec(),
        });
        octets = rest;
    }
    Some(records)
}

/// A name in wire form, which was one of ours.
fn name(mut wire: &[u8]) -> Option<DomainName> {
    let mut text = String::new();
    while let Some((length, rest)) = wire.split_first().filter(|(length, _)| **length > 0) {
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        text.push_str(std::str::from_utf8(label).ok()?);
        text.push('.');
        wire = rest;
    }
    text.parse().ok()
}

/// The addresses that are published: those of the configuration, or else those DoH is bound to.
pub fn addresses(config: &Config, doh: &[std::net::SocketAddr]) -> Vec<IpAddr> {
    if !config.addresses.is_empty() {
        return config.addresses.clone();
    }
    let mut bound: Vec<IpAddr> = doh.iter().map(|address| address.ip()).filter(|ip| !ip.is_unspecified()).collect();
    bound.sort_unstable();
    bound.dedup();
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(federation: &'a DomainName, broker: &'a DomainName, caa: &'a [String]) -> PublicNames<'a> {
        const ADDRESSES: &[IpAddr] =
            &[IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];
        PublicNames { federation, broker, addresses: ADDRESSES, doh_port: Some(8441), caa, others: &[], ttl: 60 }
    }

    #[test]
    fn only_the_brokers_own_names_are_public() {
        let (federation, broker) = ("fed.example".parse().expect("name"), "broker.fed.example".parse().expect("name"));
        let records = names(&federation, &broker, &[]).records().expect("records");
        let owners: Vec<String> = records.iter().map(|record| record.owner.to_string()).collect();
        let expected = [
            "broker.fed.example.",
            "broker.fed.example.",
            "_dns.broker.fed.example.",
            "_dns.resolver.arpa.",
            "fed.example.",
        ];
        assert_eq!(owners, expected);
        assert_eq!(records[4].rdata, b"\x00\x05issue;");
    }

    #[test]
    fn the_fingerprint_changes_with_any_record() {
        let (federation, broker) = ("fed.example".parse().expect("name"), "broker.fed.example".parse().expect("name"));
        let own = names(&federation, &broker, &[]).records().expect("records");
        let caa = ["letsencrypt.org".to_owned()];
        let other = names(&federation, &broker, &caa).records().expect("records");
        assert_eq!(fingerprint(&own), fingerprint(&own.clone()));
        assert_eq!(read(&fingerprint(&own)), Some(own.clone()), "and reads back");
        let octets = fingerprint(&own);
        assert_eq!(read(&octets[..octets.len() - 1]), None);
        assert_ne!(fingerprint(&own), fingerprint(&other));
        assert_ne!(fingerprint(&own), fingerprint(&own[1..]));
    }
}
