//! One connection: HTTP/2 or 1.1 until somebody has a reason to end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::Doh;
use super::handshake::Accepted;
use super::request::{Asking, Responder};
use crate::committer::now;
use crate::limits::{CONNECTION_WINDOW, ERROR_RESETS, Limits, PENDING_RESETS, STREAM_WINDOW};

/// Answers under way get this long when a connection has to end.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often a connection looks whether it is idle or its certificate has ended.
const LOOK: Duration = Duration::from_secs(1);
/// A peer that doesn't answer an HTTP/2 PING is gone.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_WITHIN: Duration = Duration::from_secs(20);

/// Serves a connection to its end.
pub(super) async fn serve(accepted: Accepted, doh: &Arc<Doh>, stop: &CancellationToken) {
    let Accepted { stream, sending, peer, place, client } = accepted;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let asking = Arc::new(Asking { doh: Arc::clone(doh), peer, place, last: AtomicI64::new(now()) });
    let service = Responder(Arc::clone(&asking));
    let io = TokioIo::new(stream);
    let ended = if h2 {
        let connection = http2(&doh.limits).serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = sending.during(connection.as_mut()) => ended,
            () = reason_to_end(&asking, stop) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(LAST_WORDS, sending.during(connection)).await.unwrap_or(Ok(()))
            }
        }
    } else {
        let connection = http1(&doh.limits).serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = sending.during(connection.as_mut()) => ended,
            () = reason_to_end(&asking, stop) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(LAST_WORDS, sending.during(connection)).await.unwrap_or(Ok(()))
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%client, member = %asking.peer.member(), %error, "a DoH connection broke");
    }
}

/// Runs what answers a request where the request was read, so that answers to all that one read brought leave in one packet.
/// What has to wait, for the rest of a body perhaps, gets a task.
#[derive(Clone)]
struct AtOnce;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for AtOnce {
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(future);
        }
    }
}

fn http2(limits: &Limits) -> hyper::server::conn::http2::Builder<AtOnce> {
    let mut http = hyper::server::conn::http2::Builder::new(AtOnce);
    http.timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.header_octets)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(ERROR_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN);
    http
}

fn http1(limits: &Limits) -> hyper::server::conn::http1::Builder {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(limits.request())
        .max_buf_size(crate::limits::TARGET + limits.header_octets as usize);
    http
}

/// Returns when the connection has to end: the broker stops, the member is no longer let in, or nobody asks any more.
async fn reason_to_end(asking: &Asking, stop: &CancellationToken) {
    let Asking { doh, peer, last, .. } = asking;
    let mut admissions = doh.shared.admissions();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // The sender lives as long as the listeners.
            _ = admissions.changed() => {}
            _ = look.tick() => {}
        }
        let now = now();
        if let Err(denial) = peer.check(&doh.shared.view.load(), now) {
            doh.shared.metrics.denied(&denial);
            tracing::info!(member = %peer.member(), cause = %denial, "a live DoH connection is ended");
            return;
        }
        if now - last.load(Ordering::Relaxed) >= doh.limits.idle_seconds as i64 {
            return;
        }
    }
}
