//! RDATA in wire form, without compression.

use std::net::{Ipv4Addr, Ipv6Addr};

use dnsbroker_federation::DomainName;

use crate::zones::Timing;

/// A.
pub fn a(address: Ipv4Addr) -> Vec<u8> {
    address.octets().to_vec()
}

/// AAAA.
pub fn aaaa(address: Ipv6Addr) -> Vec<u8> {
    address.octets().to_vec()
}

/// NS, CNAME: a name.
pub fn name(name: &DomainName) -> Vec<u8> {
    name.wire().to_vec()
}

/// SOA (RFC 1035, section 3.3.13): the mailbox is `hostmaster` at the contact name.
pub fn soa(primary: &DomainName, contact: &DomainName, serial: u32, timing: &Timing) -> Vec<u8> {
    let mut rdata = [primary.wire(), b"\x0ahostmaster", contact.wire()].concat();
    for field in [serial, timing.refresh, timing.retry, timing.expire, timing.negative_ttl] {
        rdata.extend_from_slice(&field.to_be_bytes());
    }
    rdata
}

/// SRV (RFC 2782), priority and weight 0.
pub fn srv(port: u16, target: &[u8]) -> Vec<u8> {
    let mut rdata = vec![0, 0, 0, 0];
    rdata.extend_from_slice(&port.to_be_bytes());
    rdata.extend_from_slice(target);
    rdata
}

/// NAPTR (RFC 3403) of order 10 and preference 10, without a regular expression.
pub fn naptr(flags: &str, service: &str, replacement: &[u8]) -> Vec<u8> {
    let mut rdata = vec![0, 10, 0, 10];
    for text in [flags, service, ""] {
        rdata.push(text.len() as u8);
        rdata.extend_from_slice(text.as_bytes());
    }
    rdata.extend_from_slice(replacement);
    rdata
}

/// CAA (RFC 8659, section 4.1).
pub fn caa(tag: &str, value: &str) -> Vec<u8> {
    [&[0, tag.len() as u8], tag.as_bytes(), value.as_bytes()].concat()
}

/// SVCB of a DoH server (RFC 9461): `alpn=h2`, `port`, `dohpath`.
pub fn svcb_doh(target: &DomainName, port: u16, path: &str) -> Vec<u8> {
    let mut rdata = vec![0, 1];
    rdata.extend_from_slice(target.wire());
    let mut param = |key: u16, value: &[u8]| {
        rdata.extend_from_slice(&key.to_be_bytes());
        rdata.extend_from_slice(&(value.len() as u16).to_be_bytes());
        rdata.extend_from_slice(value);
    };
    param(1, b"\x02h2");
    param(3, &port.to_be_bytes());
    param(7, path.as_bytes());
    rdata
}
