//! What runs: listeners, connections to brokers, renewal, directories, synchronisation; and how it stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::now;
use crate::config::Config;
use crate::dns::{Desk, Sockets};
use crate::http_server::{Door, Judge, Tls, serve};
use crate::identity::{Facts, Home, Identity};
use crate::lns::{self, Ends};
use crate::lookup::Lookups;
use crate::renew::{self, Renewal};
use crate::resolver::Resolver;
use crate::status::Listeners;
use crate::sync::task::Sync;
use crate::ts002::join::JoinServers;
use crate::ts002::{self, Endpoint};
use crate::upstream::federation::Federation;
use crate::upstream::plain::Plain;
use crate::{control, directory, ops, server_certificate, tls};

/// What all listeners share.
pub struct Agent {
    /// Where devices are looked up.
    pub lookups: Arc<Lookups>,
    /// The resolver's front.
    pub desk: Arc<Desk>,
    /// The TS002 endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Device synchronisation.
    pub syncs: Vec<Arc<Sync>>,
    /// Renewals, by federation.
    pub renewals: Vec<Arc<renew::Counts>>,
    /// The network server's certificates, by federation; none where they are not got here.
    pub servers: Vec<Arc<server_certificate::State>>,
    /// The network server's configuration.
    pub ends: Ends,
    /// Bound addresses.
    pub listeners: Listeners,
    /// When it started.
    pub started: i64,
}

impl Agent {
    /// Of a configuration, without listeners: what commands work with, too.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let upstreams = Arc::new(Plain::new(config.resolver.upstreams.clone()));
        let mut federations = Vec::new();
        for federation in &config.federation {
            let home = Home::new(config.path(&federation.dir));
            let opened = Federation::open(home, federation.broker.clone(), Arc::clone(&upstreams))?;
            if federations.iter().any(|other: &Arc<Federation>| other.name() == opened.name()) {
                bail!("federation {} is configured twice", opened.name());
            }
            federations.push(opened);
        }
        let mut syncs = Vec::new();
        for (federation, settings) in federations.iter().zip(&config.federation) {
            let sync = |sync: &crate::sync::config::SyncConfig| {
                Sync::new(Arc::clone(federation), sync.clone(), config.dir.clone())
            };
            syncs.extend(settings.sync.iter().map(sync));
        }
        let renewals = federations.iter().map(|_| Arc::default()).collect();
        let got = config.lns.gets_certificate();
        let servers = federations.iter().filter(|_| got).map(|_| Arc::default()).collect();
        let resolver = Resolver::new(federations, upstreams, config.cache.clone());
        let lookups = Lookups::new(resolver, config.lookup.clone());
        let join_servers = JoinServers::open(config).map_err(anyhow::Error::msg)?;
        Ok(Self {
            desk: Arc::new(Desk { lookups: Arc::clone(&lookups), counts: crate::dns::Counts::default() }),
            endpoint: Arc::new(Endpoint {
                lookups: Arc::clone(&lookups),
                join_servers,
                counts: ts002::Counts::default(),
            }),
            lookups,
            syncs,
            renewals,
            servers,
            ends: Ends::of(config),
            listeners: Listeners::default(),
            started: now(),
        })
    }

    /// The federations.
    pub fn federations(&self) -> &[Arc<Federation>] {
        self.lookups.resolver().federations()
    }

    /// Why not every federation can be asked, if so.
    pub fn trouble(&self) -> Option<String> {
        let of = |federation: &Arc<Federation>| {
            let name = federation.name();
            match federation.identity() {
                None => return Some(format!("{name}: not enrolled")),
                Some(identity) if now() > identity.life.1 => {
                    return Some(format!("{name}: our certificate has expired: enrol again with a new token"));
                }
                Some(_) => {}
            }
            let brokers = federation.brokers();
            if brokers.is_empty() {
                return Some(format!("{name}: no broker is known"));
            }
            if brokers.iter().any(|broker| broker.rtt().is_some() && broker.trouble().is_none()) {
                return None;
            }
            let why = brokers.iter().find_map(|broker| broker.trouble());
            Some(why.map_or_else(|| format!("{name}: no broker has answered yet"), |why| format!("{name}: {why}")))
        };
        self.federations().iter().find_map(of)
    }
}

/// Sockets that are bound before anything runs, so that a start that cannot work fails at once.
struct Bound {
    resolver: Vec<Sockets>,
    ts002: Vec<TcpListener>,
    metrics: Vec<TcpListener>,
    control: Control,
}

impl Bound {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut resolver = Vec::new();
        for address in &config.resolver.listen {
            let bound = Sockets::bind(*address).await;
            resolver.push(bound.with_context(|| format!("the resolver cannot listen on {address}"))?);
        }
        let metrics = config.metrics.iter().flat_map(|metrics| metrics.listen.clone()).collect::<Vec<_>>();
        Ok(Self {
            resolver,
            ts002: listen("the TS002 endpoint", &config.ts002.listen).await?,
            metrics: listen("metrics", &metrics).await?,
            control: Control::bind(&control::to_bind(config)).await?,
        })
    }

    fn addresses(&self) -> anyhow::Result<Listeners> {
        let tcp = |listeners: &[TcpListener]| listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
        Ok(Listeners {
            resolver: self.resolver.iter().map(Sockets::address).collect::<Result<_, _>>()?,
            ts002: tcp(&self.ts002)?,
            metrics: tcp(&self.metrics)?,
        })
    }
}

async fn listen(what: &str, addresses: &[std::net::SocketAddr]) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.with_context(|| format!("{what} cannot listen on {address}"))?);
    }
    Ok(listeners)
}

/// The control socket; its file goes when this is dropped.
struct Control {
    listener: Option<UnixListener>,
    path: PathBuf,
}

impl Control {
    async fn bind(path: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let shown = path.display();
        if path.exists() {
            if UnixStream::connect(path).await.is_ok() {
                bail!("an agent is running already: it answers at {shown}");
            }
            std::fs::remove_file(path).with_context(|| format!("cannot remove the old control socket {shown}"))?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot make the control socket {shown}"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .with_context(|| format!("cannot set the mode of the control socket {shown}"))?;
        Ok(Self { listener: Some(listener), path: path.to_owned() })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Best effort: the next start replaces a file that is left.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Runs until told to stop.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    for advice in crate::config::advice(&config) {
        tracing::warn!("{advice}");
    }
    let mut agent = Agent::open(&config)?;
    let tls = match (&config.ts002.certificate, &config.ts002.key) {
        (Some(certificate), Some(key)) => {
            let clients = config.ts002.client_ca.as_ref().map(|path| config.path(path));
            let server = tls::server(&config.path(certificate), &config.path(key), clients.as_deref());
            let server = server.map_err(anyhow::Error::msg).context("the TS002 endpoint cannot have TLS")?;
            Some(TlsAcceptor::from(Arc::new(server)))
        }
        _ => None,
    };
    let mut bound = Bound::bind(&config).await?;
    agent.listeners = bound.addresses()?;
    agent.ends.bound(&agent.listeners.ts002);
    let agent = Arc::new(agent);
    let tasks = TaskTracker::new();
    let (changed, _) = watch::channel(0);
    start_federations(&agent, &config, &changed, &tasks, &stop);
    keep_server_certificates(&agent, &config, &changed, &tasks, &stop);
    if let Some(file) = &config.lns.chirpstack_file {
        let federations = agent.federations().to_vec();
        tasks.spawn(lns::follow(agent.ends.clone(), config.path(file), federations, changed.subscribe(), stop.clone()));
    }
    for sync in &agent.syncs {
        tasks.spawn(Arc::clone(sync).run(changed.subscribe(), stop.clone()));
    }
    for sockets in std::mem::take(&mut bound.resolver) {
        tasks.spawn(sockets.serve(Arc::clone(&agent.desk), stop.clone()));
    }
    for listener in std::mem::take(&mut bound.ts002) {
        let routes = ts002::routes(Arc::clone(&agent.endpoint));
        let tls = tls.clone().map(|acceptor| Tls { acceptor, judge: own_servers_only(&agent) });
        tasks.spawn(serve(Door::Tcp(listener, tls), "the TS002 endpoint", routes, stop.clone()));
    }
    for listener in std::mem::take(&mut bound.metrics) {
        let routes = ops::monitoring(Arc::clone(&agent));
        tasks.spawn(serve(Door::Tcp(listener, None), "metrics", routes, stop.clone()));
    }
    if let Some(listener) = bound.control.listener.take() {
        let routes = ops::control(Arc::clone(&agent));
        tasks.spawn(serve(Door::Unix(listener), "the control socket", routes, stop.clone()));
    }
    let Listeners { resolver, ts002, metrics } = &agent.listeners;
    tracing::info!(?resolver, ?ts002, ?metrics, federations = agent.federations().len(), "the agent serves");
    // Outside of systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    stop.cancelled().await;
    tracing::info!("the agent stops");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// A federation's CA vouches for all its members. Whoever shows a member's certificate asks in our name, so it is to be ours.
fn own_servers_only(agent: &Arc<Agent>) -> Arc<Judge> {
    let agent = Arc::clone(agent);
    Arc::new(move |certificate: &CertificateDer<'_>| {
        let Some((federation, member)) = Facts::of(certificate)?.member() else { return Ok(()) };
        let is_ours = |identity: &Identity| (&identity.federation, &identity.member) == (&federation, &member);
        let known = agent.federations().iter().filter_map(|of| of.identity());
        if known.into_iter().any(|identity| is_ours(&identity)) {
            return Ok(());
        }
        Err(format!("this is the certificate of {member} of {federation}, in whose name nobody asks here"))
    })
}

fn start_federations(
    agent: &Arc<Agent>,
    config: &Config,
    changed: &watch::Sender<u64>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let settings = config.federation.iter().zip(&agent.renewals);
    for (federation, (settings, counts)) in agent.federations().iter().zip(settings) {
        tasks.spawn(Arc::clone(federation).keep_warm(stop.clone()));
        let every = Duration::from_secs(settings.refresh);
        tasks.spawn(directory::follow(Arc::clone(federation), every, changed.clone(), stop.clone()));
        let renewal = Renewal {
            federation: Arc::clone(federation),
            renew: settings.renew,
            hook: settings.hook.clone(),
            key_group: settings.key_group.clone(),
            counts: Arc::clone(counts),
        };
        tasks.spawn(renewal.run(stop.clone()));
    }
}

fn keep_server_certificates(
    agent: &Arc<Agent>,
    config: &Config,
    changed: &watch::Sender<u64>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let settings = config.federation.iter().zip(&agent.servers);
    for (federation, (settings, state)) in agent.federations().iter().zip(settings) {
        let hook = if config.lns.hook.is_empty() { &settings.hook } else { &config.lns.hook };
        let keeper = server_certificate::Keeper {
            federation: Arc::clone(federation),
            hook: hook.clone(),
            key_group: settings.key_group.clone(),
            changed: changed.clone(),
            state: Arc::clone(state),
        };
        tasks.spawn(keeper.run(stop.clone()));
    }
}
