//! The daemon's life: start in an order in which nothing is served half, reload, renew, stop without losing anything.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use arc_swap::ArcSwap;
use dnsbroker_api::message::Listeners;
use dnsbroker_ca::ServerName;
use dnsbroker_federation::DomainName;
use dnsbroker_store::act::{PublishPrivate, PublishPublic, SetPrimary};
use dnsbroker_store::engine::{Engine, Switch};
use dnsbroker_store::{Actor, Identity, Settings, Store, View};
use dnsbroker_zone::zones::PublicZone;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::session::Sessions;
use crate::announce::Announcer;
use crate::api::quota::Quotas;
use crate::app::{App, Parts};
use crate::committer::{Committer, now};
use crate::config::{Config, PkiConfig};
use crate::control::Control;
use crate::doh::{self, Doh};
use crate::limits::TRANSFERS;
use crate::listen::{Places, advice, bind_tcp};
use crate::logging::Logging;
use crate::moves::Moves;
use crate::pki::{Pki, brought, server_names};
use crate::public_zone::{self, OtherBroker, PublicNames};
use crate::publication::Lists;
use crate::seal::Sealer;
use crate::shared::Shared;
use crate::source::{self, Sources};
use crate::standby::Role;
use crate::standby::follow::{self, Follower};
use crate::standby::link::Link;
use crate::standby::take_over::{self, TakeOver, own_name};
use crate::statistics::{self, Statistics};
use crate::tls::{ClientTrust, Mutual, Service, TlsMaterial, TlsSwap};
use crate::webhook::{self, Webhooks};
use crate::{api, dns, https, moves, ops, pki, publication, zone_file};

/// How often certificates are looked at.
const RENEWAL_CHECK: Duration = Duration::from_secs(3_600);
/// A stop takes this long at most for answers under way.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// A writer that is at one group for so long hangs. The largest lists take some ten seconds.
const WRITER_STALL: Duration = Duration::from_secs(300);
/// The port that a URL need not name.
const HTTPS: u16 = 443;
/// The same of plain HTTP.
const HTTP: u16 = 80;
/// The path of DNS over HTTPS.
pub const DOH_PATH: &str = "/dns-query";

/// A running broker.
pub struct Daemon {
    app: App,
    tls: Certificates,
    tasks: TaskTracker,
    stop: CancellationToken,
    writer: JoinHandle<()>,
    /// The configuration's file, to be read again.
    file: PathBuf,
    signals: Signals,
}

/// The certificates in use, to be swapped without a restart.
struct Certificates {
    doh: Arc<TlsSwap>,
    api: Arc<TlsSwap>,
    xot: Arc<TlsSwap>,
    /// Certificate and key with which the broker is a client of primaries.
    client: Arc<ArcSwap<TlsMaterial>>,
    /// What is in use, to see whether there is something new.
    shown: Mutex<Shown>,
}

/// The chains in use, that of DoH and API and the CA's own, and what clients are held against. Whole chains: an intermediate
/// that was missing may have been added to the same certificate.
#[derive(PartialEq)]
struct Shown([Vec<CertificateDer<'static>>; 2], ClientTrust);

impl Shown {
    fn of(front: &TlsMaterial, own: &TlsMaterial) -> Self {
        Self([front, own].map(|material| material.chain.clone()), own.clients.clone())
    }
}

/// Sockets that are bound before anything is served.
struct Bound {
    dns: Vec<dns::Sockets>,
    doh: Vec<TcpListener>,
    xot: Vec<TcpListener>,
    api: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
    pki: Vec<TcpListener>,
    control: Control,
}

impl Daemon {
    /// Starts everything. When this returns, all listeners answer.
    pub async fn start(file: &Path) -> anyhow::Result<Self> {
        let config = Config::read(file)?;
        raise_files();
        // Before anything answers: who sees it answer may stop it at once, and it shall end in good order.
        let signals = Signals::new()?;
        let Opened { committer, writer, shared, engine } = open_store(&config)?;
        let copies = Arc::clone(&engine);
        let engine: Arc<dyn Engine> = engine;
        let bound = Bound::new(&config).await?;
        let listeners = bound.listeners(&config)?;
        let base = Some(listeners.pki_url.clone()).filter(|url| !url.is_empty());
        let pki = Pki::open(&config, base).context("cannot open the CA")?;
        let sealer = Arc::new(Sealer::open(&config.path(&config.ca.dir).join("tsig-seal.key"))?);
        check_secrets(&shared.view.load(), &sealer);
        let own = listeners.dns.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
        let announcer = Announcer::new(Arc::clone(&shared), Arc::clone(&sealer), own);
        let stop = CancellationToken::new();
        let app = App::new(Parts {
            shared,
            sealer,
            sources: Sources::new(),
            announcer,
            committer,
            engine,
            pki: Arc::new(pki),
            lists: Lists::default(),
            sessions: Sessions::default(),
            quotas: Quotas::default(),
            moves: Moves::default(),
            config: ArcSwap::from_pointee(config),
            listeners,
            statistics: Statistics::default(),
            reminders: crate::expiry::Reminders::default(),
            take_over: TakeOver::default(),
            webhooks: Webhooks::default(),
            streams: api::Streams::default(),
            stop: stop.clone(),
            started: now(),
            expiries: Mutex::default(),
        });
        publish(&app).await?;
        let Served { front, own } = certificates(&app).await?;
        let shown = Mutex::new(Shown::of(&front, &own));
        let doh = with_mutual(&app, Service::Doh, |mutual| TlsSwap::mutual(&front, mutual))?;
        let xot = with_mutual(&app, Service::Xot, |mutual| TlsSwap::mutual(&own, mutual))?;
        let api = with_mutual(&app, Service::Api, |mutual| TlsSwap::mutual(&front, mutual))?;
        let client = Arc::new(ArcSwap::from_pointee(own));
        let tls = Certificates { doh: Arc::new(doh), api: Arc::new(api), xot: Arc::new(xot), client, shown };
        let daemon = Self { app, tls, tasks: TaskTracker::new(), stop, writer, file: file.to_owned(), signals };
        if daemon.app.shared.standing.elsewhere().is_none() {
            publication::refresh(&daemon.app).await;
        }
        daemon.serve(bound, copies).await;
        Ok(daemon)
    }

    /// The parts, for the quickstart.
    pub fn app(&self) -> &App {
        &self.app
    }

    async fn serve(&self, bound: Bound, engine: Arc<Switch>) {
        let (app, stop) = (&self.app, &self.stop);
        let limits = app.config.load().limits.clone();
        let front = Arc::new(Doh {
            shared: Arc::clone(&app.shared),
            tls: Arc::clone(&self.tls.doh),
            limits: limits.clone(),
            federation: app.config.load().federation.clone(),
        });
        for listener in bound.doh {
            self.tasks.spawn(doh::serve(listener, Arc::clone(&front), stop.clone()));
        }
        for listener in bound.api {
            let tls = Arc::clone(&self.tls.api);
            self.tasks.spawn(https::serve(listener, api::routes(app.clone()), tls, limits.clone(), stop.clone()));
        }
        for listener in bound.pki {
            let routes = publication::routes(app.clone());
            self.tasks.spawn(https::serve_plain(listener, routes, limits.clone(), stop.clone()));
        }
        self.tasks.spawn(statistics::keep(app.clone()));
        let desk = Arc::new(dns::Desk {
            shared: Arc::clone(&app.shared),
            committer: app.committer.clone(),
            engine: Arc::clone(&app.engine),
            sealer: Arc::clone(&app.sealer),
            sources: Arc::clone(&app.sources),
            sending: Places::new(TRANSFERS),
            limits: limits.clone(),
        });
        for sockets in bound.dns {
            self.tasks.spawn(sockets.serve(Arc::clone(&desk), stop.clone()));
        }
        let federation = app.config.load().federation.clone();
        let xot = Arc::new(dns::xot::Xot { desk, tls: Arc::clone(&self.tls.xot), federation });
        for listener in bound.xot {
            self.tasks.spawn(dns::xot::serve(listener, Arc::clone(&xot), stop.clone()));
        }
        for listener in bound.metrics {
            self.tasks.spawn(ops::serve(listener, app.clone(), stop.clone()));
        }
        self.tasks.spawn(bound.control.serve(api::routes(app.clone()), stop.clone()));
        self.tasks.close();
        let client = Arc::clone(&self.tls.client);
        let means = source::Means {
            shared: Arc::clone(&app.shared),
            committer: app.committer.clone(),
            sealer: Arc::clone(&app.sealer),
            limits,
            material: client,
        };
        match app.shared.standing.role() {
            Role::Primary => self.tasks.spawn(as_primary(app.clone(), means)),
            Role::Standby { .. } => {
                self.follow(engine).await;
                let app = app.clone();
                self.tasks.spawn(async move {
                    tokio::select! {
                        () = app.stop.cancelled() => {}
                        () = app.take_over.promoted.notified() => as_primary(app.clone(), means).await,
                    }
                })
            }
            Role::Fenced(_) => self.tasks.spawn(async {}),
        };
        let Listeners { dns, doh, xot, api, metrics, pki, .. } = &app.listeners;
        let view = app.view();
        let (serial, devices) = (view.zones.serial(), view.zones.devices().len());
        tracing::info!(?dns, ?doh, ?xot, ?api, ?metrics, ?pki, %serial, devices, "dnsbroker serves");
    }

    /// Follows the primary.
    async fn follow(&self, engine: Arc<Switch>) {
        let config = self.app.config.load_full();
        let (Some(link), Some(standby)) = (Link::of(&config), &config.standby) else { return };
        let max_age = Duration::from_secs(standby.max_age_seconds);
        let stop = self.stop.child_token();
        let follower = Follower::new(self.app.clone(), link, engine, max_age);
        let task = self.tasks.spawn(follower.run(stop.clone()));
        self.app.take_over.following(stop, task).await;
    }

    /// Runs until SIGTERM or SIGINT; SIGHUP reloads.
    pub async fn run(mut self, logging: &Logging) -> anyhow::Result<()> {
        tell_systemd(&[sd_notify::NotifyState::Ready]);
        if let Some(period) = sd_notify::watchdog_enabled() {
            tokio::spawn(watch(self.app.committer.clone(), period, self.stop.clone()));
        }
        let mut renewal = tokio::time::interval(RENEWAL_CHECK);
        let mut authorities = self.app.pki.changes();
        loop {
            let signals = &mut self.signals;
            tokio::select! {
                _ = signals.hangup.recv() => {
                    tell_systemd(&[sd_notify::NotifyState::Reloading, sd_notify::NotifyState::monotonic_usec_now()?]);
                    match self.reload(logging).await {
                        Ok(()) => tracing::info!("the configuration and the certificate were read again"),
                        Err(error) => tracing::error!(error = format!("{error:#}"), "reload failed; all stays as it was"),
                    }
                    tell_systemd(&[sd_notify::NotifyState::Ready]);
                }
                _ = renewal.tick() => self.look_at_certificates().await,
                Ok(()) = authorities.changed() => self.look_at_certificates().await,
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
        }
        tracing::info!("stopping");
        tell_systemd(&[sd_notify::NotifyState::Stopping]);
        self.stop().await;
        tracing::info!("stopped");
        Ok(())
    }

    /// Stops: no new connections, answers under way are finished, the journal is folded.
    pub async fn stop(self) {
        self.stop.cancel();
        self.app.sources.stop();
        self.app.announcer.stop();
        if tokio::time::timeout(STOP_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time and are cut");
        }
        let Self { app, writer, .. } = self;
        drop(app);
        // The writer ends when the last handle is gone; a connection that was cut may still hold one.
        let ended = tokio::task::spawn_blocking(move || writer.join());
        match tokio::time::timeout(STOP_WITHIN, ended).await {
            Ok(Ok(Ok(()))) => {}
            _ => tracing::warn!("the store was not folded; the next start replays the journal"),
        }
    }

    /// Takes a changed configuration: what a listener or the store is bound to needs a restart, and that is said.
    async fn reload(&self, logging: &Logging) -> anyhow::Result<()> {
        let new = Config::read(&self.file)?;
        let old = self.app.config.load_full();
        if new.federation != old.federation || new.zones.labels != old.zones.labels {
            bail!(
                "the federation's name and the zones' labels cannot change: certificates and replicas depend on them"
            );
        }
        for part in needs_restart(&old, &new) {
            tracing::warn!("{part} changed in the configuration; that takes effect at the next start");
        }
        logging.set(&new.log)?;
        let _guard = Replaced::put(&self.app, new, &old);
        publish(&self.app).await?;
        self.renew().await?;
        _guard.keep();
        Ok(())
    }

    async fn look_at_certificates(&self) {
        if let Err(error) = self.renew().await {
            tracing::error!(error = format!("{error:#}"), "the broker's certificate was not renewed");
        }
        crate::expiry::warn(&self.app);
    }

    /// Takes other certificates if there are any: renewed by the CA, or brought by the administrator.
    async fn renew(&self) -> anyhow::Result<()> {
        let Served { front, own } = certificates(&self.app).await?;
        let new = Shown::of(&front, &own);
        if *self.tls.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) == new {
            return Ok(());
        }
        with_mutual(&self.app, Service::Doh, |mutual| self.tls.doh.replace_mutual(&front, mutual))?;
        with_mutual(&self.app, Service::Xot, |mutual| self.tls.xot.replace_mutual(&own, mutual))?;
        with_mutual(&self.app, Service::Api, |mutual| self.tls.api.replace_mutual(&front, mutual))?;
        self.tls.client.store(Arc::new(own));
        let mut shown = self.tls.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match shown.0 == new.0 {
            true => tracing::info!("clients' certificates are held against other CAs, or another list of revoked ones"),
            false => tracing::info!("the broker's certificate is a new one"),
        }
        *shown = new;
        Ok(())
    }
}

/// What a listener with certificates verifies and resumes by.
fn with_mutual<T>(app: &App, service: Service, use_it: impl FnOnce(&Mutual<'_>) -> T) -> T {
    let config = app.config.load();
    let sessions = config.limits.sessions;
    use_it(&Mutual { shared: &app.shared, federation: &config.federation, sessions, service })
}

/// A configuration put in place for the time of a reload, taken back unless it is kept.
struct Replaced<'a> {
    app: &'a App,
    old: Option<Arc<Config>>,
}

impl<'a> Replaced<'a> {
    fn put(app: &'a App, new: Config, old: &Arc<Config>) -> Self {
        app.config.store(Arc::new(new));
        Self { app, old: Some(Arc::clone(old)) }
    }

    fn keep(mut self) {
        self.old = None;
    }
}

impl Drop for Replaced<'_> {
    fn drop(&mut self) {
        if let Some(old) = self.old.take() {
            self.app.config.store(old);
        }
    }
}

/// Parts of the configuration that differ and that only a start reads.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut parts = Vec::new();
    let mut compare = |part, differs: bool| {
        if differs {
            parts.push(part);
        }
    };
    compare("dns", old.dns != new.dns);
    compare("doh.listen", old.doh.as_ref().map(|doh| &doh.listen) != new.doh.as_ref().map(|doh| &doh.listen));
    compare("xot", old.xot != new.xot);
    compare("api", old.api != new.api);
    compare("metrics", old.metrics != new.metrics);
    compare("pki", old.pki != new.pki);
    compare("store", old.store != new.store);
    compare("ca", old.ca != new.ca);
    compare("limits", old.limits != new.limits);
    compare("log.format", old.log.format != new.log.format);
    parts
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Tells systemd's watchdog that all is well, for as long as this task gets its turn and the writer answers.
async fn watch(committer: Committer, period: Duration, stop: CancellationToken) {
    let mut turn = tokio::time::interval(period / 3);
    let mut asked = Instant::now();
    let mut answer = Box::pin(committer.ping());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => {}
            answered = &mut answer => {
                if answered.is_err() {
                    tracing::error!("the watchdog is told no more: the writer is gone");
                    return;
                }
                turn.tick().await;
                asked = Instant::now();
                answer = Box::pin(committer.ping());
            }
        }
        if asked.elapsed() < WRITER_STALL {
            // Apart: this waits where nobody reads the socket.
            let told = tokio::task::spawn_blocking(|| tell_systemd(&[sd_notify::NotifyState::Watchdog]));
            if told.await.is_err() {
                tracing::debug!("systemd was not told that all is well");
            }
        }
    }
}

/// Without systemd this does nothing.
fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// As many files as the system allows, since each connection is one.
fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

struct Opened {
    committer: Committer,
    writer: JoinHandle<()>,
    shared: Arc<Shared>,
    engine: Arc<Switch>,
}

/// Where `restore` fills a store before that takes the place of the old one.
pub const RESTORING: &str = "data.restoring";

fn open_store(config: &Config) -> anyhow::Result<Opened> {
    let dir = config.path(&config.store.dir);
    let kind = config.engine()?;
    if let Some(warning) = kind.warning() {
        tracing::warn!("{warning}");
    }
    follow::finish_swap(config)?;
    if !dir.is_dir() && config.dir.join(RESTORING).exists() {
        bail!("there is no store in {}: a restore was cut off, say it again", dir.display());
    }
    if !dir.is_dir() {
        bail!("there is no store in {}: `dnsbroker init` makes one", dir.display());
    }
    let engine = kind.open(&dir).with_context(|| format!("cannot open the store in {}", dir.display()))?;
    let identity = Identity { federation: config.federation.clone(), labels: config.zones.labels.clone() };
    let store = Store::open(Arc::clone(&engine), identity, settings(config, PublicZone::default())?)
        .with_context(|| format!("cannot open the store in {}", dir.display()))?;
    let view = store.view();
    let shared = Shared::new(Arc::clone(&view), take_over::role(config, view.primary.as_deref()));
    let (committer, writer) = Committer::start(store, Arc::clone(&shared))?;
    Ok(Opened { committer, writer, shared, engine: Arc::new(Switch::new(engine)) })
}

/// What a store takes from the configuration.
pub fn settings(config: &Config, public: PublicZone) -> anyhow::Result<Settings> {
    Ok(Settings { broker: config.broker()?, timing: config.zones.timing, public })
}

impl Bound {
    async fn new(config: &Config) -> anyhow::Result<Self> {
        let mut dns = Vec::new();
        for address in config.dns.iter().flat_map(|dns| &dns.listen) {
            dns.push(dns::Sockets::bind(*address).map_err(|error| cannot_listen(error, "plain DNS", *address, "dns"))?);
        }
        let doh = config.doh.as_ref().map(|doh| doh.listen.as_slice()).unwrap_or_default();
        let api = config.api.as_ref().map(|api| api.listen.as_slice()).unwrap_or_default();
        let metrics = config.metrics.as_ref().map(|metrics| metrics.listen.as_slice()).unwrap_or_default();
        let pki = config.pki.as_ref().map(|pki| pki.listen.as_slice()).unwrap_or_default();
        Ok(Self {
            dns,
            doh: bind("DoH", doh, "doh")?,
            xot: bind("XoT", config.xot.as_ref().map(|xot| xot.listen.as_slice()).unwrap_or_default(), "xot")?,
            api: bind("the API", api, "api")?,
            metrics: bind("metrics", metrics, "metrics")?,
            pki: bind("the CA's publications", pki, "pki")?,
            control: Control::bind(&config.control_socket()).await?,
        })
    }

    fn listeners(&self, config: &Config) -> anyhow::Result<Listeners> {
        let addresses = |listeners: &[TcpListener]| -> std::io::Result<Vec<SocketAddr>> {
            listeners.iter().map(TcpListener::local_addr).collect()
        };
        let (doh, api, metrics) = (addresses(&self.doh)?, addresses(&self.api)?, addresses(&self.metrics)?);
        let xot = addresses(&self.xot)?;
        let dns = self.dns.iter().map(dns::Sockets::address).collect::<std::io::Result<Vec<_>>>()?;
        let broker = own_name(config);
        let url = |bound: &[SocketAddr], port: Option<u16>, path: &str| {
            let port = port.or_else(|| bound.first().map(SocketAddr::port));
            port.map(|port| https_url(&broker, port) + path).unwrap_or_default()
        };
        let doh_url = url(&doh, config.doh.as_ref().and_then(|doh| doh.public_port), DOH_PATH);
        let api_url = url(&api, config.api.as_ref().and_then(|api| api.public_port), "");
        let pki = addresses(&self.pki)?;
        let pki_url = match &config.pki {
            Some(PkiConfig { url: Some(url), .. }) => url.trim_end_matches('/').to_owned(),
            _ => pki.first().map(|bound| http_url(&broker, bound.port())).unwrap_or_default(),
        };
        Ok(Listeners { dns, doh, xot, api, metrics, pki, doh_url, api_url, pki_url })
    }
}

fn bind(what: &str, addresses: &[SocketAddr], section: &str) -> anyhow::Result<Vec<TcpListener>> {
    let bound = addresses
        .iter()
        .map(|address| bind_tcp(*address).map_err(|error| cannot_listen(error, what, *address, section)));
    bound.collect()
}

/// Says what to do as well.
fn cannot_listen(error: std::io::Error, what: &str, address: SocketAddr, section: &str) -> anyhow::Error {
    let advice = advice(&error, address, section);
    anyhow::Error::new(error).context(format!("cannot listen for {what} on {address} ({advice})"))
}

/// `https://<name>[:port]`, the name without its final dot, as certificates and browsers have it.
pub fn https_url(name: &DomainName, port: u16) -> String {
    let name = name.dotless();
    if port == HTTPS { format!("https://{name}") } else { format!("https://{name}:{port}") }
}

/// `http://<name>[:port]`.
pub fn http_url(name: &DomainName, port: u16) -> String {
    let name = name.dotless();
    if port == HTTP { format!("http://{name}") } else { format!("http://{name}:{port}") }
}

/// What only a primary does: it moves devices when their time has come, fetches from sources, tells replicas, signs lists of revoked certificates, publishes the
/// brokers' names.
async fn as_primary(app: App, means: source::Means) {
    app.sources.start(means);
    app.announcer.reconcile();
    let lists = publication::keep(app.clone(), app.stop.clone());
    let config = app.config.load_full();
    let old = async {
        if let Some(link) = Link::of(&config) {
            // It was a standby: names and certificate are others from now on.
            if let Err(error) = publish(&app).await {
                tracing::error!(error = format!("{error:#}"), "the zones are not published under this broker's name");
            }
            app.pki.wake();
            take_over::tell_old(app.clone(), link).await;
        }
    };
    let brokers = async {
        loop {
            tokio::select! {
                () = app.stop.cancelled() => return,
                () = app.take_over.brokers.notified() => {}
            }
            if let Err(error) = publish(&app).await {
                tracing::error!(error = format!("{error:#}"), "the brokers' names are not published");
            }
        }
    };
    let moves = moves::run(app.clone(), app.stop.clone());
    let webhooks = webhook::keep(app.clone());
    tokio::join!(lists, moves, old, brokers, webhooks);
}

/// Puts the public zone in place, under a new serial if it differs from the last one.
async fn publish(app: &App) -> anyhow::Result<()> {
    let config = app.config.load_full();
    if app.shared.standing.elsewhere().is_some() {
        return follow::configure(app).await;
    }
    let reached = take_over::reached(app);
    let port = |url: &str| url.trim_end_matches(DOH_PATH).rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let own = OtherBroker {
        name: reached.name.clone(),
        addresses: reached.addresses.clone(),
        port: port(&reached.doh_url).unwrap_or(HTTPS),
    };
    app.committer.commit(Actor::Broker, SetPrimary(reached)).await.context("cannot say where this broker is")?;
    pki::published::settle(app).await.context("cannot say where the CA publishes")?;
    if let Err(error) = pki::agree(app).await {
        // It is no reason not to serve: names outside of its constraint are refused one by one.
        let error = dnsbroker_api::problem::chain(&error);
        tracing::error!(error, "the issuing CA for network servers is at odds with names that are approved");
    }
    let broker = config.broker()?;
    let view = app.view();
    let standbys = view.replicas.values().filter_map(|replica| replica.standby.as_ref());
    let standbys =
        standbys.map(|at| OtherBroker { name: at.name.clone(), addresses: at.addresses.clone(), port: at.port });
    // A standby that was promoted answers under the federation's broker's name too.
    let mut others: Vec<OtherBroker> =
        std::iter::once(own).chain(standbys).filter(|other| other.name != broker).collect();
    others.dedup_by(|one, other| one.name == other.name);
    let addresses = public_zone::addresses(&config, &app.listeners.doh);
    let doh = config.doh.as_ref();
    let names = PublicNames {
        federation: &config.federation,
        broker: &broker,
        addresses: &addresses,
        doh_port: doh.and_then(|doh| doh.public_port).or(app.listeners.doh.first().map(SocketAddr::port)),
        caa: &config.caa,
        others: &others,
        ttl: config.zones.timing.ttl,
    };
    let mut records = names.records().context("the broker's name is too long for its SVCB record")?;
    if let Some(file) = &config.zones.public_file {
        let path = config.path(file);
        let text = zone_file::read(&path).with_context(|| format!("cannot read the public zone {}", path.display()))?;
        let brought = zone_file::public(&text, &config.namespace()?);
        let brought = brought.with_context(|| format!("the public zone {} cannot be served", path.display()))?;
        public_zone::merge(&mut records, brought);
    }
    let publish = PublishPublic { records: public_zone::fingerprint(&records) };
    let serial = app.committer.commit(Actor::Broker, publish).await.context("cannot publish the public zone")?;
    let settings = settings(&config, PublicZone::new(serial, records))?;
    app.committer.configure(settings).await.map_err(|reason| anyhow!("cannot publish the zones: {reason}"))?;
    // The serial comes after the times, so that no secondary gets the new serial with the old times.
    let private = PublishPrivate { timing: config.zones.timing, broker };
    app.committer.commit(Actor::Broker, private).await.context("cannot publish the private zones")?;
    Ok(())
}

/// Certificates that are shown to others.
struct Served {
    /// On DoH and the API: the one the administrator brought, or the CA's own.
    front: TlsMaterial,
    /// The CA's own: on XoT, and to primaries.
    own: TlsMaterial,
}

async fn certificates(app: &App) -> anyhow::Result<Served> {
    let config = app.config.load_full();
    let mut names = server_names(&own_name(&config), &public_zone::addresses(&config, &app.listeners.doh));
    let broker = ServerName::Dns(config.broker()?);
    if !names.contains(&broker) {
        names.push(broker);
    }
    let server = match app.shared.standing.elsewhere() {
        None => app.pki.server(&names, &app.committer, now()).await.context("cannot make the broker's certificate")?,
        Some(_) => app.pki.kept_server().context("the certificate that the primary has issued cannot be used")?,
    };
    let (own, mut not_after) = server;
    let paths = config.doh.as_ref().and_then(|doh| doh.certificate.as_ref().zip(doh.key.as_ref()));
    let front = match paths {
        Some((certificate, key)) => {
            let brought = brought(&config.path(certificate), &config.path(key), app.pki.client_trust());
            let (front, end) = brought.context("cannot use the certificate that doh.certificate names")?;
            not_after = end;
            front
        }
        None => own.duplicate(),
    };
    let mut expiries = app.pki.expiries();
    expiries.push(("broker".to_owned(), not_after));
    *app.expiries.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = expiries;
    Ok(Served { front, own })
}

/// Secrets that do not open are told at the start, and not only when somebody comes with the key.
fn check_secrets(view: &View, sealer: &Sealer) {
    for key in view.tsig_keys.values() {
        if let Err(error) = sealer.unseal(key) {
            tracing::error!("{error}");
        }
    }
}
