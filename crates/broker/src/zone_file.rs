//! Zone files (RFC 1035, section 5): members' lists of devices, and the public zone of an administrator.
//!
//! hickory-proto's parser reads them, a piece of some thousand lines at a time, so that a file of a million devices takes
//! little memory and an error has its line. `$INCLUDE` is not followed.

use std::path::Path;

use dnsbroker_federation::{DevEui, DomainName, Owner, Zone};
use dnsbroker_zone::transfer::inbound::{below, device};
use dnsbroker_zone::wire::RecordType;
use dnsbroker_zone::zones::PublicRecord;
use hickory_proto::rr::{DNSClass, Name, RData, Record};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use hickory_proto::serialize::txt::{ParseError, Parser};

/// Lines that are parsed at once.
const PIECE: usize = 2_000;
/// Records of the public zone at most: it is held in a map of its own, beside the table of devices.
const MAX_PUBLIC: usize = 10_000;
/// Names that are named one by one in a report.
const SHOWN: usize = 100;
/// The TTL of a file that has none; for devices it does not matter.
const DEFAULT_TTL: u32 = 60;

/// Why a zone file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ZoneFileError {
    /// Counted from 1.
    line: usize,
    reason: String,
}

fn wrong(line: usize, reason: impl Into<String>) -> ZoneFileError {
    ZoneFileError { line, reason: reason.into() }
}

/// Entries of a file: an entry may have several lines (parentheses), and begins with its owner or a directive; lines
/// that begin with a blank belong to the owner before.
struct Entries<'t> {
    text: &'t str,
    line: usize,
}

impl<'t> Entries<'t> {
    /// The next entry, with the line it begins on.
    fn next(&mut self) -> Option<(usize, &'t str)> {
        if self.text.is_empty() {
            return None;
        }
        let (mut depth, mut quoted, mut comment, mut escaped) = (0_i32, false, false, false);
        let (start, mut lines) = (self.line, 0);
        let mut end = self.text.len();
        for (at, octet) in self.text.bytes().enumerate() {
            match octet {
                _ if escaped => escaped = false,
                b'\n' => {
                    lines += 1;
                    comment = false;
                    if depth <= 0 && !quoted {
                        end = at + 1;
                        break;
                    }
                }
                _ if comment => {}
                b'\\' => escaped = true,
                b'"' => quoted = !quoted,
                b';' if !quoted => comment = true,
                b'(' if !quoted => depth += 1,
                b')' if !quoted => depth -= 1,
                _ => {}
            }
        }
        let (entry, rest) = self.text.split_at(end);
        self.text = rest;
        self.line += lines;
        Some((start, entry))
    }
}

/// What stands before an entry decides what it means.
#[derive(Clone)]
struct Head {
    origin: String,
    ttl: String,
}

impl Head {
    fn text(&self) -> String {
        format!("$ORIGIN {}\n$TTL {}\n", self.origin, self.ttl)
    }

    /// Takes a directive; true if the entry was one.
    fn directive(&mut self, line: usize, entry: &str) -> Result<bool, ZoneFileError> {
        let mut words = entry.split(';').next().unwrap_or_default().split_whitespace();
        let Some(word) = words.next().filter(|word| word.starts_with('$')) else { return Ok(false) };
        let value = words.next().ok_or_else(|| wrong(line, format!("{word} says nothing")))?;
        match word.to_ascii_uppercase().as_str() {
            "$ORIGIN" if value.ends_with('.') => value.clone_into(&mut self.origin),
            "$ORIGIN" => self.origin = format!("{value}.{}", self.origin.trim_start_matches('.')),
            "$TTL" => value.clone_into(&mut self.ttl),
            "$INCLUDE" => return Err(wrong(line, "$INCLUDE is not followed: put all into one file")),
            other => return Err(wrong(line, format!("{other} is not known"))),
        }
        Ok(true)
    }
}

/// Hands all records of a file to `take`, piece by piece. What it does not take is told with its line.
fn records(
    text: &str,
    origin: &DomainName,
    mut take: impl FnMut(&Record) -> Result<(), String>,
) -> Result<(), ZoneFileError> {
    let mut head = Head { origin: origin.to_string(), ttl: DEFAULT_TTL.to_string() };
    let mut entries = Entries { text, line: 1 };
    let mut piece: Vec<(usize, &str)> = Vec::new();
    let mut flush = |head: &Head, piece: &mut Vec<(usize, &str)>| -> Result<(), ZoneFileError> {
        for record in parse(head, piece)? {
            take(&record).map_err(|reason| wrong(line_of(head, piece, &record), reason))?;
        }
        piece.clear();
        Ok(())
    };
    while let Some((line, entry)) = entries.next() {
        let begins = !entry.starts_with([' ', '\t']);
        let directive = entry.starts_with('$');
        if begins && !piece.is_empty() && (directive || piece.len() >= PIECE) {
            flush(&head, &mut piece)?;
        }
        if !directive || !head.directive(line, entry)? {
            piece.push((line, entry));
        }
    }
    flush(&head, &mut piece)
}

fn parse(head: &Head, piece: &[(usize, &str)]) -> Result<Vec<Record>, ZoneFileError> {
    parse_entries(head, piece).map_err(|error| {
        let line = first_line(piece, |entries| parse_entries(head, entries).is_err());
        wrong(line, format!("is no resource record: {error}"))
    })
}

fn parse_entries(head: &Head, entries: &[(usize, &str)]) -> Result<Vec<Record>, ParseError> {
    let body: String = entries.iter().map(|(_, entry)| *entry).collect();
    let (_, sets) = Parser::new(head.text() + &body, None, None).parse()?;
    Ok(sets.into_values().flat_map(|set| set.records_without_rrsigs().cloned().collect::<Vec<_>>()).collect())
}

/// Where a record stands: the parser does not tell.
fn line_of(head: &Head, piece: &[(usize, &str)], record: &Record) -> usize {
    first_line(piece, |entries| parse_entries(head, entries).is_ok_and(|records| records.contains(record)))
}

/// The line of the first entry with which something is so, that is not so without any and is so with all.
fn first_line(piece: &[(usize, &str)], is_so: impl Fn(&[(usize, &str)]) -> bool) -> usize {
    let (mut without, mut with) = (0, piece.len());
    while with - without > 1 {
        let middle = usize::midpoint(without, with);
        if is_so(&piece[..middle]) { with = middle } else { without = middle }
    }
    piece.get(with.saturating_sub(1)).map_or(1, |(line, _)| *line)
}

fn wire(name: &Name) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.iter() {
        octets.push(label.len() as u8);
        octets.extend(label.iter().map(u8::to_ascii_lowercase));
    }
    octets.push(0);
    octets
}

/// Devices of a member's zone file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeviceFile {
    /// The devices, in the order of their names.
    pub devices: Vec<DevEui>,
    /// Names with an address or CNAME that are no device.
    pub strangers: u64,
    /// The first of them.
    pub shown: Vec<String>,
}

/// Reads a member's zone file: names below the zone's apex that are DevEUIs, flat or as nibbles.
///
/// The apex is where the SOA stands; of a file without one (a list of lines), the origin.
pub fn devices(text: &str, origin: Option<&DomainName>) -> Result<DeviceFile, ZoneFileError> {
    let default: DomainName = "zone.invalid".parse().map_err(|_| wrong(1, "there is no origin"))?;
    let origin = origin.unwrap_or(&default);
    let mut apex = origin.wire().to_vec();
    let mut found = DeviceFile::default();
    records(text, origin, |record| {
        let owner = wire(&record.name);
        match record.data {
            RData::SOA(_) => apex = owner,
            RData::A(_) | RData::AAAA(_) | RData::CNAME(_) => match below(&owner, &apex).and_then(device) {
                Some(device) => found.devices.push(device),
                None => {
                    found.strangers += 1;
                    if found.shown.len() < SHOWN {
                        found.shown.push(record.name.to_string());
                    }
                }
            },
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// Reads the public zone of an administrator: names within the federation that are not the broker's private ones.
///
/// SOA and NS of the apex are made by the broker, and are stepped over here.
pub fn public(text: &str, names: &dnsbroker_federation::Namespace) -> Result<Vec<PublicRecord>, ZoneFileError> {
    let apex = names.apex(Zone::Public);
    let mut found: Vec<PublicRecord> = Vec::new();
    records(text, apex, |record| {
        if record.name.is_wildcard() {
            return Err(format!("{} is a wildcard, which this server does not have", record.name));
        }
        let owner: DomainName = record
            .name
            .to_string()
            .parse()
            .map_err(|error| format!("the name {} cannot be served: it {error}", record.name))?;
        let at_apex = owner == *apex;
        match names.owner(owner.wire()) {
            Owner::Outside => return Err(format!("{owner} is not within {apex}")),
            owner if owner.zone().is_some_and(Zone::is_private) => {
                return Err(format!("{} is within a private zone", record.name));
            }
            _ => {}
        }
        let rtype = RecordType(record.record_type().into());
        let problem = match record.data {
            RData::SOA(_) | RData::NS(_) if at_apex => return Ok(()),
            RData::SOA(_) => Some("an SOA below the apex"),
            RData::NS(_) => Some("a delegation, which this server does not have"),
            RData::CNAME(_) if at_apex => Some("a CNAME at the apex, beside the SOA"),
            _ if record.dns_class != DNSClass::IN => Some("not of class IN"),
            _ if matches!(rtype.0, 39 | 43 | 46..=48 | 50 | 51) => Some("of a type that needs DNSSEC or DNAME"),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(format!("the record of {owner} is {problem}"));
        }
        let mut rdata = Vec::new();
        let mut encoder = BinEncoder::new(&mut rdata);
        encoder.set_name_encoding(NameEncoding::Uncompressed);
        let emitted = record.data.emit(&mut encoder);
        emitted.map_err(|error| format!("the record of {owner} cannot be encoded: {error}"))?;
        found.push(PublicRecord { owner, rtype, ttl: record.ttl, rdata });
        if found.len() > MAX_PUBLIC {
            return Err(format!("the public zone has more than {MAX_PUBLIC} records"));
        }
        Ok(())
    })?;
    found.sort_by(|a, b| (a.owner.wire(), a.rtype.0, &a.rdata).cmp(&(b.owner.wire(), b.rtype.0, &b.rdata)));
    let clash = found.iter().find(|record| {
        record.rtype == RecordType::CNAME
            && found.iter().any(|other| other.owner == record.owner && other.rtype != RecordType::CNAME)
    });
    match clash {
        Some(record) => {
            Err(wrong(1, format!("{} has a CNAME and other records (RFC 1034, section 3.6.2)", record.owner)))
        }
        None => Ok(found),
    }
}

/// Reads a file that is at most as long as memory is likely to bear.
pub fn read(path: &Path) -> std::io::Result<String> {
    let octets = std::fs::read(path)?;
    String::from_utf8(octets).map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()))
}

#[cfg(test)]
mod tests {
    use dnsbroker_federation::{Namespace, ZoneLabels};

    use super::*;

    fn names() -> Namespace {
        let (federation, broker) =
            ("fed.example".parse().expect("a name"), "broker.fed.example".parse().expect("a name"));
        Namespace::new(federation, broker, &ZoneLabels::default()).expect("names")
    }

    #[test]
    fn devices_are_read_in_every_shape_and_strangers_are_named() {
        let text = "$ORIGIN mydevices.example.\n$TTL 1h\n@ IN SOA ns hostmaster (\n 1 ; serial\n 2 3 4 5 )\n IN NS ns\n\
                    ns A 192.0.2.1\n0004A30B001C0530 60 IN A 192.0.2.9\n               AAAA 2001:db8::9\n\
                    1.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0 CNAME lns\n\
                    $ORIGIN sub.mydevices.example.\n0004a30b001c0532 A 192.0.2.9\n";
        let found = devices(text, None).expect("reads");
        let mut shown: Vec<String> = found.devices.iter().map(ToString::to_string).collect();
        shown.sort();
        assert_eq!(shown, ["0004a30b001c0530", "0004a30b001c0530", "0004a30b001c0531"]);
        assert_eq!(found.strangers, 2, "{:?}", found.shown);
    }

    #[test]
    fn lines_without_soa_and_origin_are_a_list() {
        let text: String = (0..5_000).map(|n| format!("{:016x} 60 IN A 192.0.2.1\n", 0x4a3_u64 << 40 | n)).collect();
        assert_eq!(devices(&text, None).expect("reads").devices.len(), 5_000);
        let broken = text.replacen("0004a30000000bb8 60 IN A 192.0.2.1", "0004a30000000bb8 60 IN A 192.0.2.300", 1);
        let text = devices(&broken, None).expect_err("is refused").to_string();
        assert_eq!(text.split(':').next(), Some(if broken.contains(".300") { "line 3001" } else { "" }), "{text}");
    }

    #[test]
    fn the_public_zone_takes_what_it_can_serve_and_names_what_it_cannot() {
        let text = "@ SOA a b 1 2 3 4 5\n@ NS ns1\n@ TXT \"v=spf1 -all\"\nwww 300 A 192.0.2.80\nalias CNAME www\n\
                    _sip._tcp SRV 0 5 5060 www\n";
        let found = public(text, &names()).expect("reads");
        let shown: Vec<String> = found.iter().map(|r| format!("{} {}", r.owner, r.rtype.0)).collect();
        assert_eq!(
            shown,
            ["fed.example. 16", "www.fed.example. 1", "_sip._tcp.fed.example. 33", "alias.fed.example. 5"]
        );
        for (line, words) in [
            ("x.other.example. A 192.0.2.1", "not within"),
            ("x.deveuis A 192.0.2.1", "private zone"),
            ("sub NS ns1", "delegation"),
            ("* A 192.0.2.1", "wildcard"),
            ("@ CNAME www", "CNAME at the apex"),
            ("www A nonsense", "is no resource record"),
            ("$INCLUDE /etc/passwd", "not followed"),
        ] {
            let text = format!("ok A 192.0.2.1\n\n{line}\nfine A 192.0.2.2\n");
            let error = public(&text, &names()).expect_err(line).to_string();
            assert!(error.contains(words) && error.starts_with("line 3: "), "{line}: {error}");
        }
        let clash = public("a CNAME b\na A 192.0.2.1\n", &names());
        assert!(clash.is_err(), "{clash:?}");
    }
}
