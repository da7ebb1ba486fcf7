//! Accepting connections, as many as there are places for.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Accepting pauses this long when the system has no more files or memory.
const PAUSE: Duration = Duration::from_millis(50);

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
