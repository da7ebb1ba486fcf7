//! Binding sockets, and accepting connections, as many as there are places for.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Accepting pauses this long when the system has no more files or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: i32 = 1_024;

/// A listener of connections. One of `[::]` takes IPv6 only, whatever the system's default is, so that it stands beside
/// one of `0.0.0.0`, and an IPv4 peer has the address that configurations name.
pub fn bind_tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket(address, SocketType::STREAM, ipproto::TCP)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The same of datagrams.
pub fn bind_udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = socket(address, SocketType::DGRAM, ipproto::UDP)?;
    rustix::net::bind(&socket, &address)?;
    UdpSocket::from_std(socket.into())
}

fn socket(
    address: SocketAddr,
    kind: SocketType,
    protocol: rustix::net::Protocol,
) -> std::io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// Whether this machine has IPv6 at all.
pub fn has_ipv6() -> bool {
    bind_here((std::net::Ipv6Addr::UNSPECIFIED, 0).into()).is_ok()
}

fn bind_here(address: SocketAddr) -> std::io::Result<()> {
    Ok(rustix::net::bind(&socket(address, SocketType::DGRAM, ipproto::UDP)?, &address)?)
}

/// What to do about a socket that cannot be bound; `section` is that of the configuration.
pub fn advice(error: &std::io::Error, address: SocketAddr, section: &str) -> String {
    let port = address.port();
    let other = format!("or set another port under `listen` in the section [{section}]");
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("another program has port {port}: `ss -lntup 'sport = :{port}'` names it; stop it, {other}")
        }
        std::io::ErrorKind::PermissionDenied => format!(
            "ports below 1024 need CAP_NET_BIND_SERVICE, which the systemd unit gives: start it by that, {other}"
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            format!("this machine does not have {}: set one that it has under `listen` in [{section}]", address.ip())
        }
        _ => format!("look at `listen` in the section [{section}]"),
    }
}

/// A listener with places.
pub struct Listen {
    listener: TcpListener,
    /// What it serves, for the log.
    what: &'static str,
    limit: usize,
    slots: Arc<Semaphore>,
    complained: Option<Instant>,
    crowded: Box<dyn Fn() + Send>,
}

impl Listen {
    /// Of a bound socket.
    pub fn new(listener: TcpListener, what: &'static str, limit: usize) -> Self {
        Self {
            listener,
            what,
            limit,
            slots: Arc::new(Semaphore::new(limit)),
            complained: None,
            crowded: Box::new(|| {}),
        }
    }

    /// Calls this for each connection that finds no place.
    #[must_use]
    pub fn crowded(self, crowded: impl Fn() + Send + 'static) -> Self {
        Self { crowded: Box::new(crowded), ..self }
    }

    /// The next connection and its place; none when it is time to stop. A connection for which there is no place is
    /// closed at once.
    pub async fn next(&mut self, stop: &CancellationToken) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return None,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if self.complaint_due() {
                        tracing::error!(%error, "{} accepts nobody for a moment", self.what);
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match Arc::clone(&self.slots).try_acquire_owned() {
                Ok(slot) => return Some((stream, client, slot)),
                Err(_) => {
                    (self.crowded)();
                    if self.complaint_due() {
                        let (what, limit) = (self.what, self.limit);
                        tracing::warn!(%client, limit, "too many connections of {what}: closed at once");
                    }
                }
            }
        }
    }

    /// Lets a log line through once a second, so that a flood does not fill the disk.
    fn complaint_due(&mut self) -> bool {
        let due = self.complained.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if due {
            self.complained = Some(Instant::now());
        }
        due
    }
}

/// Places by who takes them, so that one leaves room for others.
pub struct Places<K> {
    limit: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// A place, given back when it is dropped.
pub struct Place<K: Hash + Eq> {
    places: Arc<Places<K>>,
    who: K,
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// So many each.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: Mutex::default() })
    }

    /// A place, if there is one left for this one.
    pub fn take(self: &Arc<Self>, who: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(who.clone()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place { places: Arc::clone(self), who })
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = taken.get(&self.who).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.remove(&self.who);
        } else if let Some(count) = taken.get_mut(&self.who) {
            *count = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_told_with_what_to_do_about_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _entered = runtime.enter();
        let error = bind_tcp(address).expect_err("is taken");
        let advice = advice(&error, address, "doh");
        assert!(advice.contains("ss -lntup") && advice.contains("[doh]"), "{advice}");
        assert!(advice.contains(&address.port().to_string()), "{advice}");
    }

    #[test]
    fn both_families_have_the_same_port() {
        if !has_ipv6() {
            eprintln!("SKIPPED: this machine has no IPv6");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _entered = runtime.enter();
        let four = bind_tcp("0.0.0.0:0".parse().expect("an address")).expect("a port");
        let port = four.local_addr().expect("an address").port();
        let six = bind_tcp(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))).expect("the same port");
        assert_eq!(six.local_addr().expect("an address").port(), port);
    }

    #[test]
    fn each_has_places_of_its_own_and_gives_them_back() {
        let places = Places::new(2);
        let (first, second) = (places.take("a"), places.take("a"));
        assert!(first.is_some() && second.is_some() && places.take("a").is_none());
        assert!(places.take("b").is_some(), "another one has room");
        drop(first);
        assert!(places.take("a").is_some());
        drop(second);
        assert!(places.taken.lock().expect("a lock").is_empty(), "nothing is left of those who have gone");
    }
}
