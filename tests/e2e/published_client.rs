//! The client that the talk's authors published, a fork of a DNS proxy: exactly its requests, without the program.
//!
//! It offers http/1.1 before h2, asks with GET and `dns=` in base64url, its own non-zero ID in the message, and takes an
//! answer only with status 200 and that ID. It sends each name to the upstream with the longest suffix, with one client
//! certificate for all, and their network server asks for the CNAME of a flat name, reads the NetID from its first label,
//! and calls that name.

use anyhow::{Context, ensure};
use dnsbroker_tests::tls::{client, connect, credential, http1};
use dnsbroker_tests::{Broker, output, query};

const DEVICE: &str = "0004a30b001c0530";

fn base64url(octets: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in octets.chunks(3) {
        let value = chunk.iter().fold(0_u32, |value, octet| value << 8 | u32::from(*octet)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(value >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    Ok(broker)
}

/// Name and address that an answer to its question has, if the client would take it.
fn taken(status: u16, id: u16, answer: &[u8]) -> anyhow::Result<&[u8]> {
    ensure!(status == 200, "it wants exactly 200, not {status}");
    ensure!(answer.get(..2) == Some(&id.to_be_bytes()), "it wants its own ID back: {answer:?}");
    ensure!(answer[2] & 0x80 != 0 && answer[3] & 15 == 0, "an answer without error: {answer:?}");
    Ok(answer)
}

#[test]
fn its_requests_over_http_1_1_are_answered_as_it_wants() -> anyhow::Result<()> {
    let broker = federation()?;
    let credential = credential(&broker.certificate("alpine")?)?;
    // A server that knew only http/1.1 would get this from it; one connection serves many.
    let mut tls = connect(broker.doh()?, &client(&broker, Some(credential), &["http/1.1"])?)?;
    let flat = format!("{DEVICE}.deveuis.fed.example");
    for (id, name, qtype, ending) in [
        (0x1234_u16, flat.as_str(), 5_u16, None),
        (0x4321, "60002d.netids.fed.example", 1, Some([192, 0, 2, 45])),
        (0xffff, flat.as_str(), 1, Some([192, 0, 2, 45])),
    ] {
        let message = query(id, 0, name, qtype, 1);
        let head = format!(
            "GET /dns-query?dns={} HTTP/1.1\r\naccept: application/dns-message\r\nuser-agent: ",
            base64url(&message)
        );
        let (status, head, answer) = http1(&mut tls, &head, b"")?;
        let answer = taken(status, id, &answer)?;
        ensure!(head.contains("content-type: application/dns-message"), "{head}");
        match ending {
            Some(address) => ensure!(answer.ends_with(&address), "{name}: {answer:?}"),
            // The CNAME's target begins with the NetID: six digits, three octets.
            None => ensure!(answer.windows(7).any(|seven| seven == b"\x0660002d"), "{name}: {answer:?}"),
        }
    }
    // A foreign device: an error it passes on, with its ID, and a SOA by which it caches.
    let message = query(0x0bad, 0, "ffff00000000ffff.deveuis.fed.example", 5, 1);
    let head = format!("GET /dns-query?dns={} HTTP/1.1\r\naccept: application/dns-message", base64url(&message));
    let (status, _, answer) = http1(&mut tls, &head, b"")?;
    ensure!(status == 200 && answer[..2] == [0x0b, 0xad] && answer[3] & 15 == 3 && answer[9] == 1, "{answer:?}");
    Ok(())
}

/// The same over HTTP/2, with its order of ALPN.
const OVER_HTTP2: &str = r#"
import base64, socket, ssl, sys
import h2.connection, h2.config, h2.events
host, port, cert, key, ca, message = sys.argv[1:]
message = bytes.fromhex(message)
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
context.set_alpn_protocols(["http/1.1", "h2"])
tls = context.wrap_socket(socket.create_connection((host, int(port)), timeout=10), server_hostname="broker.fed.example")
assert tls.selected_alpn_protocol() == "h2", tls.selected_alpn_protocol()
http = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=True))
http.initiate_connection()
path = "/dns-query?dns=" + base64.urlsafe_b64encode(message).rstrip(b"=").decode()
http.send_headers(1, [(":method", "GET"), (":scheme", "https"), (":authority", "broker.fed.example"), (":path", path),
                      ("accept", "application/dns-message"), ("user-agent", "")], end_stream=True)
tls.sendall(http.data_to_send())
status, body = None, b""
while True:
    data = tls.recv(65535)
    assert data, "closed"
    for event in http.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            status = dict(event.headers)[b":status"].decode()
        if isinstance(event, h2.events.DataReceived):
            body += event.data
        if isinstance(event, h2.events.StreamEnded):
            print(status, body.hex())
            sys.exit(0)
    tls.sendall(http.data_to_send())
"#;

#[test]
fn its_requests_over_http_2_are_answered_as_it_wants() -> anyhow::Result<()> {
    let broker = federation()?;
    let cert = broker.certificate("alpine")?;
    let missing = !output(std::process::Command::new("/usr/bin/python3").args(["-c", "import h2"]))?.ok;
    if missing {
        dnsbroker_tests::missing("python3-h2");
        return Ok(());
    }
    let id = 0x1234;
    let message: String = query(id, 0, &format!("{DEVICE}.deveuis.fed.example"), 1, 1)
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let (address, ca) = (broker.doh()?, broker.path().join("ca/root.pem"));
    let done = output(
        std::process::Command::new("/usr/bin/python3")
            .args(["-c", OVER_HTTP2, &address.ip().to_string(), &address.port().to_string()])
            .args([cert.join("client.pem"), cert.join("client.key"), ca])
            .arg(&message),
    )?;
    ensure!(done.ok, "{}", done.stderr);
    let (status, body) = done.stdout.trim().split_once(' ').context("no answer")?;
    let octets: Result<Vec<u8>, _> =
        (0..body.len() / 2).map(|index| u8::from_str_radix(&body[2 * index..2 * index + 2], 16)).collect();
    let answer = octets?;
    ensure!(taken(status.parse()?, id, &answer)?.ends_with(&[192, 0, 2, 45]), "{answer:?}");
    Ok(())
}
