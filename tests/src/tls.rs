//! TLS clients that do what the peers won't: odd certificates, resumed sessions, requests in pieces.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use time::OffsetDateTime;

use crate::broker::Broker;
use crate::peers::output;

/// A TLS connection.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;
/// Chain and key of a client.
pub type Credential = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads client.pem and client.key of a directory.
pub fn credential(dir: &Path) -> anyhow::Result<Credential> {
    let chain = CertificateDer::pem_file_iter(dir.join("client.pem"))?.collect::<Result<_, _>>()?;
    Ok((chain, PrivateKeyDer::from_pem_file(dir.join("client.key"))?))
}

/// A client that trusts the broker's root. ALPN is offered in the order given.
pub fn client(broker: &Broker, credential: Option<Credential>, alpn: &[&str]) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(broker.path().join("ca/root.pem"))?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut config = match credential {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// A server of HTTP/2 that asks nobody for a certificate.
pub fn server(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> anyhow::Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects and shakes hands. In TLS 1.3 a refusal of the client's certificate shows at the first read.
pub fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<Tls> {
    connect_as(to, config, "broker.fed.example")
}

/// The same with a server of another name.
pub fn connect_as(to: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> anyhow::Result<Tls> {
    let name = ServerName::try_from(name.to_owned())?;
    let mut connection = ClientConnection::new(Arc::clone(config), name)?;
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_nodelay(true)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// Sends an HTTP/1.1 request and reads status, headers in lower case, and body.
pub fn http1(tls: &mut Tls, head: &str, body: &[u8]) -> anyhow::Result<(u16, String, Vec<u8>)> {
    tls.write_all(format!("{head}\r\nhost: broker.fed.example\r\n\r\n").as_bytes())?;
    tls.write_all(body)?;
    let mut read = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(end) = read.windows(4).position(|octets| octets == b"\r\n\r\n") {
            let head = lower_names(&String::from_utf8_lossy(&read[..end]));
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let empty = head.starts_with("http/1.1 204") || head.starts_with("http/1.1 304");
            let length: usize = if empty { 0 } else { length.context("no content-length")?.parse()? };
            if read.len() >= end + 4 + length {
                let status = head.split(' ').nth(1).context("no status")?.parse()?;
                return Ok((status, head, read[end + 4..end + 4 + length].to_vec()));
            }
        }
        let count = tls.read(&mut buffer)?;
        ensure!(count > 0, "the connection was closed");
        read.extend_from_slice(&buffer[..count]);
    }
}

/// Names of headers in lower case; their values stay.
fn lower_names(head: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
        None => line.to_ascii_lowercase(),
    };
    head.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A POST of a DNS message over HTTP/1.1.
pub fn ask(tls: &mut Tls, message: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
    let head = format!(
        "POST /dns-query HTTP/1.1\r\ncontent-type: application/dns-message\r\ncontent-length: {}",
        message.len()
    );
    let (status, _, body) = http1(tls, &head, message)?;
    Ok((status, body))
}

/// What a certificate of the federation's CA shall have that the CA itself would not issue.
#[derive(Debug, Default)]
pub struct Odd<'a> {
    /// URIs.
    pub uris: &'a [&'a str],
    /// Host names.
    pub hosts: &'a [&'a str],
    /// Days from now at which it begins and ends.
    pub days: (i64, i64),
    /// A serial number of somebody's choice.
    pub serial: Option<&'a [u8]>,
}

/// Signs an odd certificate with the federation's own issuing key: what an attacker with it, or a faulty CA, could do.
pub fn odd(broker: &Broker, odd: &Odd<'_>) -> anyhow::Result<Credential> {
    let passphrase = format!("file:{}", broker.path().join("secrets/ca-passphrase").display());
    let key = broker.path().join("ca/issuing.key");
    let opened = output(Command::new("openssl").args(["pkey", "-passin", &passphrase, "-in"]).arg(&key))?;
    ensure!(opened.ok, "openssl does not read our encrypted key: {}", opened.stderr);
    let issuing = std::fs::read_to_string(broker.path().join("ca/issuing.pem"))?;
    let issuer = Issuer::from_ca_cert_pem(&issuing, KeyPair::from_pem(&opened.stdout)?)?;
    certificate(odd, &issuer)
}

/// A CA that is none of the federation's, and a server's certificate by it: ca.pem, server.pem, server.key. `names` is as
/// OpenSSL takes it, `DNS:lns.example,IP:127.0.0.1`.
pub fn private_ca(into: &Path, names: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(into)?;
    let run = |args: &[&str]| -> anyhow::Result<()> {
        let ran = output(Command::new("openssl").args(args).current_dir(into))?;
        ensure!(ran.ok, "openssl {args:?}: {}", ran.stderr);
        Ok(())
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-batch", "-days", "7"];
    let ca = ["-subj", "/CN=a CA of one's own", "-addext", "basicConstraints=critical,CA:TRUE"];
    run(&[&["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem"], &key[..], &ca[..]].concat())?;
    let names = format!("subjectAltName={names}");
    let server = ["-subj", "/CN=a server", "-CA", "ca.pem", "-CAkey", "ca.key", "-addext", &names];
    let server = [&server[..], &["-addext", "basicConstraints=CA:FALSE"]].concat();
    run(&[&["req", "-x509", "-keyout", "server.key", "-out", "server.pem"], &key[..], &server[..]].concat())
}

/// The same of a CA of nobody's.
pub fn stranger(odd: &Odd<'_>) -> anyhow::Result<Credential> {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    certificate(odd, &Issuer::new(params, KeyPair::generate()?))
}

fn certificate(odd: &Odd<'_>, issuer: &Issuer<'_, KeyPair>) -> anyhow::Result<Credential> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for uri in odd.uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
    }
    for host in odd.hosts {
        params.subject_alt_names.push(SanType::DnsName((*host).try_into()?));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::now_utc() + time::Duration::days(odd.days.0);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(odd.days.1);
    params.serial_number = odd.serial.map(rcgen::SerialNumber::from_slice);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok((vec![certificate.der().clone()], key))
}
