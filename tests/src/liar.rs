//! A broker in the hands of somebody else: a DoH server (RFC 8484) over HTTP/2 with a certificate of the federation, which asks
//! the true broker and changes what that says.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ServerConfig};

use crate::broker::Broker;
use crate::roaming::certificates;
use crate::tls;

/// What becomes of a query (its octets) and the true answer to it.
pub type Lie = Arc<dyn Fn(&[u8], Vec<u8>) -> Vec<u8> + Send + Sync>;

/// The server. Its threads end with the test's process.
pub struct Liar {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    broker: SocketAddr,
    tls: Arc<ClientConfig>,
    lie: Mutex<Lie>,
    media_type: Mutex<&'static str>,
    told: AtomicU64,
}

/// The truth.
pub fn truth() -> Lie {
    Arc::new(|_, answer| answer)
}

impl Liar {
    /// Beside a broker, with that one's own certificate; `member` is a directory with a certificate to ask it with.
    pub fn beside(broker: &Broker, member: &Path) -> anyhow::Result<Self> {
        let chain = certificates(&broker.path().join("ca/server.pem"))?;
        let key = PrivateKeyDer::from_pem_file(broker.path().join("ca/server.key"))?;
        let config = tls::server(chain, key)?;
        let state = Arc::new(State {
            broker: broker.doh()?,
            tls: tls::client(broker, Some(tls::credential(member)?), &["http/1.1"])?,
            lie: Mutex::new(truth()),
            media_type: Mutex::new("application/dns-message"),
            told: AtomicU64::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let serving = Arc::clone(&state);
        std::thread::spawn(move || runtime.block_on(serve(listener, config, serving)));
        Ok(Self { address, state })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on.
    pub fn tell(&self, lie: Lie) {
        *self.state.lie.lock().unwrap_or_else(PoisonError::into_inner) = lie;
    }

    /// What it says that its answers are.
    pub fn call_it(&self, media_type: &'static str) {
        *self.state.media_type.lock().unwrap_or_else(PoisonError::into_inner) = media_type;
    }

    /// Answers that it has given.
    pub fn told(&self) -> u64 {
        self.state.told.load(Ordering::Relaxed)
    }
}

async fn serve(listener: TcpListener, config: Arc<ServerConfig>, state: Arc<State>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // A client that goes away is none of a liar's business.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let media_type = *state.media_type.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = Arc::clone(&state);
    let changed = tokio::task::spawn_blocking(move || changed(&asked, &request)).await;
    state.told.fetch_add(1, Ordering::Relaxed);
    let mut response = Response::new(Full::default());
    match changed {
        Ok(Ok(octets)) => {
            *response.body_mut() = Full::new(octets.into());
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(media_type));
        }
        failed => {
            eprintln!("the liar has no answer: {failed:?}");
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
        }
    }
    Ok(response)
}

fn changed(state: &State, request: &Request<Incoming>) -> anyhow::Result<Vec<u8>> {
    let query = request.uri().query().and_then(|text| text.strip_prefix("dns=")).context("no ?dns=")?;
    let query = crate::peers::decode(&query.replace('-', "+").replace('_', "/"))?;
    let mut connection = tls::connect(state.broker, &state.tls)?;
    let (status, truth) = tls::ask(&mut connection, &query)?;
    ensure!(status == 200, "the true broker answers {status}");
    let lie = Arc::clone(&state.lie.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(lie(&query, truth))
}
