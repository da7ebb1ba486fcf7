//! Client certificates for a browser: in a keyring of its own, or shown by a door before it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::broker::Broker;
use crate::peers::{missing, output};
use crate::tls::{client, credential};

/// A home directory with an NSS database, where Chromium on Linux looks for keys and for CAs to trust: an operator's
/// certificate is in it as one imports it, and the federation's root.
pub struct Keyring {
    home: TempDir,
}

impl Keyring {
    /// Makes one from `client.pem`, `client.key` and `ca.pem` of a directory; none where NSS's tools are not installed.
    pub fn of(dir: &Path) -> anyhow::Result<Option<Self>> {
        if !["certutil", "pk12util"].iter().all(|tool| Path::new("/usr/bin").join(tool).exists()) {
            missing("pk12util");
            return Ok(None);
        }
        let keyring = Self { home: tempfile::tempdir()? };
        let file = |name: &str| dir.join(name).display().to_string();
        let bundle = keyring.home.path().join("operator.p12").display().to_string();
        std::fs::create_dir_all(keyring.database())?;
        let database = format!("sql:{}", keyring.database().display());
        let (chain, key, root) = (file("client.pem"), file("client.key"), file("ca.pem"));
        let export = ["pkcs12", "-export", "-name", "operator", "-passout", "pass:p", "-in", &chain, "-inkey", &key];
        for (program, args) in [
            ("openssl", [&export[..], &["-out", &bundle]].concat()),
            ("certutil", vec!["-d", &database, "-N", "--empty-password"]),
            ("certutil", vec!["-d", &database, "-A", "-n", "federation", "-t", "C,,", "-i", &root]),
            ("pk12util", vec!["-d", &database, "-i", &bundle, "-W", "p"]),
        ] {
            let done = output(Command::new(program).args(&args))?;
            ensure!(done.ok, "{program} {args:?}: {}{}", done.stdout, done.stderr);
        }
        Ok(Some(keyring))
    }

    fn database(&self) -> PathBuf {
        self.home.path().join(".pki/nssdb")
    }

    /// The browser's `HOME`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }
}

/// A door to the broker's API for a browser that has no certificates of its own: TLS ends here, and goes on with a member's.
/// What the broker sees is the same.
pub struct CertificateDoor {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl CertificateDoor {
    /// Opens one for the certificate in a directory.
    pub fn open(broker: &Broker, dir: &Path) -> anyhow::Result<Self> {
        let to = broker.api()?;
        let config = client(broker, Some(credential(dir)?), &["http/1.1"])?;
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let mut server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(config));
            while let Ok((inner, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                tokio::spawn(async move {
                    let name = ServerName::try_from("broker.fed.example")?;
                    let mut browser = acceptor.accept(inner).await?;
                    let mut broker = connector.connect(name, tokio::net::TcpStream::connect(to).await?).await?;
                    tokio::io::copy_bidirectional(&mut browser, &mut broker).await?;
                    anyhow::Ok(())
                });
            }
        });
        Ok(Self { address, _runtime: runtime })
    }

    /// Where the UI is behind it.
    pub fn ui(&self) -> String {
        format!("https://{}/ui/", self.address)
    }
}
