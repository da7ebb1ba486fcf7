//! Accepting connections, as many as there are places for.

use std::net::SocketAddr;
use std::sync::Arc;
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
