//! Plain DNS: the broker's own names for everybody, and a closed door for everything else.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Options, eventually, nibble_name, peer, query};
use rustix::process::Signal;

const DEVICE: &str = "0004a30b001c0530";

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    Ok(broker)
}

fn udp(broker: &Broker) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(broker.dns()?)?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(socket)
}

fn over_udp(socket: &UdpSocket, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    socket.send(message)?;
    let mut answer = vec![0; 4_096];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn over_tcp(stream: &mut TcpStream, message: &[u8]) -> anyhow::Result<Vec<u8>> {
    stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The same message with a TSIG record of a key that nobody knows (RFC 8945, section 4.2).
fn signed(mut message: Vec<u8>) -> Vec<u8> {
    message[11] += 1;
    message.extend(b"\x03key\x00\x00\xfa\x00\xff\x00\x00\x00\x00");
    let rdata = [&b"\x0bhmac-sha256\x00"[..], &[0; 6], &[1, 44], &[0, 32], &[7; 32], &message[..2], &[0; 4]].concat();
    message.extend((rdata.len() as u16).to_be_bytes());
    message.extend(rdata);
    message
}

#[test]
fn private_names_are_refused_for_every_opcode_type_and_class() -> anyhow::Result<()> {
    let broker = federation()?;
    let socket = udp(&broker)?;
    let mut stream = TcpStream::connect(broker.dns()?)?;
    let names = [
        nibble_name(DEVICE),
        nibble_name("0004a30b001c0531"),
        format!("{DEVICE}.deveuis.fed.example"),
        "3.5.0.deveuis.fed.example".to_owned(),
        "deveuis.fed.example".to_owned(),
        "DeVeUiS.FED.example".to_owned(),
        "netids.fed.example".to_owned(),
        "60002d.netids.fed.example".to_owned(),
        "_lwns._tcp.60002d.netids.fed.example".to_owned(),
        "x.netids.fed.example".to_owned(),
    ];
    let types = [1, 2, 5, 6, 12, 16, 28, 33, 35, 46, 64, 65, 99, 249, 250, 251, 252, 253, 254, 255, 256, 257, 65_280];
    for name in &names {
        for opcode in 0..16 {
            for class in [1, 2, 3, 4, 254, 255] {
                for qtype in if opcode == 0 { &types[..] } else { &[1, 6, 252][..] } {
                    let plain = query(9, opcode, name, *qtype, class);
                    for message in [plain.clone(), signed(plain)] {
                        let case = format!("opcode {opcode} type {qtype} class {class} {name}");
                        let answer = over_udp(&socket, &message).with_context(|| case.clone())?;
                        let rcode = answer[3] & 15;
                        // REFUSED; or, before the name is looked at, NOTIMP, FORMERR, NOTAUTH of a bad signature.
                        let allowed: &[u8] = if opcode == 0 { &[5, 9, 1] } else { &[4, 5, 9, 1] };
                        ensure!(allowed.contains(&rcode), "{case}: rcode {rcode}");
                        ensure!(answer[6..8] == [0, 0] && answer[8..10] == [0, 0], "{case}: records leaked");
                    }
                }
            }
        }
        let answer = over_tcp(&mut stream, &query(9, 0, name, 1, 1))?;
        ensure!(answer[3] & 15 == 5 && answer[6..10] == [0; 4], "TCP {name}");
        for opcode in [4, 5] {
            let answer = over_tcp(&mut stream, &query(9, opcode, name, 6, 1))?;
            ensure!(answer[3] & 15 == 5, "opcode {opcode} over TCP {name}: rcode {}", answer[3] & 15);
        }
        for transfer in [251, 252] {
            let answer = over_tcp(&mut stream, &query(9, 0, name, transfer, 1))?;
            ensure!([5, 1].contains(&(answer[3] & 15)) && answer[6..10] == [0; 4], "transfer of {name}");
        }
    }
    for opcode in [1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        let answer = over_udp(&socket, &query(9, opcode, "broker.fed.example", 1, 1))?;
        ensure!(answer[3] & 15 == 4, "opcode {opcode} is not implemented: rcode {}", answer[3] & 15);
        ensure!(answer[2] >> 3 & 15 == opcode, "the opcode is echoed");
    }
    Ok(())
}

#[test]
fn the_brokers_own_names_are_there_for_everybody() -> anyhow::Result<()> {
    let broker = federation()?;
    let dns = broker.dns()?;
    let (at, port) = (format!("@{}", dns.ip()), dns.port().to_string());
    let doh_port = broker.doh()?.port().to_string();
    for (name, kind, wanted) in [
        ("fed.example", "SOA", vec!["broker.fed.example.", "hostmaster.fed.example."]),
        ("fed.example", "NS", vec!["broker.fed.example."]),
        ("fed.example", "CAA", vec!["0 issue \";\""]),
        ("broker.fed.example", "A", vec!["127.0.0.1"]),
        ("BROKER.fed.example", "A", vec!["BROKER.fed.example.", "127.0.0.1"]),
        ("_dns.broker.fed.example", "SVCB", vec!["broker.fed.example.", "alpn=\"h2\"", doh_port.as_str(), "dohpath"]),
        ("_dns.resolver.arpa", "SVCB", vec!["broker.fed.example.", doh_port.as_str()]),
        ("broker.fed.example", "AAAA", vec!["status: NOERROR", "ANSWER: 0", "SOA"]),
        ("nothing.fed.example", "A", vec!["status: NXDOMAIN", "SOA"]),
        ("example.org", "A", vec!["status: REFUSED"]),
    ] {
        for transport in ["+notcp", "+tcp"] {
            let Some(answer) = peer("dig", &[&at, "-p", &port, transport, "+tries=1", name, kind])? else {
                return Ok(());
            };
            let text = answer.stdout.replace("key7=", "dohpath=");
            for words in &wanted {
                ensure!(text.contains(words), "{name} {kind} {transport} lacks {words:?}:\n{text}");
            }
        }
    }
    Ok(())
}

#[test]
fn malformed_messages_are_answered_or_dropped_and_others_are_served() -> anyhow::Result<()> {
    let broker = federation()?;
    let socket = udp(&broker)?;
    let good = query(3, 0, "broker.fed.example", 1, 1);
    let mut forged = good.clone();
    forged[4..12].fill(0xff);
    let mut pointer = good[..12].to_vec();
    pointer.extend([0xc0, 12, 0, 1, 0, 1]);
    let mut response = good.clone();
    response[2] |= 0x80;
    let mut long = good[..12].to_vec();
    for _ in 0..5 {
        long.push(63);
        long.extend([b'a'; 63]);
    }
    long.extend([0, 0, 1, 0, 1]);
    for message in
        [&[][..], &[1], &good[..11], &good[..12], &good[..20], &forged, &pointer, &long, &response, &[0xff; 512]]
    {
        socket.send(message)?;
    }
    for step in 0..good.len() {
        let mut broken = good.clone();
        broken[step] ^= 0x55;
        socket.send(&broken)?;
    }
    // A fresh socket, since the other has answers waiting.
    let answer = over_udp(&udp(&broker)?, &good)?;
    ensure!(answer[3] & 15 == 0 && answer[7] == 1, "the next one is answered");
    let mut stalled = TcpStream::connect(broker.dns()?)?;
    stalled.write_all(&[0xff, 0xff, 1])?;
    let mut stream = TcpStream::connect(broker.dns()?)?;
    ensure!(over_tcp(&mut stream, &good)?[7] == 1, "a stalled client holds nobody up");
    ensure!(!broker.log().contains("panicked"), "{}", broker.log());
    Ok(())
}

#[test]
fn the_public_zone_follows_the_configuration_at_a_reload() -> anyhow::Result<()> {
    let broker = Broker::with(Options::default())?;
    let file = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let serial = |broker: &Broker| -> anyhow::Result<u64> {
        let zones = broker.json(&["zone", "list"])?;
        zones["items"][0]["serial"].as_u64().context("no serial")
    };
    let before = serial(&broker)?;
    std::fs::write(
        &file,
        text.replace("addresses = []", "addresses = [\"192.0.2.53\", \"2001:db8::53\"]\ncaa = [\"ca.example\"]"),
    )?;
    broker.signal(Signal::HUP)?;
    let begun = std::time::Instant::now();
    while serial(&broker)? == before {
        ensure!(begun.elapsed() < Duration::from_secs(5), "the reload did nothing:\n{}", broker.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let zone = broker.run(&["zone", "export", "public"])?.stdout;
    for words in ["192.0.2.53", "2001:db8::53", "\"ca.example\""] {
        ensure!(zone.contains(words), "{words} is missing:\n{zone}");
    }
    broker.signal(Signal::HUP)?;
    eventually("it was read again", || Ok(broker.log().matches("were read again").count() == 2))?;
    ensure!(serial(&broker)? == before + 1, "a reload without a change takes no serial");
    Ok(())
}

#[test]
fn a_zone_file_of_the_administrator_is_served_and_read_again() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let dns = broker.dns()?;
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../zones/public.zone");
    let file = broker.path().join("public.zone");
    let text = std::fs::read_to_string(&sample)?;
    std::fs::write(&file, &text)?;
    let config = broker.path().join("dnsbroker.toml");
    let plain = std::fs::read_to_string(&config)?;
    std::fs::write(&config, plain.replace("[zones]\n", "[zones]\npublic_file = \"public.zone\"\n"))?;
    broker.signal(Signal::HUP)?;
    let ask = |name: &str, kind: &str| -> anyhow::Result<String> {
        let args = [&format!("@{}", dns.ip()), "-p", &dns.port().to_string(), "+short", name, kind];
        Ok(peer("dig", &args)?.map(|answer| answer.stdout).unwrap_or_default())
    };
    if peer("dig", &["-v"])?.is_none() {
        return Ok(());
    }
    eventually("the file is served", || Ok(ask("mail.fed.example", "A")?.trim() == "192.0.2.25"))?;
    for (name, kind, wanted) in [
        ("fed.example", "TXT", "\"The federation of the tutorial\""),
        ("fed.example", "MX", "10 mail.fed.example."),
        ("mail.fed.example", "AAAA", "2001:db8::25"),
        ("www.fed.example", "A", "pages.fed.example.\n192.0.2.80"),
        ("_sip._tcp.fed.example", "SRV", "0 5 5060 pages.fed.example."),
        ("fed.example", "NS", "broker.fed.example."),
    ] {
        ensure!(ask(name, kind)?.trim() == wanted, "{name} {kind}: {}", ask(name, kind)?);
    }
    // What is exported loads in the checkers of others.
    let exported = broker.path().join("exported.zone");
    std::fs::write(&exported, broker.run(&["zone", "export", "public"])?.stdout)?;
    let exported = exported.to_string_lossy().into_owned();
    for (program, args) in [
        ("named-checkzone", vec!["fed.example", exported.as_str()]),
        ("kzonecheck", vec!["-o", "fed.example", exported.as_str()]),
        ("nsd-checkzone", vec!["fed.example", exported.as_str()]),
    ] {
        if let Some(checked) = peer(program, &args)? {
            ensure!(checked.ok, "{program}: {}{}", checked.stdout, checked.stderr);
        }
    }
    // A mistake leaves what was there, and is told with its line.
    std::fs::write(&file, format!("{text}devil.deveuis A 192.0.2.1\n"))?;
    broker.signal(Signal::HUP)?;
    eventually("the mistake is in the log", || Ok(broker.log().contains("private zone")))?;
    broker.assert_logged("reload failed")?;
    ensure!(ask("mail.fed.example", "A")?.trim() == "192.0.2.25");
    let checked = broker.run(&["zone", "check", "--public", "fed.example", &file.to_string_lossy()])?;
    ensure!(!checked.ok && checked.stderr.contains(&format!("line {}: ", text.lines().count() + 1)), "{checked:?}");
    std::fs::write(&file, text.replace("192.0.2.25", "192.0.2.26"))?;
    broker.signal(Signal::HUP)?;
    eventually("the change is served", || Ok(ask("mail.fed.example", "A")?.trim() == "192.0.2.26"))
}

#[test]
fn a_zone_file_of_devices_is_imported_in_both_shapes() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let file = broker.path().join("devices.zone");
    std::fs::write(
        &file,
        "$ORIGIN mydevices.example.\n$TTL 60\n@ SOA ns host 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n\
         0004a30b001c0530 A 198.51.100.19\n1.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0 CNAME lns\n",
    )?;
    let path = file.to_string_lossy().into_owned();
    let args = ["zone", "import", "--member", "alpine", "--netid", "600013", "--full", &path];
    ensure!(broker.json(&args)?["added"] == 2);
    let listed = broker.run(&["device", "list"])?.stdout;
    ensure!(listed.contains("0004a30b001c0530") && listed.contains("0004a30b001c0531"), "{listed}");
    let checked = broker.run(&["zone", "check", &path])?;
    ensure!(checked.ok && checked.stdout.contains("1 names are no DevEUI: ns.mydevices.example."), "{checked:?}");
    std::fs::write(&file, "0004a30b001c0530 60 IN A 1.2.3.4\n0004a30b001c0532 60 IN A 1.2.3.400\n")?;
    let refused = broker.run(&args)?;
    ensure!(!refused.ok && refused.stderr.contains("line 2"), "{refused:?}");
    // What we export we read.
    let exported = broker.run(&["zone", "export", "deveuis", "--names", "both"])?.stdout;
    std::fs::write(&file, exported)?;
    ensure!(broker.json(&args)?["unchanged"] == 2);
    Ok(())
}
