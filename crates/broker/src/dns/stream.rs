//! Messages over a stream (RFC 1035, section 4.2.2; RFC 7766): a length and a message, many at once in any order.
//!
//! One task reads, one writes, one answers updates as their commits are done; each transfer is a task of its own. What
//! is to be written goes through a short queue, so a reader that stalls holds back its own transfers and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dnsbroker_ca::Principal;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Desk;
use super::door::{Caller, Reply, WaitingUpdate};
use super::transfer::{Sending, Transfer};
use crate::committer::now;
use crate::listen::{Listen, Places};
use crate::metrics::Transport;
use crate::peer::Peer;

/// A connection without a whole message for this long is closed (RFC 7766, section 6.2.3, leaves it to us).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// The same for peers with a certificate: a secondary that keeps its connection saves a handshake.
const XOT_IDLE: Duration = Duration::from_secs(60);
/// A peer that takes nothing for this long is cut, so that it does not hold a snapshot for ever.
const WRITE_STALL: Duration = Duration::from_secs(30);
/// How often a connection looks whether its certificate has ended.
const LOOK: Duration = Duration::from_millis(500);
/// Messages that wait to be written.
const QUEUE: usize = 16;
/// Octets that are written at once, at most.
const BURST: usize = 128 * 1024;
/// Updates of one connection that wait for their commit.
const UPDATES: usize = 512;

/// Serves plain TCP until told to stop.
pub(super) async fn serve(listener: TcpListener, desk: Arc<Desk>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let mut listen = Listen::new(listener, "plain DNS", desk.limits.dns_connections);
    let places = Places::new(desk.limits.dns_connections_per_address);
    while let Some((stream, address, slot)) = listen.next(&stop).await {
        let Some(place) = places.take(address.ip()) else {
            tracing::debug!(%address, "too many connections of one address: closed at once");
            continue;
        };
        let (desk, stop) = (Arc::clone(&desk), stop.clone());
        connections.spawn(async move {
            let (_slot, _place) = (slot, place);
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%address, %error, "the connection is gone already");
            }
            Connection { desk, address, peer: None }.run(stream, stop).await;
        });
    }
    connections.close();
    connections.wait().await;
}

/// One connection.
pub(super) struct Connection {
    pub(super) desk: Arc<Desk>,
    pub(super) address: SocketAddr,
    /// Who is at the other end, over TLS.
    pub(super) peer: Option<Peer<Principal>>,
}

/// Messages that are ready together and go out together.
type Messages = Vec<Vec<u8>>;

/// What the tasks of a connection share.
struct Tasks {
    out: mpsc::Sender<Messages>,
    running: JoinSet<()>,
    /// Updates that wait for their commit.
    updates: mpsc::Sender<(WaitingUpdate, Busy)>,
    busy: Arc<AtomicUsize>,
}

impl Connection {
    /// Serves until the peer goes, is idle for too long or no longer let in, or the broker stops.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Send + 'static>(self, stream: S, stop: CancellationToken) {
        let (reader, writer) = tokio::io::split(stream);
        let (out, queue) = mpsc::channel(QUEUE);
        let writer = write(writer, queue, self.peer.is_some());
        let reading = async {
            let (updates, waiting) = mpsc::channel(UPDATES);
            let mut running = JoinSet::new();
            running.spawn(answer_updates(waiting, Arc::clone(&self.desk), out.clone()));
            let mut tasks = Tasks { out, running, updates, busy: Arc::default() };
            if self.read(BufReader::with_capacity(16 * 1024, reader), &mut tasks, stop).await {
                // The peer has said all it had to say; what it asked for it shall get.
                let Tasks { mut running, out, updates, .. } = tasks;
                drop((out, updates));
                while running.join_next().await.is_some() {}
            }
        };
        tokio::pin!(reading);
        tokio::pin!(writer);
        let served = async {
            // The writer ends when it fails, or when nobody can write to it any more.
            tokio::select! {
                () = &mut reading => drop(tokio::time::timeout(WRITE_STALL, writer).await),
                () = &mut writer => {}
            }
        };
        // Who is no longer let in gets nothing more: not what is queued, nor the rest of a transfer that it stalls.
        tokio::select! {
            () = served => {}
            () = self.denied() => {}
        }
    }

    /// Reads messages. True when the peer ended the connection in good order.
    async fn read<R: AsyncRead + Unpin>(&self, mut reader: R, tasks: &mut Tasks, stop: CancellationToken) -> bool {
        let idle = if self.peer.is_some() { XOT_IDLE } else { TCP_IDLE };
        let mut message = Vec::new();
        loop {
            // One future until it is done: what it has read of a message must not be lost.
            let mut read = Box::pin(next_message(&mut reader, &mut message));
            let whole = loop {
                tokio::select! {
                    () = stop.cancelled() => return false,
                    read = tokio::time::timeout(idle, &mut read) => match read {
                        Ok(Ok(whole)) => break whole,
                        Ok(Err(_)) => return false,
                        // A peer that waits for what it asked for is not idle.
                        Err(_) if tasks.busy.load(Ordering::Relaxed) > 0 => {}
                        Err(_) => return false,
                    },
                }
            };
            drop(read);
            if !whole {
                return true;
            }
            if !self.admitted() || !self.handle(&message, tasks).await {
                return false;
            }
            while tasks.running.try_join_next().is_some() {}
        }
    }

    /// Returns when the peer is no longer let in: revoked, suspended, or its certificate has ended.
    async fn denied(&self) {
        if self.peer.is_none() {
            return std::future::pending().await;
        }
        let mut admissions = self.desk.shared.admissions();
        while self.admitted() {
            // Its certificate may end without anything having changed.
            let _ = tokio::time::timeout(LOOK, admissions.changed()).await;
        }
    }

    fn admitted(&self) -> bool {
        let Some(peer) = &self.peer else { return true };
        match peer.check(&self.desk.shared.view.load(), now()) {
            Ok(()) => true,
            Err(denial) => {
                self.desk.shared.metrics.denied(&denial);
                tracing::info!(principal = %peer.principal(), cause = %denial, "a live XoT connection is ended");
                false
            }
        }
    }

    /// Handles one message; false when the connection is of no more use.
    async fn handle(&self, message: &[u8], tasks: &mut Tasks) -> bool {
        let caller = Caller {
            transport: if self.peer.is_some() { Transport::Xot } else { Transport::Tcp },
            address: self.address,
            principal: self.peer.as_ref().map(Peer::principal),
        };
        match self.desk.receive(message, &caller).await {
            Reply::Nothing => false,
            Reply::Message(response) => tasks.out.send(vec![response]).await.is_ok(),
            Reply::Update(update) => tasks.updates.send((*update, Busy::new(&tasks.busy))).await.is_ok(),
            Reply::Transfer(transfer) => {
                let (out, busy) = (tasks.out.clone(), Busy::new(&tasks.busy));
                tasks.running.spawn(async move {
                    let _busy = busy;
                    send(*transfer, &out).await;
                });
                true
            }
        }
    }
}

/// Answers updates as their commits are done. One task for all: a group's answers go out together, in one write, and the
/// client that waits for them wakes once.
async fn answer_updates(
    mut waiting: mpsc::Receiver<(WaitingUpdate, Busy)>,
    desk: Arc<Desk>,
    out: mpsc::Sender<Messages>,
) {
    let mut pending = FuturesUnordered::new();
    let mut open = true;
    while open || !pending.is_empty() {
        tokio::select! {
            update = waiting.recv(), if open && pending.len() < UPDATES => match update {
                Some((update, busy)) => pending.push(async {
                    let _busy = busy;
                    update.done(&desk).await
                }),
                None => open = false,
            },
            Some(response) = pending.next(), if !pending.is_empty() => {
                // The writer is at the rest of the group.
                tokio::task::yield_now().await;
                let mut responses = vec![response];
                while let Some(Some(response)) = pending.next().now_or_never() {
                    responses.push(response);
                }
                // The peer may have gone; the updates happened all the same.
                let _ = out.send(responses).await;
            }
        }
    }
}

/// Counts a task that is under way.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn send(transfer: Transfer, out: &mpsc::Sender<Messages>) {
    let Ok(mut sending) = tokio::task::spawn_blocking(|| transfer.start()).await else { return };
    let end = messages(&mut sending, out).await;
    sending.ended(end);
}

async fn messages(sending: &mut Sending, out: &mpsc::Sender<Messages>) -> Result<(), &'static str> {
    loop {
        let mut message = Vec::with_capacity(17 * 1024);
        if !sending.next(&mut message)? {
            return Ok(());
        }
        out.send(vec![message]).await.map_err(|_| "the peer went away, or took nothing for too long")?;
    }
}

/// Reads one message; false at the end of the stream.
async fn next_message<R: AsyncRead + Unpin>(reader: &mut R, message: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut length = [0; 2];
    if reader.read(&mut length[..1]).await? == 0 {
        return Ok(false);
    }
    reader.read_exact(&mut length[1..]).await?;
    message.resize(usize::from(u16::from_be_bytes(length)), 0);
    reader.read_exact(message).await?;
    Ok(true)
}

/// Writes what is queued, as much at once as there is; over TLS (`apart`) each message as a record of its own. NSD's
/// client reads one message of a record and looks at the rest only when more arrives.
async fn write<W: AsyncWrite + Unpin>(mut writer: W, mut queue: mpsc::Receiver<Messages>, apart: bool) {
    let mut burst = Vec::with_capacity(BURST);
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        let mut queued = 0;
        let written = async {
            while let Some(messages) = next {
                for message in messages {
                    queued += message.len();
                    burst.extend_from_slice(&(message.len() as u16).to_be_bytes());
                    burst.extend_from_slice(&message);
                    if apart || burst.len() >= BURST {
                        writer.write_all(&burst).await?;
                        burst.clear();
                    }
                }
                next = if queued < BURST { queue.try_recv().ok() } else { None };
            }
            writer.write_all(&burst).await?;
            burst.clear();
            writer.flush().await
        };
        if !matches!(tokio::time::timeout(WRITE_STALL, written).await, Ok(Ok(()))) {
            return;
        }
    }
    // The peer may be gone already.
    let _ = writer.shutdown().await;
}
