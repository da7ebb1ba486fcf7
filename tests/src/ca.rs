//! The federation's CA from outside: operators with keys of OpenSSL, the API over curl or by hand, what the CA publishes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::{Broker, Options};
use crate::peers::{Finished, output};
use crate::servers::eventually;
use crate::tls::{Credential, Tls, client, connect, credential, http1};

/// Where certificates say that the CA publishes; it stays while the ports of the tests change.
pub const PKI_URL: &str = "http://pki.fed.example";
/// The broker's name in its certificate.
const BROKER: &str = "broker.fed.example";

/// A federation whose certificates name [`PKI_URL`].
pub fn federation() -> anyhow::Result<Broker> {
    federation_with(Options::default())
}

/// The same, with options.
pub fn federation_with(mut options: Options) -> anyhow::Result<Broker> {
    options.sections.push(("pki", format!("url = {PKI_URL:?}")));
    let broker = Broker::with(options)?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    Ok(broker)
}

/// Gives the issuing CA and the root's list what they have where `init` knew the URL: where the root's list is. With ports
/// that the system gives it does not.
pub fn with_root_pointers(broker: &Broker) -> anyhow::Result<()> {
    let file = |name: &str| broker.path().join(name).to_string_lossy().into_owned();
    let (key, last, list) = (file("root-key"), file("ca/root.crl"), file("next.crl"));
    broker.json(&["ca", "rotate", "--renew", "--root-key", &key])?;
    broker.json(&["ca", "sign-crl", "--root-key", &key, "--last", &last, "--out", &list])?;
    broker.json(&["ca", "install", "--crl", &list])?;
    Ok(())
}

/// Profiles whose certificates may be renewed at once, since most of their life is already over when they are issued.
pub struct DueAtOnce(TempDir);

impl DueAtOnce {
    /// Writes them.
    pub fn new() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        for (name, text) in [
            ("operator", include_str!("../../certs/profiles/operator.toml")),
            ("lns", include_str!("../../certs/profiles/lns.toml")),
            ("gateway", include_str!("../../certs/profiles/gateway.toml")),
            ("replica", include_str!("../../certs/profiles/replica.toml")),
        ] {
            let kept = text.lines().filter(|line| !line.starts_with("validity") && !line.starts_with("backdate"));
            let text: String = kept.map(|line| format!("{line}\n")).collect();
            std::fs::write(
                dir.path().join(format!("{name}.toml")),
                format!("{text}validity = \"10m\"\nbackdate = \"40m\"\n"),
            )?;
        }
        Ok(Self(dir))
    }

    /// How a broker takes them.
    pub fn options(&self) -> Options {
        let profiles = format!("profiles = {:?}", self.0.path().display().to_string());
        Options { sections: vec![("ca", profiles)], ..Options::default() }
    }
}

/// Runs a program in a directory; it must be content.
pub fn succeed(dir: &Path, program: &str, args: &[&str]) -> anyhow::Result<Finished> {
    let finished = output(Command::new(program).current_dir(dir).args(args))?;
    ensure!(finished.ok, "{program} {args:?} failed: {}{}", finished.stdout, finished.stderr);
    Ok(finished)
}

/// A directory with a P-256 key and a request for it, made by OpenSSL: client.key, client.csr, client.der.
pub fn key_and_request(broker: &Broker, name: &str) -> anyhow::Result<PathBuf> {
    let dir = broker.path().join(name);
    std::fs::create_dir_all(&dir)?;
    succeed(&dir, "openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "client.key"])?;
    request(&dir, &[])?;
    Ok(dir)
}

/// Another request for the key in a directory.
pub fn request(dir: &Path, args: &[&str]) -> anyhow::Result<()> {
    succeed(
        dir,
        "openssl",
        &[&["req", "-new", "-batch", "-subj", "/", "-key", "client.key", "-out", "client.csr"], args].concat(),
    )?;
    succeed(dir, "openssl", &["req", "-in", "client.csr", "-outform", "der", "-out", "client.der"])?;
    Ok(())
}

/// The request in a directory, PEM.
pub fn csr(dir: &Path) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(dir.join("client.csr"))?)
}

/// An operator that enrolled by REST: a directory with client.key, client.pem and ca.pem; and its serial number.
pub fn enrolled(broker: &Broker, member: &str, name: &str) -> anyhow::Result<(PathBuf, String)> {
    let dir = key_and_request(broker, name)?;
    let (status, issued) = Api::nobody(broker)?
        .post("/api/v1/enroll", &json!({ "token": broker.token(member, &[])?, "csr": csr(&dir)? }))?;
    ensure!(status == 201, "not enrolled: {status} {issued}");
    keep(&dir, &issued)?;
    Ok((dir, text(&issued, "serial")?))
}

/// Writes what was issued beside its key.
pub fn keep(dir: &Path, issued: &Value) -> anyhow::Result<()> {
    std::fs::write(dir.join("client.pem"), text(issued, "chain")?)?;
    std::fs::write(dir.join("ca.pem"), text(issued, "ca")?)?;
    Ok(())
}

/// A text of a JSON object.
pub fn text(object: &Value, name: &str) -> anyhow::Result<String> {
    Ok(object[name].as_str().with_context(|| format!("no {name} in {object}"))?.to_owned())
}

/// A connection to the API.
pub struct Api(Tls);

impl Api {
    /// Without a certificate.
    pub fn nobody(broker: &Broker) -> anyhow::Result<Self> {
        Self::with(broker, None)
    }

    /// With the certificate in a directory.
    pub fn of(broker: &Broker, dir: &Path) -> anyhow::Result<Self> {
        Self::with(broker, Some(credential(dir)?))
    }

    /// With a certificate or none.
    pub fn with(broker: &Broker, credential: Option<Credential>) -> anyhow::Result<Self> {
        Ok(Self(connect(broker.api()?, &client(broker, credential, &["http/1.1"])?)?))
    }

    /// The connection.
    pub fn tls(&mut self) -> &mut Tls {
        &mut self.0
    }

    /// One request with a body: status and body.
    pub fn send(&mut self, method: &str, path: &str, media_type: &str, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let head = format!("{method} {path} HTTP/1.1\r\ncontent-type: {media_type}\r\ncontent-length: {}", body.len());
        let (status, _, body) = http1(&mut self.0, &head, body)?;
        Ok((status, body))
    }

    /// The same in JSON.
    pub fn json(&mut self, method: &str, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let body = if body.is_null() { vec![] } else { body.to_string().into_bytes() };
        let (status, body) = self.send(method, path, "application/json", &body)?;
        let value =
            serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
        Ok((status, value))
    }

    /// POST in JSON.
    pub fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.json("POST", path, body)
    }

    /// GET of JSON.
    pub fn get(&mut self, path: &str) -> anyhow::Result<(u16, Value)> {
        self.json("GET", path, &Value::Null)
    }
}

/// What curl got.
#[derive(Debug)]
pub struct Got {
    /// Status.
    pub status: u16,
    /// HTTP version, as curl tells it.
    pub version: String,
    /// Headers, in lower case.
    pub head: String,
    /// Body.
    pub body: Vec<u8>,
}

/// One request of curl to the API.
pub fn curl(broker: &Broker, dir: &Path, args: &[&str], path: &str) -> anyhow::Result<Got> {
    let port = broker.api()?.port();
    let (ca, head) = (broker.path().join("ca/root.pem"), dir.join("head"));
    let mut command = Command::new("curl");
    command.current_dir(dir).args(["-sS", "--max-time", "20", "--cacert"]).arg(&ca);
    command.arg("--resolve").arg(format!("{BROKER}:{port}:127.0.0.1")).arg("-D").arg(&head);
    command.args(["-w", "%{stderr}%{http_code} %{http_version}"]).args(args);
    let finished = output(command.arg(format!("https://{BROKER}:{port}{path}")))?;
    ensure!(finished.ok, "curl {args:?} {path}: {}", finished.stderr);
    let told = finished.stderr.trim();
    let (status, version) = told.rsplit_once(' ').with_context(|| format!("curl told {told:?}"))?;
    Ok(Got {
        status: status.trim().parse()?,
        version: version.to_owned(),
        head: std::fs::read_to_string(&head)?.to_ascii_lowercase(),
        body: finished.octets,
    })
}

/// What the CA publishes at a path, over plain HTTP: status and octets.
pub fn published(broker: &Broker, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(broker.pki()?)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: pki.fed.example\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|octets| octets == b"\r\n\r\n").context("no head")?;
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, answer.split_off(end + 4)))
}

/// The id of the CA whose certificate is in this file, as it stands in URLs.
pub fn ca_id(certificate: &Path) -> anyhow::Result<String> {
    let shown = output(
        Command::new("openssl").args(["x509", "-noout", "-ext", "subjectKeyIdentifier", "-in"]).arg(certificate),
    )?;
    let line = shown.stdout.lines().nth(1).context("no key identifier")?;
    Ok(line.trim().split(':').skip(4).collect::<String>().to_ascii_lowercase())
}

/// Writes the published list of a CA into a directory as `<id>.crl` and `<id>.crl.pem`, and tells its number and entries.
pub fn fetch_list(broker: &Broker, dir: &Path, id: &str) -> anyhow::Result<(u64, String)> {
    let mut list = Vec::new();
    // That of a CA that is new comes within a second.
    eventually(&format!("the list of {id} is published"), || {
        let (status, octets) = published(broker, &format!("/crl/{id}.crl"))?;
        list = octets;
        Ok(status == 200)
    })?;
    let (file, pem) = (format!("{id}.crl"), format!("{id}.crl.pem"));
    std::fs::write(dir.join(&file), list)?;
    succeed(dir, "openssl", &["crl", "-inform", "der", "-in", &file, "-out", &pem])?;
    let shown = succeed(dir, "openssl", &["crl", "-in", &pem, "-noout", "-text"])?.stdout;
    let number = succeed(dir, "openssl", &["crl", "-in", &pem, "-noout", "-crlnumber"])?.stdout;
    let number = number.trim().trim_start_matches("crlNumber=0x");
    Ok((u64::from_str_radix(number, 16).with_context(|| format!("{number:?}"))?, shown.to_ascii_lowercase()))
}

/// Where pkilint's programs are, if they are anywhere.
pub fn pkilint() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.ancestors().nth(3)?.join("pytools/bin");
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).chain([beside]).find(|dir| dir.join("lint_pkix_cert").exists());
    if found.is_none() {
        crate::peers::missing("pkilint");
    }
    found
}

/// libfaketime for the daemon, that its clock may be another than ours, if it is installed.
pub fn clock(offset: &str) -> anyhow::Result<Option<Vec<(std::ffi::OsString, std::ffi::OsString)>>> {
    for entry in std::fs::read_dir("/usr/lib")? {
        let library = entry?.path().join("faketime/libfaketime.so.1");
        if library.exists() {
            return Ok(Some(vec![
                ("LD_PRELOAD".into(), library.into()),
                ("FAKETIME".into(), offset.into()),
                // Timers go on as they are.
                ("FAKETIME_DONT_FAKE_MONOTONIC".into(), "1".into()),
                ("DONT_FAKE_MONOTONIC".into(), "1".into()),
            ]));
        }
    }
    crate::peers::missing("libfaketime");
    Ok(None)
}
