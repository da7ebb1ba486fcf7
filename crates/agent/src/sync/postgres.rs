//! ChirpStack v4 and v3 on PostgreSQL: one column in a read-only transaction, and notifications of changes.
//!
//! ChirpStack tells nobody of changes by itself; `dist/notify.sql` adds a trigger that does, on the channel [`CHANNEL`].

use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{StreamExt, TryStreamExt};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config, Socket};
use tokio_rustls::client::TlsStream as Rustls;

use super::config::{Kind, SyncConfig};
use super::source::Listing;
use crate::files;
use crate::tls;

/// The channel on which changes are told.
pub const CHANNEL: &str = "dnsbroker_devices";

/// Lists devices.
pub async fn list(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let (client, connection) = connect(config, dir).await?;
    let driver = tokio::spawn(connection);
    let listed = read(&client, config).await;
    drop(client);
    // The connection ends when its client is gone; what it has to say was said to the query.
    let _ = driver.await;
    listed
}

async fn read(client: &Client, config: &SyncConfig) -> Result<Listing, String> {
    let failed = |error: tokio_postgres::Error| words(&error);
    // Nothing that is said here can change anything, whatever the role may.
    client.batch_execute("set session characteristics as transaction read only").await.map_err(failed)?;
    let query = match config.source {
        Kind::ChirpstackV3 => v3(config),
        _ => v4(config),
    };
    let mut parameters = vec![&config.tenants, &config.applications];
    parameters.retain(|names| !names.is_empty());
    let rows = client.query_raw(&query, parameters).await.map_err(failed)?;
    let mut rows = std::pin::pin!(rows);
    let mut listing = Listing::default();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        listing.push_octets(row.try_get(0).map_err(failed)?)?;
    }
    Ok(listing)
}

fn v4(config: &SyncConfig) -> String {
    let mut query = "select d.dev_eui from device d join device_profile p on p.id = d.device_profile_id \
                     join application a on a.id = d.application_id where true"
        .to_owned();
    if config.roaming_only {
        query.push_str(" and p.allow_roaming");
    }
    if config.otaa_only {
        query.push_str(" and p.supports_otaa");
    }
    if config.enabled_only.unwrap_or(true) {
        query.push_str(" and not d.is_disabled");
    }
    let mut place = 0;
    for (names, column) in [(&config.tenants, "a.tenant_id"), (&config.applications, "a.id")] {
        if !names.is_empty() {
            place += 1;
            query.push_str(&format!(" and {column}::text = any(${place}::text[])"));
        }
    }
    query
}

/// In v3's network server, passive roaming is allowed by the service profile.
fn v3(config: &SyncConfig) -> String {
    let mut query =
        "select d.dev_eui from device d join device_profile p on p.device_profile_id = d.device_profile_id \
                     join service_profile s on s.service_profile_id = d.service_profile_id where true"
            .to_owned();
    if config.roaming_only {
        query.push_str(" and s.pr_allowed");
    }
    if config.otaa_only {
        query.push_str(" and p.supports_join");
    }
    if config.enabled_only.unwrap_or(true) {
        query.push_str(" and not d.is_disabled");
    }
    query
}

/// Waits for changes and tells them, until the connection breaks.
pub async fn listen(config: &SyncConfig, dir: &Path, changed: &mpsc::Sender<()>) -> Result<(), String> {
    let (client, mut connection) = connect(config, dir).await?;
    let messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
    let mut messages = std::pin::pin!(messages);
    let listening = format!("listen {CHANNEL}");
    let mut listen = std::pin::pin!(client.batch_execute(&listening));
    let mut listened = false;
    loop {
        let message = tokio::select! {
            done = &mut listen, if !listened => {
                done.map_err(|error| words(&error))?;
                listened = true;
                continue;
            }
            message = messages.next() => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notification(_))) => {
                // A change that is waiting already stands for this one too.
                let _ = changed.try_send(());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(words(&error)),
            None => return Err("the database closed the connection".to_owned()),
        }
    }
}

async fn connect(
    config: &SyncConfig,
    dir: &Path,
) -> Result<(Client, tokio_postgres::Connection<Socket, PgStream>), String> {
    let text = config.postgres.as_deref().unwrap_or_default();
    let mut settings: Config = text.parse().map_err(|error| format!("postgres: {}", words(&error)))?;
    settings.application_name("dnsbroker-agent");
    if settings.get_connect_timeout().is_none() {
        settings.connect_timeout(std::time::Duration::from_secs(10));
    }
    if let Some(file) = &config.password_file {
        let password = files::read_secret_text(&dir.join(file));
        settings.password(password.map_err(|error| dnsbroker_api::problem::chain(&error))?.as_bytes());
    }
    if settings.get_ssl_mode() == SslMode::Prefer && config.ca.is_none() && is_here(&settings) {
        // On this machine TLS protects from nobody, and Debian's certificate for it is one that nobody vouches for.
        settings.ssl_mode(SslMode::Disable);
    }
    let ca = config.ca.as_ref().map(|ca| dir.join(ca));
    let tls = PgTls(Arc::new(tls::foreign(ca.as_deref(), None, &[b"postgresql"])?));
    settings.connect(tls).await.map_err(|error| words(&error))
}

/// Whether the database is on this machine.
fn is_here(settings: &Config) -> bool {
    let addresses = settings.get_hostaddrs();
    let hosts = settings.get_hosts().iter().all(|host| match host {
        Host::Tcp(host) => host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        Host::Unix(_) => true,
    });
    if addresses.is_empty() { hosts } else { addresses.iter().all(IpAddr::is_loopback) }
}

/// An error with its cause, which has the reason.
fn words(error: &tokio_postgres::Error) -> String {
    format!("PostgreSQL: {}", dnsbroker_api::problem::chain(error))
}

/// TLS to the database, by rustls.
#[derive(Clone)]
struct PgTls(Arc<rustls::ClientConfig>);

/// A Unix socket has no name, and no TLS.
struct PgConnect(Arc<rustls::ClientConfig>, Option<ServerName<'static>>);

struct PgStream(Box<Rustls<Socket>>);

impl MakeTlsConnect<Socket> for PgTls {
    type Stream = PgStream;
    type TlsConnect = PgConnect;
    type Error = std::io::Error;

    fn make_tls_connect(&mut self, host: &str) -> std::io::Result<PgConnect> {
        Ok(PgConnect(Arc::clone(&self.0), ServerName::try_from(host.to_owned()).ok()))
    }
}

impl TlsConnect<Socket> for PgConnect {
    type Stream = PgStream;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<PgStream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let name = self.1.ok_or_else(|| std::io::Error::other("the host has no name that TLS could verify"))?;
            let connected = tokio_rustls::TlsConnector::from(self.0).connect(name, socket).await;
            Ok(PgStream(Box::new(connected?)))
        })
    }
}

impl TlsStream for PgStream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for PgStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PgStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
