//! Enrolments: operators with a one-time token each, who connect, send a request and get their certificate, many at once.
//!
//! Tokens and keys are made beforehand. Each operator makes a connection of its own, as operators do, so that a TLS handshake
//! is in each of them; an answer counts when it has come, which is after the certificate is synced to disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use dnsbroker_api::client::Client;
use dnsbroker_api::message::{Enroll, Issued, NewMember, NewToken};
use dnsbroker_federation::MemberId;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::federation::Federation;
use crate::latency::Latencies;
use crate::output::{progress, report};
use crate::process::CpuTime;

/// Seconds that the tokens hold.
const TOKEN_LIFE: i64 = 3_600;
/// The name in the broker's certificate.
const BROKER: &str = "broker.fed.example";

/// The command `enrolments`.
#[derive(Args)]
pub struct Enrolments {
    /// Operators that enrol
    #[arg(long, default_value_t = 4_000)]
    operators: usize,
    /// Of them at once; the broker takes 64 connections of one address, those that are just ending included
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=48))]
    at_once: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What it came to.
#[derive(Debug, Serialize)]
struct Report {
    enrolments: u64,
    seconds: f64,
    enrolments_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Processor time of the daemon for each, in milliseconds.
    cpu_ms_each: f64,
    /// Octets of an operator's certificate, DER.
    certificate_octets: usize,
    /// Octets of what it sends in each handshake: certificate and issuing CA.
    chain_octets: usize,
    /// Octets of the broker's certificate and its issuing CA.
    server_chain_octets: usize,
}

impl Enrolments {
    /// Makes a federation, enrols and prints the report.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut federation = Federation::make()?;
        federation.serve().await?;
        progress(&format!("making {} tokens and keys", self.operators));
        let orders = Arc::new(orders(&federation, self.operators).await?);
        let operator = Operator::new(&federation)?;
        let (next, latencies) = (Arc::new(AtomicUsize::new(0)), Arc::new(Latencies::default()));
        progress(&format!("{} at once", self.at_once));
        let pid = federation.pid()?;
        let (before, began) = (CpuTime::of(pid)?, Instant::now());
        let mut operators = JoinSet::new();
        for _ in 0..self.at_once {
            let (operator, orders) = (operator.clone(), Arc::clone(&orders));
            let (next, latencies) = (Arc::clone(&next), Arc::clone(&latencies));
            operators.spawn(async move {
                let mut last = None;
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    last = Some(operator.enrol(order).await?);
                    latencies.record(began.elapsed());
                }
                anyhow::Ok(last)
            });
        }
        let mut last = None;
        while let Some(ended) = operators.join_next().await {
            last = ended??.or(last);
        }
        let (took, used) = (began.elapsed().as_secs_f64(), CpuTime::of(pid)?.since(&before));
        let issued = last.context("nobody enrolled")?;
        let octets = |pem: &str| -> anyhow::Result<Vec<usize>> {
            let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
            certificates.map(|certificate| Ok(certificate?.len())).collect()
        };
        let count = latencies.count();
        ensure!(count == self.operators as u64, "{count} of {} enrolled", self.operators);
        let milliseconds = |share| latencies.percentile(share).as_secs_f64() * 1e3;
        let server = std::fs::read_to_string(federation.file("ca/server.pem"))?;
        let figures = Report {
            enrolments: count,
            seconds: took,
            enrolments_per_second: count as f64 / took,
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
            cpu_ms_each: used.as_secs_f64() * 1e3 / count as f64,
            certificate_octets: octets(&issued.pem)?.iter().sum(),
            chain_octets: octets(&issued.chain)?.iter().sum(),
            server_chain_octets: octets(&server)?.iter().sum(),
        };
        report(&figures, self.json)?;
        federation.stop()
    }
}

/// A member, tokens of it, and a request with a key of its own for each.
async fn orders(federation: &Federation, count: usize) -> anyhow::Result<Vec<Bytes>> {
    let client = Client::control(federation.file("control.sock"));
    let member: MemberId = "a".parse()?;
    client.member_add(&NewMember { id: member.clone(), name: None }).await?;
    let mut orders = Vec::with_capacity(count);
    let mut making = JoinSet::new();
    for made in 0..count {
        if made >= 16 {
            orders.push(making.join_next().await.context("an order")???);
        }
        let (client, member) = (client.clone(), member.clone());
        making.spawn(async move {
            let order = NewToken { member, ttl: TOKEN_LIFE, key_pin: None };
            let token = client.token_create(&order).await?;
            let key = KeyPair::generate()?;
            let mut parameters = CertificateParams::default();
            parameters.distinguished_name = DistinguishedName::new();
            let csr = parameters.serialize_request(&key)?.pem()?;
            let order = Enroll { token: token.token.context("no secret")?, csr };
            anyhow::Ok(Bytes::from(serde_json::to_vec(&order)?))
        });
    }
    while let Some(order) = making.join_next().await {
        orders.push(order??);
    }
    Ok(orders)
}

#[derive(Clone)]
struct Operator {
    address: SocketAddr,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Operator {
    fn new(federation: &Federation) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(federation.file("ca/root.pem"))?)?;
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.resumption = Resumption::disabled();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(tls));
        Ok(Self { address: federation.api()?, tls, name: ServerName::try_from(BROKER)? })
    }

    async fn enrol(&self, order: &Bytes) -> anyhow::Result<Issued> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), tcp).await.context("the TLS handshake failed")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::post("/api/v1/enroll")
            .header(http::header::HOST, BROKER)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(order.clone()))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::CREATED, "status {status}: {}", String::from_utf8_lossy(&body));
        drop(sender);
        // How a connection ends after its last answer is of no interest.
        let _ = driver.await;
        Ok(serde_json::from_slice(&body)?)
    }
}
