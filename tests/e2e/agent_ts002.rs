//! The TS002 endpoint over TLS, with and without certificates of network servers; Join Servers behind it; and what ChirpStack
//! v3 sends, whose one default Join Server the agent is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::roaming::{HomeServer, body, certificates, provider, roots};
use dnsbroker_tests::tls::{Odd, private_ca, stranger};
use dnsbroker_tests::{Agent, Broker, Host, peer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

const DEVICE: &str = "0004a30b001c0530";

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    Ok(broker)
}

/// An agent whose endpoint has a certificate by a CA in `endpoint/`.
fn member(broker: &Broker, more: &str) -> anyhow::Result<Agent> {
    let host = Host::new()?;
    host.enroll(broker, "alpine", "fed")?;
    private_ca(&host.path().join("endpoint"), "DNS:localhost,IP:127.0.0.1")?;
    keep_secret(&host.path().join("endpoint/server.key"))?;
    let ts002 = "[ts002]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"endpoint/server.pem\"\nkey = \"endpoint/server.key\"\n\
                 ca = \"endpoint/ca.pem\"\n";
    let agent = host.start("[[federation]]\ndir = \"fed\"\n", &format!("{ts002}{more}"))?;
    agent.ready()?;
    Ok(agent)
}

fn keep_secret(key: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600))?)
}

fn home_ns(transaction: u32) -> String {
    json!({
        "ProtocolVersion": "1.0", "SenderID": "600013", "ReceiverID": "6895a4b3c2d1beef",
        "TransactionID": transaction, "MessageType": "HomeNSReq", "DevEUI": DEVICE,
    })
    .to_string()
}

/// `curl`, with the body of a HomeNSReq.
fn curl(agent: &Agent, host: &str, args: &[&str]) -> anyhow::Result<Option<Result<Value, String>>> {
    let url = format!("https://{host}:{}/", agent.ts002()?.port());
    let data = home_ns(7);
    let fixed = ["-sS", "--max-time", "10", "-H", "content-type: application/json", "--data", &data];
    let ran = peer("curl", &[&fixed[..], args, &[url.as_str()]].concat())?;
    Ok(ran.map(|ran| if ran.ok { Ok(serde_json::from_str(&ran.stdout).unwrap_or_default()) } else { Err(ran.stderr) }))
}

/// A network server as ChirpStack v4 was seen: TLS 1.3, ALPN http/1.1, a connection that it keeps; it trusts and shows what its
/// configuration says, and that is what the agent has written.
struct Lns(StreamOwned<ClientConnection, TcpStream>);

impl Lns {
    fn configured_by(agent: &Agent) -> anyhow::Result<Self> {
        let stanzas = agent.host.json(&["lns-config", "chirpstack"])?;
        let config: toml::Value = toml::from_str(stanzas["chirpstack"].as_str().context("no text")?)?;
        let server = &config["join_server"]["servers"][0];
        let text = |name: &str| server.get(name).and_then(toml::Value::as_str);
        let url = text("server").context("no server")?;
        let (host, port) = url.strip_prefix("https://").and_then(|at| at.rsplit_once(':')).context("no HTTPS URL")?;
        let anchors = roots(Path::new(text("ca_cert").context("no ca_cert")?))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(anchors);
        let mut tls = match (text("tls_cert"), text("tls_key")) {
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificates(Path::new(certificate))?, PrivateKeyDer::from_pem_file(key)?)?,
            _ => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(SocketAddr::new("127.0.0.1".parse()?, port.parse()?))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let connection = ClientConnection::new(Arc::new(tls), ServerName::try_from(host.to_owned())?)?;
        Ok(Self(StreamOwned::new(connection, stream)))
    }

    fn home(&mut self, transaction: u32) -> anyhow::Result<Value> {
        let request = home_ns(transaction);
        write!(
            self.0,
            "POST / HTTP/1.1\r\ncontent-type: application/json\r\naccept: */*\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{request}",
            request.len()
        )?;
        self.0.flush()?;
        Ok(serde_json::from_slice(&body(&mut self.0)?)?)
    }
}

#[test]
fn over_tls_curl_and_network_servers_get_the_home_network() -> anyhow::Result<()> {
    let broker = federation()?;
    let agent = member(&broker, "")?;
    let ca = agent.host.path().join("endpoint/ca.pem").display().to_string();
    for host in ["127.0.0.1", "localhost"] {
        let Some(answer) = curl(&agent, host, &["--cacert", &ca])? else { return Ok(()) };
        let answer = answer.map_err(anyhow::Error::msg)?;
        ensure!(answer["HNetID"] == "60002d" && answer["TransactionID"] == 7, "{host}: {answer}");
    }
    let stranger = curl(&agent, "localhost", &[])?;
    ensure!(stranger.is_some_and(|ran| ran.is_err_and(|words| words.contains("certificate"))), "verified by nobody");
    let mut lns = Lns::configured_by(&agent)?;
    for transaction in 1..=3 {
        let answer = lns.home(transaction)?;
        ensure!(answer["HNetID"] == "60002d" && answer["TransactionID"] == transaction, "{answer}");
    }
    ensure!(lns.0.conn.alpn_protocol() == Some(&b"http/1.1"[..]));
    // Nothing is said in the clear.
    ensure!(dnsbroker_tests::http(agent.ts002()?, "POST", "/", home_ns(8).as_bytes()).is_err());
    agent.assert_logged("a handshake of the TS002 endpoint failed")
}

#[test]
fn with_mutual_tls_only_the_own_network_server_may_ask() -> anyhow::Result<()> {
    let broker = federation()?;
    let more = "client_ca = \"fed/ca.pem\"\nurl = \"https://localhost:PORT\"\n";
    let port = dnsbroker_tests::free_port()?;
    let more = more.replace("PORT", &port.to_string());
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    private_ca(&host.path().join("endpoint"), "DNS:localhost")?;
    keep_secret(&host.path().join("endpoint/server.key"))?;
    let ts002 = format!(
        "[ts002]\nlisten = [\"127.0.0.1:{port}\"]\ncertificate = \"endpoint/server.pem\"\nkey = \"endpoint/server.key\"\n\
         ca = \"endpoint/ca.pem\"\n{more}"
    );
    let agent = host.start("[[federation]]\ndir = \"fed\"\n", &ts002)?;
    agent.ready()?;
    let path = |name: &str| agent.host.path().join(name).display().to_string();
    let (ca, certificate, key) = (path("endpoint/ca.pem"), path("fed/client.pem"), path("fed/client.key"));
    let Some(nobody) = curl(&agent, "localhost", &["--cacert", &ca])? else { return Ok(()) };
    ensure!(nobody.is_err(), "without a certificate: {nobody:?}");
    let (chain, secret) =
        stranger(&Odd { uris: &["spiffe://fed.example/member/alpine"], days: (-1, 1), ..Odd::default() })?;
    std::fs::write(path("stranger.der"), &chain[0])?;
    std::fs::write(path("stranger.key.der"), secret.secret_der())?;
    let odd = ["--cert-type", "DER", "--key-type", "DER", "--cert", "stranger.der", "--key", "stranger.key.der"];
    let odd = odd.map(|word| if word.ends_with(".der") { path(word) } else { word.to_owned() });
    let odd: Vec<&str> = ["--cacert", &ca].into_iter().chain(odd.iter().map(String::as_str)).collect();
    let refused = curl(&agent, "localhost", &odd)?.context("curl was here a moment ago")?;
    ensure!(refused.is_err(), "with a certificate of another CA: {refused:?}");
    // Another member of the federation is no stranger to its CA, and may not ask in our name either.
    let other = Host::new()?;
    other.enroll(&broker, "atlantic", "fed")?;
    let (theirs, secret) = (other.path().join("fed/client.pem"), other.path().join("fed/client.key"));
    let theirs = ["--cacert", &ca, "--cert", &theirs.display().to_string(), "--key", &secret.display().to_string()];
    let refused = curl(&agent, "localhost", &[&theirs[..], &["--fail-with-body"]].concat())?;
    let refused = refused.context("curl was here a moment ago")?;
    ensure!(refused.as_ref().is_err_and(|words| words.contains("403")), "another member: {refused:?}\n{}", agent.log());
    agent.assert_logged("the certificate of atlantic of fed.example")?;
    let own = ["--cacert", &ca, "--cert", &certificate, "--key", &key];
    let answer = curl(&agent, "localhost", &own)?.context("curl was here a moment ago")?.map_err(anyhow::Error::msg)?;
    ensure!(answer["HNetID"] == "60002d", "{answer}");
    let answer = Lns::configured_by(&agent)?.home(5)?;
    ensure!(answer["HNetID"] == "60002d" && answer["TransactionID"] == 5, "{answer}");
    Ok(())
}

#[test]
fn an_endpoint_that_cannot_have_tls_says_why_and_does_not_start() -> anyhow::Result<()> {
    let broker = federation()?;
    for (ts002, words) in [
        ("certificate = \"fed/client.pem\"\nkey = \"missing.key\"", "missing.key"),
        ("certificate = \"fed/ca.pem\"\nkey = \"fed/client.key\"", "TS002 endpoint cannot have TLS"),
        ("certificate = \"fed/client.pem\"\nkey = \"fed/client.key\"\nclient_ca = \"fed/client.key\"", "client.key"),
        ("client_ca = \"fed/ca.pem\"", "are for TLS"),
    ] {
        let host = Host::new()?;
        host.enroll(&broker, "alpine", "fed")?;
        let ts002 = format!("[ts002]\nlisten = [\"127.0.0.1:0\"]\n{ts002}\n");
        let failed = host.start("[[federation]]\ndir = \"fed\"\n", &ts002).err().context("it has started")?;
        ensure!(failed.to_string().contains(words), "{ts002}: {failed}");
    }
    Ok(())
}

/// What ChirpStack v3 sends to its default Join Server, octet for octet as Go's HTTP client does.
fn go_post(stream: &mut TcpStream, at: SocketAddr, message: &str) -> anyhow::Result<Vec<u8>> {
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {at}\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n\
         Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n{message}",
        message.len()
    )?;
    body(stream)
}

/// A Join Server in the clear: notes what comes, and answers what it is told to.
fn join_server(answer: &'static str) -> anyhow::Result<(String, std::sync::mpsc::Receiver<Vec<u8>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    let (tell, heard) = std::sync::mpsc::channel();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            while let Ok(request) = body(&mut stream) {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
                if tell.send(request).is_err() || write!(stream, "{head}: {}\r\n\r\n{answer}", answer.len()).is_err() {
                    break;
                }
            }
        }
    });
    Ok((url, heard))
}

#[test]
fn as_chirpstack_v3s_default_server_the_agent_answers_home_ns_req_and_passes_the_rest_on() -> anyhow::Result<()> {
    const ACCEPT: &str = r#"{"ProtocolVersion":"1.0","SenderID":"0102030405060708","ReceiverID":"600013","TransactionID":3110853244,"MessageType":"JoinAns","VSExtension":{},"Result":{"ResultCode":"Success","Description":""},"PHYPayload":"20a1b2c3d4","Lifetime":0,"NwkSKey":{"KEKLabel":"","AESKey":"00112233445566778899aabbccddeeff"}}"#;
    let broker = federation()?;
    let (url, heard) = join_server(ACCEPT)?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let sections = format!("[ts002]\nlisten = [\"127.0.0.1:0\"]\n[[ts002.join_server]]\nurl = \"{url}\"\n");
    let agent = host.start("[[federation]]\ndir = \"fed\"\n", &sections)?;
    agent.ready()?;
    let at = agent.ts002()?;
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(8)))?;
    // A device of its own, whose keys the Join Server has; a rejoin; the application server's question for the session key.
    for kind in ["JoinReq", "RejoinReq", "AppSKeyReq"] {
        let message = format!(
            r#"{{"ProtocolVersion":"1.0","SenderID":"600013","ReceiverID":"0102030405060708","TransactionID":3110853244,"MessageType":"{kind}","VSExtension":{{}},"MACVersion":"1.0.3","PHYPayload":"00080706050403020101000000000000000100efbeadde","DevEUI":"0100000000000000","DevAddr":"26000001","DLSettings":"00","RxDelay":1}}"#
        );
        let answer = go_post(&mut stream, at, &message)?;
        ensure!(answer == ACCEPT.as_bytes(), "{kind}: {}", String::from_utf8_lossy(&answer));
        let came = heard.recv_timeout(Duration::from_secs(5))?;
        ensure!(came == message.as_bytes(), "{kind} was changed: {}", String::from_utf8_lossy(&came));
    }
    // A device that is heard here and at home elsewhere, on the same connection.
    let message = format!(
        r#"{{"ProtocolVersion":"1.0","SenderID":"600013","ReceiverID":"6895a4b3c2d1beef","TransactionID":4294967295,"MessageType":"HomeNSReq","VSExtension":{{}},"DevEUI":"{DEVICE}"}}"#
    );
    let answer: Value = serde_json::from_slice(&go_post(&mut stream, at, &message)?)?;
    ensure!(
        answer
            == json!({
                "ProtocolVersion": "1.0", "SenderID": "6895a4b3c2d1beef", "ReceiverID": "600013",
                "TransactionID": 4_294_967_295_u32, "MessageType": "HomeNSAns",
                "Result": { "ResultCode": "Success" }, "HNetID": "60002d",
            }),
        "{answer}"
    );
    ensure!(heard.try_recv().is_err(), "the Join Server is not told of foreign devices");
    ensure!(agent.metric("dnsbroker_agent_ts002_others_total{what=\"passed-on\"}")? == 3.0);
    Ok(())
}

#[test]
fn a_join_server_behind_mutual_tls_is_shown_the_certificate_that_is_configured() -> anyhow::Result<()> {
    let broker = federation()?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let js = host.path().join("js");
    private_ca(&js, "DNS:localhost")?;
    keep_secret(&js.join("server.key"))?;
    let serve = |client_ca: &Path| -> anyhow::Result<(HomeServer, u16)> {
        let listener = HomeServer::bind()?;
        let port = listener.local_addr()?.port();
        Ok((HomeServer::serve(listener, &js, client_ca)?, port))
    };
    // The second one does not know our certificate, and the third is not known to us.
    let (good, port) = serve(&js.join("ca.pem"))?;
    let (closed, closed_port) = serve(&host.path().join("fed/ca.pem"))?;
    let server = |prefix: &str, port: u16, ca: &str| {
        format!(
            "[[ts002.join_server]]\nprefix = \"{prefix}\"\nurl = \"https://localhost:{port}/\"\nca = \"{ca}\"\n\
             certificate = \"js/server.pem\"\nkey = \"js/server.key\"\n"
        )
    };
    let sections = "[ts002]\nlisten = [\"127.0.0.1:0\"]\n".to_owned()
        + &server("1000000000000000/4", port, "js/ca.pem")
        + &server("2000000000000000/4", closed_port, "js/ca.pem")
        + &server("3000000000000000/4", port, "fed/ca.pem");
    let agent = host.start("[[federation]]\ndir = \"fed\"\n", &sections)?;
    let join = |receiver: &str| {
        agent.ts002_message(&json!({
            "ProtocolVersion": "1.0", "SenderID": "600013", "ReceiverID": receiver, "TransactionID": 7,
            "MessageType": "JoinReq", "MACVersion": "1.0.3", "PHYPayload": "00ef", "DevEUI": DEVICE,
            "DevAddr": "01020304", "DLSettings": "00", "RxDelay": 1, "ULMetaData": { "DevEUI": DEVICE },
        }))
    };
    let answer = join("1895a4b3c2d1beef")?;
    ensure!(answer["MessageType"] == "JoinAns" && answer["PHYPayload"] == "20a1b2c3d4", "{answer}");
    ensure!(good.next()?["ReceiverID"] == "1895a4b3c2d1beef");
    for receiver in ["2895a4b3c2d1beef", "3895a4b3c2d1beef", "4895a4b3c2d1beef"] {
        let answer = join(receiver)?;
        let failed = answer["MessageType"] == "JoinAns" && answer["Result"]["ResultCode"] == "JoinReqFailed";
        ensure!(failed, "{receiver}: {answer}");
    }
    ensure!(closed.heard().is_empty() && good.heard().is_empty(), "nobody else has heard of it");
    agent.assert_logged("the Join Server does not answer")
}

#[test]
fn a_join_server_that_is_silent_leaves_the_network_server_time_to_hear_of_it() -> anyhow::Result<()> {
    let broker = federation()?;
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let url = format!("http://{}/", silent.local_addr()?);
    let sections = format!("[ts002]\nlisten = [\"127.0.0.1:0\"]\n[[ts002.join_server]]\nurl = \"{url}\"\n");
    let agent = host.start("[[federation]]\ndir = \"fed\"\n", &sections)?;
    agent.ready()?;
    let begun = Instant::now();
    let answer = std::thread::scope(|scope| -> anyhow::Result<Value> {
        let join = scope.spawn(|| {
            agent.ts002_message(&json!({
                "MessageType": "JoinReq", "SenderID": "600013", "ReceiverID": "6895a4b3c2d1beef", "TransactionID": 7,
                "PHYPayload": "00",
            }))
        });
        // Other devices are not held up.
        std::thread::sleep(Duration::from_millis(300));
        let other = Instant::now();
        ensure!(agent.home(DEVICE)? == "60002d" && other.elapsed() < Duration::from_secs(1), "{:?}", other.elapsed());
        join.join().map_err(|_| anyhow::anyhow!("the joiner panicked"))?
    })?;
    ensure!(answer["Result"]["ResultCode"] == "JoinReqFailed", "{answer}");
    ensure!(begun.elapsed() < Duration::from_millis(4_900), "{:?}: ChirpStack waits 5 s", begun.elapsed());
    // It was there.
    let (mut stream, _) = silent.accept()?;
    ensure!(stream.read(&mut [0; 64])? > 0);
    Ok(())
}
