//! A broker with the federation's certificate that answers what is well formed and wrong. The agent passes none of it on, keeps
//! none of it, says what was wrong, and asks the next broker.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_federation::DomainName;
use dnsbroker_tests::liar::{Liar, Lie, truth};
use dnsbroker_tests::{Agent, Broker, Host, Relay, eventually, query};

const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const TXT: u16 = 16;
/// What a liar would like to be reached at.
const EVIL: [u8; 4] = [203, 0, 113, 66];

fn device(index: usize) -> String {
    format!("{:016x}", 0x0004_a30b_001c_0000 + index)
}

fn flat(index: usize) -> String {
    device(index) + ".deveuis.fed.example"
}

fn wire(name: &str) -> Vec<u8> {
    name.parse::<DomainName>().map_or_else(|_| vec![0], |name| name.wire().to_vec())
}

/// The question of a query, with its name's octets.
fn question(query: &[u8]) -> (&[u8], &[u8]) {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    (&query[12..end + 5], &query[12..=end])
}

fn record(owner: &[u8], rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let length = rdata.len() as u16;
    [owner, &rtype.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length.to_be_bytes(), rdata].concat()
}

/// A response to a query with these sections.
fn response(query: &[u8], rcode: u8, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
    let mut octets = vec![query[0], query[1], 0x84, rcode, 0, 1];
    for records in sections {
        octets.extend((records.len() as u16).to_be_bytes());
    }
    octets.extend(question(query).0);
    sections.into_iter().flatten().for_each(|record| octets.extend(record));
    octets
}

/// To look-ups of devices alone: for the rest of its life a liar is honest.
fn of_devices(lie: impl Fn(&[u8], Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Lie {
    Arc::new(move |query, truth| {
        let (asked, name) = question(query);
        let is_device = name.first() == Some(&16) && asked.ends_with(&[0, 1, 0, 1]);
        if is_device { lie(query, truth) } else { truth }
    })
}

/// An answer of CNAMEs and addresses, each by owner and target; `@` is the name that was asked for.
fn answer(records: &'static [(&'static str, u16, &'static str)]) -> Lie {
    of_devices(move |query, _| {
        let name = |text: &str| if text == "@" { question(query).1.to_vec() } else { wire(text) };
        let records: Vec<Vec<u8>> = records
            .iter()
            .map(|(owner, rtype, target)| match *rtype {
                A => record(&name(owner), A, 60, &EVIL),
                TXT => record(&name(owner), TXT, 60, b"\x04home"),
                rtype => record(&name(owner), rtype, 60, &name(target)),
            })
            .collect();
        response(query, 0, [&records, &[], &[]])
    })
}

/// The home network, at an address.
fn at(address: [u8; 4]) -> Lie {
    of_devices(move |query, _| {
        let home = wire("60002d.netids.fed.example");
        let records = [record(question(query).1, CNAME, 60, &home), record(&home, A, 60, &address)];
        response(query, 0, [&records, &[], &[]])
    })
}

fn changed(change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Lie {
    of_devices(move |_, mut truth| {
        change(&mut truth);
        truth
    })
}

fn soa(owner: &str) -> Vec<u8> {
    let numbers = [1, 300, 60, 1_209_600, 60].map(u32::to_be_bytes).concat();
    record(&wire(owner), SOA, 60, &[wire("broker.fed.example"), wire("root.fed.example"), numbers].concat())
}

fn empty(rcode: u8, authority: Option<&'static str>) -> Lie {
    of_devices(move |query, _| response(query, rcode, [&[], &authority.map(soa).into_iter().collect::<Vec<_>>(), &[]]))
}

/// Each lie, and what is said of it.
fn lies() -> Vec<(&'static str, Lie, &'static str)> {
    vec![
        ("another ID", changed(|octets| octets[1] ^= 1), "the ID of another query"),
        ("the query itself", of_devices(|query, _| query.to_vec()), "not a response"),
        ("another question", changed(|octets| octets[13] ^= 1), "another question"),
        ("another type", changed(|octets| octets[12 + 17 + 13 + 9] = 28), "another question"),
        ("a record of another name", answer(&[("600013.netids.fed.example", A, "")]), "was not asked for"),
        (
            "the address of another name",
            answer(&[("@", CNAME, "60002d.netids.fed.example"), ("600013.netids.fed.example", A, "")]),
            "was not asked for",
        ),
        ("an address and no home", answer(&[("@", A, "")]), "names no home"),
        ("a text and no home", answer(&[("@", TXT, "")]), "a type that was not asked for"),
        ("a home in another federation", answer(&[("@", CNAME, "60004f.netids.nordic.test")]), "leads to no NetID"),
        (
            "the address of somebody else's name",
            answer(&[("@", CNAME, "60004f.netids.nordic.test"), ("60004f.netids.nordic.test", A, "")]),
            "a name of somebody else",
        ),
        (
            "a home that is a device",
            answer(&[("@", CNAME, "ffff00000000ffff.deveuis.fed.example")]),
            "leads to no NetID",
        ),
        ("a CNAME to itself", answer(&[("@", CNAME, "@")]), "lead back"),
        (
            "CNAMEs in a circle",
            answer(&[("@", CNAME, "60002d.netids.fed.example"), ("60002d.netids.fed.example", CNAME, "@")]),
            "lead back",
        ),
        (
            "two homes",
            answer(&[("@", CNAME, "60002d.netids.fed.example"), ("@", CNAME, "600013.netids.fed.example")]),
            "was not asked for",
        ),
        ("no address at all", at([0, 0, 0, 0]), "nobody can have"),
        ("everybody's address", at([255, 255, 255, 255]), "nobody can have"),
        ("a group's address", at([224, 0, 0, 1]), "nobody can have"),
        (
            "an address that nobody asked for",
            of_devices(|query, truth| {
                let home = wire("60002d.netids.fed.example");
                let records = [record(question(query).1, CNAME, 60, &home), record(&home, A, 60, &[192, 0, 2, 45])];
                let more = [record(&wire("600013.netids.fed.example"), A, 60, &EVIL)];
                assert!(truth.len() > 12, "the true broker answers");
                response(query, 0, [&records, &[], &more])
            }),
            "nobody asked for",
        ),
        ("no record", empty(0, None), "names no home"),
        ("no record of the type", empty(0, Some("deveuis.fed.example")), "names no home"),
        ("a denial by nobody", empty(3, None), "without the zone's SOA"),
        ("a denial by another zone", empty(3, Some("netids.fed.example")), "without the zone's SOA"),
        ("a denial by somebody else", empty(3, Some("nordic.test")), "a name of somebody else"),
        ("a denial with records", changed(|octets| octets[3] |= 3), "is not there, and has records"),
        ("a cut", changed(|octets| octets[2] |= 2), "cut off"),
        ("half", changed(|octets| octets.truncate(octets.len() - 5)), "cut off"),
        ("octets behind the end", changed(|octets| octets.push(0)), "follow the last record"),
        ("FORMERR", empty(1, None), "it answers FORMERR"),
        ("SERVFAIL", empty(2, None), "it answers SERVFAIL"),
        ("NOTIMP", empty(4, None), "it answers NOTIMP"),
        ("REFUSED", empty(5, None), "it answers REFUSED"),
    ]
}

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    let devices: Vec<String> = (0..1_000).map(device).collect();
    broker.devices("atlantic", "60002d", &devices.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(broker)
}

fn member(broker: &Broker, brokers: &[std::net::SocketAddr]) -> anyhow::Result<Agent> {
    let host = Host::new()?;
    host.enroll(broker, "alpine", "fed")?;
    let api = broker.api()?.port();
    let brokers = brokers.iter().map(|at| {
        format!(
            "[[federation.broker]]\ndoh_url = \"https://broker.fed.example:{}/dns-query\"\n\
             api_url = \"https://broker.fed.example:{api}\"\naddresses = [\"127.0.0.1\"]\n",
            at.port()
        )
    });
    host.start(&("[[federation]]\ndir = \"fed\"\n".to_owned() + &brokers.collect::<String>()), "")
}

/// What a client of the resolver gets.
fn resolved(agent: &Agent, name: &str) -> anyhow::Result<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to(&query(9, 0, name, A, 1), agent.resolver()?)?;
    let mut octets = [0; 1232];
    let length = socket.recv(&mut octets)?;
    Ok(octets[..length].to_vec())
}

fn failures(agent: &Agent, port: u16, reason: &str) -> anyhow::Result<f64> {
    let page = agent.metrics()?;
    let line = page.lines().find(|line| {
        line.starts_with("dnsbroker_agent_broker_failures_total")
            && line.contains(&format!(":{port}/"))
            && line.contains(&format!("reason=\"{reason}\""))
    });
    Ok(line.and_then(|line| line.rsplit(' ').next()).context("no metric")?.parse()?)
}

#[test]
fn no_lie_is_passed_on_or_kept_and_each_is_told_in_words() -> anyhow::Result<()> {
    let broker = federation()?;
    let liar = Liar::beside(&broker, &broker.certificate("alpine")?)?;
    let agent = member(&broker, &[liar.address()])?;
    agent.ready()?;
    for (number, (what, lie, words)) in lies().into_iter().enumerate() {
        let [spare, joining, resolving, explained] = [0, 1, 2, 3].map(|place| 10 + number * 4 + place);
        // An honest answer first, so that what is told next is told anew.
        liar.tell(truth());
        eventually("an honest answer is believed", || Ok(agent.home(&device(spare))? == "60002d"))
            .with_context(|| format!("before {what}\n{}", agent.log()))?;
        let before =
            failures(&agent, liar.address().port(), "lie")? + failures(&agent, liar.address().port(), "rcode")?;
        liar.tell(lie);
        let answer = agent.home_ns(&device(joining))?;
        let description = answer["Result"]["Description"].as_str().unwrap_or_default();
        ensure!(answer["Result"]["ResultCode"] == "Other" && answer["HNetID"].is_null(), "{what}: {answer}");
        ensure!(description.contains(words), "{what}: {description}");
        let octets = resolved(&agent, &flat(resolving))?;
        ensure!(octets[3] & 15 == 2 && octets[6..12] == [0; 6], "{what} is passed on: {octets:?}");
        let told = agent.host.run(&["lookup", &device(explained)])?;
        ensure!(!told.ok && told.stdout.contains("not known") && told.stdout.contains(words), "{what}: {told:?}");
        agent.assert_logged(words)?;
        let after = failures(&agent, liar.address().port(), "lie")? + failures(&agent, liar.address().port(), "rcode")?;
        ensure!(after >= before + 1.0, "{what} is not counted");
        // Nothing of it is in the cache.
        liar.tell(truth());
        for index in [joining, resolving, explained] {
            eventually("the truth", || Ok(agent.home(&device(index))? == "60002d"))
                .with_context(|| format!("after {what}"))?;
        }
        let octets = resolved(&agent, &flat(resolving))?;
        ensure!(octets.ends_with(&[192, 0, 2, 45]), "{what}: {octets:?}");
    }
    liar.call_it("text/html");
    let answer = agent.home_ns(&device(0))?;
    ensure!(answer.to_string().contains("application/dns-message"), "{answer}");
    Ok(())
}

#[test]
fn the_next_broker_is_asked_instead_of_the_liar() -> anyhow::Result<()> {
    let broker = federation()?;
    let liar = Liar::beside(&broker, &broker.certificate("alpine")?)?;
    let way = Relay::to(broker.doh()?)?;
    let agent = member(&broker, &[liar.address(), way.address()])?;
    agent.ready()?;
    let mut devices = 0..;
    let mut next = move || device(devices.next().unwrap_or_default());
    for (what, lie, words) in lies() {
        // Only the liar is there, and honest, so that it is asked first afterwards.
        way.cut(true);
        liar.tell(truth());
        eventually("the liar alone is believed", || {
            ensure!(agent.home(&next())? != "UnknownDevEUI");
            let status = agent.now()?;
            let trouble = |index: usize| !status["federations"][0]["brokers"][index]["trouble"].is_null();
            Ok(!trouble(0) && trouble(1))
        })?;
        let (before, told) = (failures(&agent, liar.address().port(), "lie")?, liar.told());
        way.cut(false);
        liar.tell(lie);
        let begun = Instant::now();
        ensure!(agent.home(&next())? == "60002d", "{what}: the other broker was not asked in time");
        ensure!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
        ensure!(liar.told() > told, "{what}: it was not told");
        let explained = agent.host.run(&["lookup", &next()])?;
        ensure!(explained.ok && explained.stdout.contains(words), "{what}: {explained:?}");
        let status = agent.now()?;
        let trouble = status["federations"][0]["brokers"][0]["trouble"].as_str().unwrap_or_default();
        ensure!(trouble.contains(words), "{what}: {status:#}");
        let counted = words.starts_with("it answers") || failures(&agent, liar.address().port(), "lie")? > before;
        ensure!(counted, "{what} is not counted");
    }
    Ok(())
}

#[test]
fn nobody_makes_the_agent_or_its_clients_keep_an_answer_for_years() -> anyhow::Result<()> {
    let broker = federation()?;
    let liar = Liar::beside(&broker, &broker.certificate("alpine")?)?;
    let agent = member(&broker, &[liar.address()])?;
    agent.ready()?;
    liar.tell(of_devices(|query, _| {
        let home = wire("60002d.netids.fed.example");
        let records = [record(question(query).1, CNAME, u32::MAX, &home), record(&home, A, u32::MAX, &[192, 0, 2, 45])];
        response(query, 0, [&records, &[], &[]])
    }));
    let octets = resolved(&agent, &flat(1))?;
    let address = octets.len() - 4;
    ensure!(octets.ends_with(&[192, 0, 2, 45]), "{octets:?}");
    let ttl = u32::from_be_bytes(octets[address - 6..address - 2].try_into()?);
    ensure!(ttl == 86_400, "{ttl}: cache.max_ttl is a day");
    // A denial too, by its own bound.
    liar.tell(of_devices(|query, _| {
        let numbers = [1, 300, 60, 1_209_600, u32::MAX].map(u32::to_be_bytes).concat();
        let names = [wire("broker.fed.example"), wire("root.fed.example")].concat();
        let soa = record(&wire("deveuis.fed.example"), SOA, u32::MAX, &[names, numbers].concat());
        response(query, 3, [&[], &[soa], &[]])
    }));
    let octets = resolved(&agent, &flat(2))?;
    ensure!(octets[3] & 15 == 3 && octets.windows(4).any(|four| four == 3_600_u32.to_be_bytes()), "{octets:?}");
    Ok(())
}
