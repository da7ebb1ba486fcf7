//! Members look devices up with the programs they have: dig, kdig, curl, dnspython.

use std::path::Path;

use anyhow::ensure;
use dnsbroker_tests::{Broker, Finished, nibble_name, peer};

const DEVICE: &str = "0004a30b001c0530";
const ABSENT: &str = "0004a30b001c0531";

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE, "70b3d57ed0000001"])?;
    Ok(broker)
}

fn tls_options(broker: &Broker, cert: Option<&Path>) -> Vec<String> {
    let ca = broker.path().join("ca/root.pem");
    let mut options = vec![format!("+tls-ca={}", ca.display()), "+tls-hostname=broker.fed.example".to_owned()];
    if let Some(dir) = cert {
        options.push(format!("+tls-certfile={}", dir.join("client.pem").display()));
        options.push(format!("+tls-keyfile={}", dir.join("client.key").display()));
    }
    options
}

/// dig or kdig over DoH.
fn dig(
    program: &str,
    mode: &str,
    broker: &Broker,
    cert: Option<&Path>,
    rest: &[&str],
) -> anyhow::Result<Option<Finished>> {
    let doh = broker.doh()?;
    let mut args = vec![format!("@{}", doh.ip()), "-p".to_owned(), doh.port().to_string(), mode.to_owned()];
    args.extend(tls_options(broker, cert));
    args.extend(["+tries=1", "+time=5"].iter().filter(|_| program == "dig").map(ToString::to_string));
    args.extend(rest.iter().map(ToString::to_string));
    peer(program, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn dig_and_kdig_resolve_with_a_certificate_and_not_without() -> anyhow::Result<()> {
    let broker = federation()?;
    let cert = broker.certificate("alpine")?;
    let name = nibble_name(DEVICE);
    for (program, mode, more) in [
        ("dig", "+https", None),
        ("dig", "+https-get", None),
        ("kdig", "+https", None),
        ("kdig", "+https", Some("+https-get")),
    ] {
        let rest: Vec<&str> = more.into_iter().chain([name.as_str(), "A"]).collect();
        let Some(with) = dig(program, mode, &broker, Some(&cert), &rest)? else { return Ok(()) };
        ensure!(with.stdout.contains("60002d.netids.fed.example"), "{program} {mode}: {}{}", with.stdout, with.stderr);
        ensure!(with.stdout.contains("192.0.2.45"), "{program} {mode}: the address is in the same answer");
        let Some(without) = dig(program, mode, &broker, None, &rest)? else { return Ok(()) };
        ensure!(!without.stdout.contains("192.0.2.45"), "{program} {mode} got an answer without a certificate");
        ensure!(!without.stdout.contains("NOERROR"), "{program} {mode} without a certificate: {}", without.stdout);
    }
    broker.assert_logged("it presented no client certificate")
}

#[test]
fn answers_are_right_for_every_kind_of_name() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.45", "--port", "8444"])?;
    let cert = broker.certificate("alpine")?;
    let (device, absent) = (nibble_name(DEVICE), nibble_name(ABSENT));
    let flat = format!("{DEVICE}.deveuis.fed.example");
    let partial = "3.5.0.deveuis.fed.example";
    for (rest, wanted) in [
        (vec![device.as_str(), "A"], vec!["status: NOERROR", "CNAME", "192.0.2.45", "ANSWER: 2"]),
        (
            vec![device.as_str(), "AAAA"],
            vec!["status: NOERROR", "ANSWER: 1", "AUTHORITY: 1", "netids.fed.example.\t60"],
        ),
        (vec![device.as_str(), "CNAME"], vec!["status: NOERROR", "ANSWER: 1", "AUTHORITY: 0"]),
        (vec![device.as_str(), "ANY"], vec!["status: NOERROR", "ANSWER: 1"]),
        (vec![flat.as_str(), "A"], vec!["status: NOERROR", "192.0.2.45"]),
        (vec![absent.as_str(), "A"], vec!["status: NXDOMAIN", "AUTHORITY: 1", "SOA"]),
        (vec![partial, "A"], vec!["status: NOERROR", "ANSWER: 0", "AUTHORITY: 1"]),
        (vec!["9.9.9.9.deveuis.fed.example", "A"], vec!["status: NOERROR", "ANSWER: 0"]),
        (vec!["60002d.netids.fed.example", "A"], vec!["status: NOERROR", "192.0.2.45"]),
        (vec!["60002d.netids.fed.example", "NAPTR"], vec!["status: NOERROR", "LWNS"]),
        (vec!["_lwns._tcp.60002d.netids.fed.example", "SRV"], vec!["status: NOERROR", "8444"]),
        (vec!["600099.netids.fed.example", "A"], vec!["status: NXDOMAIN"]),
        (vec!["deveuis.fed.example", "SOA"], vec!["status: NOERROR", "broker.fed.example."]),
        (vec!["netids.fed.example", "NS"], vec!["status: NOERROR", "broker.fed.example."]),
        (vec!["example.org", "A"], vec!["status: REFUSED"]),
        (vec!["-c", "CH", "version.bind", "TXT"], vec!["status: REFUSED"]),
    ] {
        let Some(answer) = dig("dig", "+https", &broker, Some(&cert), &rest)? else { return Ok(()) };
        for text in wanted {
            ensure!(answer.stdout.contains(text), "{rest:?} lacks {text:?}:\n{}", answer.stdout);
        }
    }
    Ok(())
}

#[test]
fn curl_gets_and_posts_over_http2_and_1_1() -> anyhow::Result<()> {
    let broker = federation()?;
    let cert = broker.certificate("alpine")?;
    let query = dnsbroker_tests::query(0x1234, 0, &nibble_name(DEVICE), 1, 1);
    let file = broker.path().join("query");
    std::fs::write(&file, &query)?;
    let encoded = base64(&query);
    let url = format!("https://{}/dns-query", broker.doh()?);
    let get = format!("{url}?dns={encoded}");
    let (pem, key) = (cert.join("client.pem"), cert.join("client.key"));
    let (pem, key, ca) = (pem.to_string_lossy(), key.to_string_lossy(), broker.path().join("ca/root.pem"));
    let base = ["-sS", "-i", "--cert", &pem, "--key", &key, "--cacert", &ca.to_string_lossy()].map(str::to_owned);
    let data = format!("@{}", file.display());
    for version in ["--http2", "--http1.1"] {
        let post = [&url, "--data-binary", &data, "-H", "content-type: application/dns-message"];
        for rest in [&[get.as_str()][..], &post.map(|text| -> &str { text })[..]] {
            let args: Vec<&str> =
                base.iter().map(String::as_str).chain([version]).chain(rest.iter().copied()).collect();
            let Some(answer) = peer("curl", &args)? else { return Ok(()) };
            let head = answer.stdout.to_ascii_lowercase();
            let status = if version == "--http2" { "http/2 200" } else { "http/1.1 200" };
            ensure!(head.starts_with(status), "{version} {rest:?}: {}{}", answer.stdout, answer.stderr);
            ensure!(head.contains("content-type: application/dns-message"), "{head}");
            ensure!(head.contains("cache-control: private, max-age=60"), "{head}");
            let body = answer.octets.windows(2).position(|octets| octets == [0x12, 0x34]);
            ensure!(body.is_some(), "the DNS ID is echoed");
            ensure!(answer.octets.ends_with(&[192, 0, 2, 45]), "the address is the last record");
        }
    }
    let Some(without) = peer("curl", &["-sS", "--cacert", &ca.to_string_lossy(), &get])? else { return Ok(()) };
    // In TLS 1.3 a client learns of the refusal after its own part of the handshake, so curl's words vary.
    ensure!(!without.ok && without.octets.is_empty(), "without a certificate: {}", without.stdout);
    Ok(())
}

fn base64(octets: &[u8]) -> String {
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

/// What dnspython is told to do; it prints one line of JSON.
const PYTHON: &str = r#"
import sys, json, ssl
import dns.message, dns.rdatatype, dns.query
import httpx
url, ca, cert, key, name, method, version = sys.argv[1:8]
context = ssl.create_default_context(cafile=ca)
if cert != '-':
    context.load_cert_chain(cert, key)
query = dns.message.make_query(name, 'A')
with httpx.Client(http2=(version == '2'), http1=(version == '1'), verify=context) as client:
    try:
        answer = dns.query.https(query, url, session=client, post=(method == 'post'))
    except httpx.TransportError as error:
        print(json.dumps({'refused': str(error)}))
        sys.exit(0)
print(json.dumps({'rcode': answer.rcode(), 'records': [str(r) for r in answer.answer], 'id': answer.id == query.id}))
"#;

#[test]
fn dnspython_gets_and_posts() -> anyhow::Result<()> {
    let broker = federation()?;
    let cert = broker.certificate("alpine")?;
    let script = broker.path().join("resolve.py");
    std::fs::write(&script, PYTHON)?;
    let url = format!("https://{}/dns-query", broker.doh()?);
    let ca = broker.path().join("ca/root.pem");
    let (pem, key) = (cert.join("client.pem"), cert.join("client.key"));
    let run = |cert: &str, name: &str, method: &str, version: &str| {
        let (script, ca) = (script.to_string_lossy(), ca.to_string_lossy());
        peer("/usr/bin/python3", &[&script, &url, &ca, cert, &key.to_string_lossy(), name, method, version])
    };
    let pem = pem.to_string_lossy();
    for (method, version) in [("get", "2"), ("post", "2"), ("get", "1"), ("post", "1")] {
        let Some(answer) = run(&pem, &nibble_name(DEVICE), method, version)? else { return Ok(()) };
        if answer.stderr.contains("ModuleNotFoundError") {
            dnsbroker_tests::missing("python3-dnspython and python3-httpx");
            return Ok(());
        }
        ensure!(answer.stdout.contains("192.0.2.45"), "{method} {version}: {}{}", answer.stdout, answer.stderr);
        ensure!(answer.stdout.contains("\"id\": true"), "{}", answer.stdout);
        let Some(absent) = run(&pem, &nibble_name(ABSENT), method, version)? else { return Ok(()) };
        ensure!(absent.stdout.contains("\"rcode\": 3"), "{}", absent.stdout);
    }
    let Some(without) = run("-", &nibble_name(DEVICE), "get", "2")? else { return Ok(()) };
    ensure!(without.stdout.contains("refused"), "{}{}", without.stdout, without.stderr);
    Ok(())
}

/// A hundred questions at once on one HTTP/2 connection; it prints how many were answered rightly, and on how many
/// connections.
const STREAMS: &str = r#"
import sys, ssl, asyncio
import dns.message, dns.rdatatype
import httpx
url, ca, cert, key, known, unknown = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
opened = 0
async def trace(event, info):
    global opened
    opened += event == 'connection.start_tls.complete'
async def ask(client, number):
    query = dns.message.make_query(known if number % 2 else unknown, 'A')
    query.id = number
    reply = await client.post(url, content=query.to_wire(), headers={'content-type': 'application/dns-message'},
                              extensions={'trace': trace})
    answer = dns.message.from_wire(reply.content)
    return answer.id == number and answer.rcode() == (0 if number % 2 else 3)
async def main():
    async with httpx.AsyncClient(http2=True, http1=False, verify=context, timeout=30) as client:
        await ask(client, 1)
        answers = await asyncio.gather(*(ask(client, number) for number in range(100)))
        print(sum(answers), opened)
asyncio.run(main())
"#;

#[test]
fn a_hundred_posts_at_once_on_one_connection_are_each_answered() -> anyhow::Result<()> {
    let broker = federation()?;
    let cert = broker.certificate("alpine")?;
    let script = broker.path().join("streams.py");
    std::fs::write(&script, STREAMS)?;
    let url = format!("https://{}/dns-query", broker.doh()?);
    let paths = [broker.path().join("ca/root.pem"), cert.join("client.pem"), cert.join("client.key")];
    let [ca, pem, key] = paths.map(|path| path.to_string_lossy().into_owned());
    let (known, unknown) = (nibble_name(DEVICE), nibble_name(ABSENT));
    let args = [&script.to_string_lossy(), url.as_str(), &ca, &pem, &key, &known, &unknown];
    let Some(answers) = peer("/usr/bin/python3", &args)? else { return Ok(()) };
    if answers.stderr.contains("ModuleNotFoundError") {
        dnsbroker_tests::missing("python3-dnspython, python3-httpx or python3-h2");
        return Ok(());
    }
    ensure!(answers.stdout.trim() == "100 1", "{}{}", answers.stdout, answers.stderr);
    Ok(())
}
