//! The DoH front against clients of every kind: who is let in, for how long, and what it takes from them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::tls::{Odd, Tls, ask, client, connect, credential, http1, odd, stranger};
use dnsbroker_tests::{Broker, Options, nibble_name, query};
use rustix::process::Signal;
use rustls::HandshakeKind;

const DEVICE: &str = "0004a30b001c0530";

fn federation(limits: &str) -> anyhow::Result<Broker> {
    let config = if limits.is_empty() { String::new() } else { format!("[limits]\n{limits}") };
    let broker = Broker::with(Options { config, ..Options::default() })?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    Ok(broker)
}

fn lookup() -> Vec<u8> {
    query(7, 0, &nibble_name(DEVICE), 1, 1)
}

/// A connection of a member over HTTP/1.1.
fn member(broker: &Broker, id: &str) -> anyhow::Result<Tls> {
    let config = client(broker, Some(credential(&broker.certificate(id)?)?), &["http/1.1"])?;
    connect(broker.doh()?, &config)
}

fn assert_served(broker: &Broker, id: &str) -> anyhow::Result<()> {
    let (status, answer) = ask(&mut member(broker, id)?, &lookup())?;
    ensure!(status == 200 && answer.ends_with(&[192, 0, 2, 45]), "{id} gets {status} {answer:?}");
    Ok(())
}

#[test]
fn the_servers_preference_decides_the_protocol() -> anyhow::Result<()> {
    let broker = federation("")?;
    let cert = broker.certificate("alpine")?;
    for (offer, expected) in [
        (&["http/1.1", "h2"][..], Some(&b"h2"[..])),
        (&["h2", "http/1.1"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let tls = connect(broker.doh()?, &client(&broker, Some(credential(&cert)?), offer)?)?;
        ensure!(tls.conn.alpn_protocol() == expected, "{offer:?} got {:?}", tls.conn.alpn_protocol());
    }
    Ok(())
}

#[test]
fn who_is_not_let_in_is_told_in_the_log_and_why() -> anyhow::Result<()> {
    let broker = federation("")?;
    let own = "spiffe://fed.example/member/alpine";
    let good = Odd { uris: &[own], days: (-1, 5), ..Odd::default() };
    let revoked = broker.certificate("alpine")?;
    let list = broker.json(&["cert", "list"])?;
    let serial = list["items"].as_array().and_then(|items| items.iter().find(|item| item["member"] == "alpine"));
    let serial = serial.and_then(|item| item["serial"].as_str()).context("no certificate")?;
    broker.json(&["cert", "revoke", serial, "--reason", "key-compromise"])?;
    let cases = [
        (None, "it presented no client certificate"),
        (Some(stranger(&good)?), "not issued by this federation's CA"),
        (Some(odd(&broker, &good)?), "is not in the register"),
        (Some(odd(&broker, &Odd { days: (-9, -1), ..good })?), "its certificate has expired"),
        (Some(odd(&broker, &Odd { uris: &[own], days: (1, 5), ..Odd::default() })?), "not valid yet"),
        (
            Some(odd(
                &broker,
                &Odd { uris: &[own, "spiffe://fed.example/member/atlantic"], days: (-1, 5), ..Odd::default() },
            )?),
            "names 2 identities",
        ),
        (Some(odd(&broker, &Odd { hosts: &["alpine.fed.example"], days: (-1, 5), ..Odd::default() })?), "identity"),
        (
            Some(odd(
                &broker,
                &Odd { uris: &["spiffe://other.example/member/alpine"], days: (-1, 5), ..Odd::default() },
            )?),
            "other.example",
        ),
        (
            Some(odd(&broker, &Odd { uris: &["spiffe://fed.example/replica/r1"], days: (-1, 5), ..Odd::default() })?),
            "replicas are not served",
        ),
        (Some(credential(&revoked)?), "revoked"),
    ];
    for (credential, words) in cases {
        let served = client(&broker, credential, &["http/1.1"])
            .and_then(|config| connect(broker.doh()?, &config))
            .and_then(|mut tls| ask(&mut tls, &lookup()));
        ensure!(served.is_err(), "{words}: got {served:?}");
        broker.assert_logged(words)?;
    }
    assert_served(&broker, "atlantic")
}

/// Reads until the connection ends, and tells how long that took.
fn ended_within(tls: &mut Tls, limit: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    tls.sock.set_read_timeout(Some(limit))?;
    let mut octets = [0; 512];
    match tls.read(&mut octets) {
        Ok(0) => {}
        Ok(count) => anyhow::bail!("{count} octets came instead of the end"),
        Err(error) => ensure!(
            !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "the connection is still there after {:?}",
            begun.elapsed()
        ),
    }
    Ok(())
}

#[test]
fn revocation_and_suspension_end_live_connections_within_a_second() -> anyhow::Result<()> {
    let broker = federation("")?;
    let mut live = member(&broker, "alpine")?;
    let mut other = member(&broker, "atlantic")?;
    ensure!(ask(&mut live, &lookup())?.0 == 200, "served before");
    broker.json(&["member", "suspend", "alpine", "--reason", "has not paid"])?;
    ended_within(&mut live, Duration::from_secs(1))?;
    broker.assert_logged("member alpine is suspended")?;
    ensure!(
        member(&broker, "alpine").and_then(|mut tls| ask(&mut tls, &lookup())).is_err(),
        "a suspended member is out"
    );
    ensure!(ask(&mut other, &lookup())?.0 == 200, "others stay");
    broker.json(&["member", "resume", "alpine"])?;
    let mut again = member(&broker, "alpine")?;
    ensure!(ask(&mut again, &lookup())?.0 == 200, "resumed");
    let certificates = broker.json(&["cert", "list"])?;
    for item in certificates["items"].as_array().context("items")?.iter().filter(|item| item["member"] == "alpine") {
        broker.json(&["cert", "revoke", item["serial"].as_str().context("serial")?])?;
    }
    ended_within(&mut again, Duration::from_secs(1))?;
    ensure!(ask(&mut other, &lookup())?.0 == 200, "others stay");
    Ok(())
}

#[test]
fn a_resumed_session_is_refused_after_revocation() -> anyhow::Result<()> {
    let broker = federation("")?;
    let config = client(&broker, Some(credential(&broker.certificate("alpine")?)?), &["http/1.1"])?;
    let mut first = connect(broker.doh()?, &config)?;
    ensure!(ask(&mut first, &lookup())?.0 == 200, "served");
    let mut second = connect(broker.doh()?, &config)?;
    ensure!(second.conn.handshake_kind() == Some(HandshakeKind::Resumed), "sessions are resumed");
    ensure!(ask(&mut second, &lookup())?.0 == 200, "served");
    let certificates = broker.json(&["cert", "list"])?;
    let items = certificates["items"].as_array().context("items")?;
    let alpine = items.iter().find(|item| item["member"] == "alpine").context("certificate")?;
    broker.json(&["cert", "revoke", alpine["serial"].as_str().context("serial")?])?;
    let third = connect(broker.doh()?, &config).and_then(|mut tls| ask(&mut tls, &lookup()));
    ensure!(third.is_err(), "a revoked certificate was resumed: {third:?}");
    broker.assert_logged("revoked")
}

#[test]
fn each_mistake_of_a_client_gets_its_status() -> anyhow::Result<()> {
    let broker = federation("")?;
    let mut tls = member(&broker, "alpine")?;
    let media = "content-type: application/dns-message";
    let long = "A".repeat(65_536);
    let cases: Vec<(String, Vec<u8>, u16, &str)> = vec![
        ("GET / HTTP/1.1".into(), vec![], 404, "/dns-query"),
        ("PUT /dns-query HTTP/1.1\r\ncontent-length: 0".into(), vec![], 405, "allow: GET, POST"),
        ("GET /dns-query HTTP/1.1".into(), vec![], 400, ""),
        ("GET /dns-query?dns=AA==BB HTTP/1.1".into(), vec![], 400, ""),
        ("GET /dns-query?dns=AAAA&dns=AAAA HTTP/1.1".into(), vec![], 400, ""),
        ("GET /dns-query?dns=AAAA HTTP/1.1".into(), vec![], 400, ""),
        (format!("GET /dns-query?dns={long} HTTP/1.1"), vec![], 414, ""),
        ("GET /dns-query?dns=AAAA HTTP/1.1\r\naccept: text/html".into(), vec![], 406, ""),
        ("POST /dns-query HTTP/1.1\r\ncontent-length: 3\r\ncontent-type: text/plain".into(), b"abc".to_vec(), 415, ""),
        (format!("POST /dns-query HTTP/1.1\r\ncontent-length: 3\r\n{media}"), b"abc".to_vec(), 400, ""),
        (format!("POST /dns-query HTTP/1.1\r\ncontent-length: 0\r\n{media}"), vec![], 400, ""),
    ];
    for (head, body, expected, words) in cases {
        let answer = http1(&mut tls, &head, &body);
        if expected == 414 && answer.is_err() {
            // hyper answers before it has read all of such a target, and what is left unread can cost the client the
            // answer: then it is cut off, which says as much.
            tls = member(&broker, "alpine")?;
            continue;
        }
        let (status, headers, text) = answer?;
        let shown: String = head.chars().take(60).collect();
        ensure!(status == expected, "{shown}: {status} instead of {expected}");
        if status == 414 {
            // hyper's own answer, which has no body and ends the connection.
            tls = member(&broker, "alpine")?;
            continue;
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        ensure!(!text.trim().is_empty(), "{shown}: the body says why");
        ensure!(headers.contains(words) || text.contains(words), "{shown}: {headers}\n{text}");
        ensure!(headers.contains("cache-control: no-store"), "{shown}: {headers}");
    }
    let mut response = lookup();
    response[2] |= 0x80;
    ensure!(ask(&mut tls, &response)?.0 == 400, "a response is no question");
    let (status, answer) = ask(&mut tls, &lookup())?;
    ensure!(status == 200 && answer[..2] == [0, 7], "the connection is still good");
    let too_large = format!("POST /dns-query HTTP/1.1\r\ncontent-length: 65536\r\n{media}");
    ensure!(
        http1(&mut member(&broker, "alpine")?, &too_large, &vec![0; 65_536])?.0 == 413,
        "65,536 octets are no message"
    );
    Ok(())
}

#[test]
fn errors_of_dns_are_answers_of_dns() -> anyhow::Result<()> {
    let broker = federation("")?;
    let mut tls = member(&broker, "alpine")?;
    let name = nibble_name(DEVICE);
    let mut two = lookup();
    two[5] = 2;
    for (message, rcode) in [
        (query(1, 4, &name, 6, 1), 4),
        (query(1, 5, "deveuis.fed.example", 6, 1), 4),
        (query(1, 6, &name, 1, 1), 4),
        (query(1, 0, &name, 1, 3), 5),
        (query(1, 0, &name, 252, 1), 5),
        (query(1, 0, &name, 251, 1), 5),
        (query(1, 0, "example.org", 1, 1), 5),
        (two, 1),
    ] {
        let (status, answer) = ask(&mut tls, &message)?;
        ensure!(status == 200 && answer[3] & 15 == rcode, "{message:?}: {status}, rcode {}", answer[3] & 15);
        ensure!(answer.len() < 200 || rcode == 0, "an error gives nothing away");
    }
    Ok(())
}

#[test]
fn a_client_that_goes_away_at_any_step_hurts_nobody() -> anyhow::Result<()> {
    let broker = federation("handshake_seconds = 1")?;
    let config = client(&broker, Some(credential(&broker.certificate("alpine")?)?), &["h2"])?;
    let name = rustls::pki_types::ServerName::try_from("broker.fed.example")?;
    let mut hello = Vec::new();
    rustls::ClientConnection::new(config, name)?.write_tls(&mut hello)?;
    for (count, step) in (0..hello.len()).step_by(hello.len() / 24).enumerate() {
        let mut stream = TcpStream::connect(broker.doh()?)?;
        stream.write_all(&hello[..step])?;
        // Half of them go away, half stay and say no more.
        if count % 2 == 0 {
            drop(stream);
        } else {
            std::mem::forget(stream);
        }
    }
    let mut whole = TcpStream::connect(broker.doh()?)?;
    whole.write_all(&hello)?;
    whole.read_exact(&mut [0; 5])?;
    drop(whole);
    for garbage in [&[0_u8; 100][..], &[0xff; 4_000], b"SSH-2.0-x\r\n", &hello[3..]] {
        TcpStream::connect(broker.doh()?)?.write_all(garbage)?;
    }
    let mut plain = TcpStream::connect(broker.doh()?)?;
    plain.write_all(b"GET /dns-query HTTP/1.1\r\nhost: x\r\n\r\n")?;
    let mut text = String::new();
    plain.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 400") && text.contains("This port speaks HTTPS"), "{text:?}");
    assert_served(&broker, "atlantic")?;
    broker.assert_logged("it took longer than 1 seconds")?;
    ensure!(!broker.log().contains("panicked"), "{}", broker.log());
    Ok(())
}

#[test]
fn a_slow_or_idle_client_is_cut() -> anyhow::Result<()> {
    let broker = federation("request_seconds = 1\nidle_seconds = 3")?;
    let mut slow = member(&broker, "alpine")?;
    slow.write_all(b"GET /dns-query HTTP/1.1\r\nhost: ")?;
    ended_within(&mut slow, Duration::from_secs(3))?;
    let config = client(&broker, Some(credential(&broker.certificate("alpine")?)?), &["h2"])?;
    let mut idle = connect(broker.doh()?, &config)?;
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
    let begun = Instant::now();
    let mut sink = [0; 4_096];
    while !matches!(idle.read(&mut sink), Ok(0) | Err(_)) {}
    ensure!(begun.elapsed() < Duration::from_secs(8), "an idle connection lived for {:?}", begun.elapsed());
    assert_served(&broker, "atlantic")
}

#[test]
fn one_member_cannot_take_the_places_of_others() -> anyhow::Result<()> {
    let broker = federation("connections_per_member = 2\nnxdomain_per_minute = 5")?;
    let (mut first, mut second) = (member(&broker, "alpine")?, member(&broker, "alpine")?);
    ensure!(ask(&mut first, &lookup())?.0 == 200 && ask(&mut second, &lookup())?.0 == 200, "two places");
    ensure!(member(&broker, "alpine").and_then(|mut tls| ask(&mut tls, &lookup())).is_err(), "no third place");
    broker.assert_logged("member alpine has 2 connections already")?;
    assert_served(&broker, "atlantic")?;
    let mut refused = None;
    for number in 0..20 {
        let absent = query(1, 0, &nibble_name(&format!("70b3d57ed00000{number:02}")), 1, 1);
        let (status, _) = ask(&mut first, &absent)?;
        if status != 200 {
            refused = Some((number, status));
            break;
        }
    }
    // The minute may have changed in between, so that the count began again.
    ensure!(refused.is_some_and(|(number, status)| (5..=10).contains(&number) && status == 429), "{refused:?}");
    ensure!(ask(&mut first, &lookup())?.0 == 429, "a known name tells no more than an unknown one");
    let unknown = broker.metric("dnsbroker_member_unknown_total{member=\"alpine\"}")?;
    ensure!((5..=10).contains(&unknown), "{unknown} unknown names were counted");
    ensure!(broker.metric("dnsbroker_member_limited_total{member=\"alpine\"}")? >= 2);
    broker.assert_logged("a member asks for too many names that nobody has registered")?;
    let lines = broker.log().lines().filter(|line| line.contains("asks for too many names")).count();
    ensure!(lines <= 2, "{lines} lines in a minute or two");
    assert_served(&broker, "atlantic")?;
    drop(second);
    Ok(())
}

/// One HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut octets = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    octets.extend([kind, flags]);
    octets.extend(stream.to_be_bytes());
    octets.extend(payload);
    octets
}

#[test]
fn http2_floods_cost_the_flooder_its_connection_and_others_nothing() -> anyhow::Result<()> {
    let broker = federation("")?;
    let flooder = credential(&broker.certificate("alpine")?)?;
    let config = client(&broker, Some(flooder), &["h2"])?;
    // :method GET, :scheme https, :path /, by index (RFC 7541, appendix A), and an authority.
    let headers = [0x82, 0x87, 0x84, 0x41, 0x01, b'x'];
    let rapid_reset = |stream: u32| [frame(1, 5, stream, &headers), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
    let floods: Vec<(&str, Vec<u8>)> = vec![
        ("rapid reset", (0..20_000).flat_map(|n| rapid_reset(2 * n + 1)).collect()),
        (
            "CONTINUATION",
            [frame(1, 0, 1, &headers)]
                .into_iter()
                .chain((0..20_000).map(|_| frame(9, 0, 1, &[0x88; 64])))
                .flatten()
                .collect(),
        ),
        ("SETTINGS", (0..50_000).flat_map(|_| frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])).collect()),
        ("PING", (0..50_000).flat_map(|_| frame(6, 0, 0, &[7; 8])).collect()),
        (
            "empty DATA",
            [frame(1, 4, 1, &headers)].into_iter().chain((0..50_000).map(|_| frame(0, 0, 1, &[]))).flatten().collect(),
        ),
        ("odd frame", frame(1, 4, 0, &headers)),
    ];
    for (name, flood) in floods {
        let mut tls = connect(broker.doh()?, &config)?;
        tls.sock.set_write_timeout(Some(Duration::from_secs(5)))?;
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat();
        // The broker may cut the connection at any point: that is what it should do.
        let _ = tls.write_all(&preface).and_then(|()| tls.write_all(&flood)).and_then(|()| tls.flush());
        assert_served(&broker, "atlantic").with_context(|| format!("during {name}"))?;
    }
    let metrics = broker.status()?.listeners.metrics[0];
    let mut page = String::new();
    let mut stream = TcpStream::connect(metrics)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    stream.read_to_string(&mut page)?;
    let memory = page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    let memory: u64 = memory.context("no memory figure")?.parse()?;
    ensure!(memory < 300 << 20, "floods took {memory} octets of memory");
    ensure!(!broker.log().contains("panicked"), "{}", broker.log());
    Ok(())
}

#[test]
fn a_brought_certificate_is_taken_without_a_restart_and_open_connections_go_on() -> anyhow::Result<()> {
    let broker = federation("")?;
    let mut live = member(&broker, "atlantic")?;
    ensure!(ask(&mut live, &lookup())?.0 == 200, "served");
    let before = live.conn.peer_certificates().context("no certificate")?[0].clone();
    let own = broker.path().join("own");
    std::fs::create_dir(&own)?;
    let copied =
        ["server.pem", "server.key"].map(|file| std::fs::copy(broker.path().join("ca").join(file), own.join(file)));
    for result in copied {
        result?;
    }
    // A new one of the broker's own CA, as if the administrator had brought it.
    std::fs::remove_file(broker.path().join("ca/server.pem"))?;
    broker.signal(Signal::HUP)?;
    broker.assert_logged("the broker's certificate is a new one")?;
    ensure!(ask(&mut live, &lookup())?.0 == 200, "an open connection goes on");
    let fresh = member(&broker, "atlantic")?;
    ensure!(fresh.conn.peer_certificates().context("no certificate")?[0] != before, "the next one gets the new");
    let file = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let brought = text.replace(
        "# certificate = \"fullchain.pem\"\n# key = \"privkey.pem\"",
        "certificate = \"own/server.pem\"\nkey = \"own/server.key\"",
    );
    ensure!(brought != text, "the configuration has the lines");
    std::fs::write(&file, brought)?;
    broker.signal(Signal::HUP)?;
    let begun = Instant::now();
    loop {
        let tls = member(&broker, "atlantic")?;
        if tls.conn.peer_certificates().context("no certificate")?[0] == before {
            break;
        }
        ensure!(begun.elapsed() < Duration::from_secs(5), "the brought certificate is not served\n{}", broker.log());
    }
    std::fs::write(&file, "federation = 7")?;
    broker.signal(Signal::HUP)?;
    broker.assert_logged("reload failed")?;
    assert_served(&broker, "alpine")
}
