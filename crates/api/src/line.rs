//! A TCP connection that sends what a task has written when the task is through, in as few packets as that takes.
//!
//! TLS and HTTP/2 write and flush piece by piece: the end of the handshake, a session ticket, SETTINGS, acknowledgements, an
//! answer. Without Nagle's algorithm each piece is a packet, with it each waits for the peer. Here writes gather and a flush
//! is no more than a promise; [`Sending::during`] keeps it whenever the future that writes has to wait for something.
//!
//! ```text
//! hyper ▶ h2 ▶ rustls ▶ Line (gathers)        Sending::during(connection): polled, waits ▶ what gathered is sent
//! ```

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Octets that gather at most; who writes more waits until they are sent.
const GATHERED: usize = 64 * 1024;
/// Octets of room that are kept from one packet to the next.
const KEPT: usize = 16 * 1024;

/// The end that TLS reads and writes.
pub struct Line {
    read: OwnedReadHalf,
    out: Arc<Mutex<Out>>,
}

/// The end that sends.
#[derive(Clone)]
pub struct Sending(Arc<Mutex<Out>>);

struct Out {
    write: OwnedWriteHalf,
    gathered: Vec<u8>,
    /// For the next write: who sent had no one to tell.
    failed: Option<io::Error>,
    held: bool,
    /// Who wrote while all was held.
    writer: Option<Waker>,
}

/// Divides a connection. Nagle's algorithm is switched off.
pub fn gather(stream: TcpStream) -> io::Result<(Line, Sending)> {
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    let out = Arc::new(Mutex::new(Out { write, gathered: Vec::new(), failed: None, held: false, writer: None }));
    Ok((Line { read, out: Arc::clone(&out) }, Sending(out)))
}

impl Sending {
    /// The future, with what it writes sent whenever it waits. What it wrote last is sent by who comes next, or when the
    /// connection is dropped.
    pub async fn during<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            let done = future.as_mut().poll(cx);
            if done.is_pending() {
                self.send(cx);
            }
            done
        })
        .await
    }

    /// Nothing is sent until [`Sending::release`].
    pub fn hold(&self) {
        lock(&self.0).held = true;
    }

    /// Lets go. Who wrote is polled once more, so that what it has got to write by now is sent with the rest.
    pub fn release(&self) {
        let writer = {
            let mut out = lock(&self.0);
            out.held = false;
            out.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    fn send(&self, cx: &mut Context<'_>) {
        let mut out = lock(&self.0);
        if out.held {
            out.writer = Some(cx.waker().clone());
            return;
        }
        // Where the peer takes no more now, the task is woken when it does.
        if let Poll::Ready(Err(error)) = out.poll_send(cx) {
            out.failed = Some(error);
        }
    }
}

fn lock(out: &Mutex<Out>) -> MutexGuard<'_, Out> {
    out.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Out {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let result = loop {
            match self.gathered.get(sent..) {
                None | Some([]) => break Poll::Ready(Ok(())),
                Some(rest) => match Pin::new(&mut self.write).poll_write(cx, rest) {
                    Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                    Poll::Pending => break Poll::Pending,
                },
            }
        };
        match &result {
            Poll::Pending => drop(self.gathered.drain(..sent)),
            Poll::Ready(_) if self.gathered.capacity() > KEPT => self.gathered = Vec::new(),
            Poll::Ready(_) => self.gathered.clear(),
        }
        result
    }

    /// Makes room for one more write.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None if self.gathered.len() < GATHERED => Poll::Ready(Ok(())),
            None => self.poll_send(cx),
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // A TLS alert, perhaps. As much as the socket takes: nobody is left to wait for more.
        if !self.gathered.is_empty() && self.failed.is_none() {
            let _ = self.write.try_write(&self.gathered);
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut out = lock(&self.out);
        ready!(out.poll_room(cx))?;
        data.iter().for_each(|piece| out.gathered.extend_from_slice(piece));
        Poll::Ready(Ok(data.iter().map(|piece| piece.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.out).failed.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = lock(&self.out);
        ready!(out.poll_send(cx))?;
        Pin::new(&mut out.write).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address"));
        let (near, far) = tokio::join!(near, listener.accept());
        (near.expect("a connection"), far.expect("a connection").0)
    }

    #[tokio::test]
    async fn what_is_written_in_pieces_is_sent_at_once_when_the_writer_waits() {
        let (near, mut far) = pair().await;
        let (mut line, sending) = gather(near).expect("a socket");
        let writer = tokio::spawn(async move {
            let talk = async {
                for piece in [&b"ticket "[..], b"settings ", b"answer"] {
                    line.write_all(piece).await.expect("room");
                    line.flush().await.expect("a promise");
                }
                let mut heard = [0; 2];
                line.read_exact(&mut heard).await.expect("a word");
                heard
            };
            sending.during(talk).await
        });
        let mut heard = [0; 64];
        let count = far.read(&mut heard).await.expect("a packet");
        assert_eq!(&heard[..count], b"ticket settings answer", "one read takes all");
        far.write_all(b"ok").await.expect("sent");
        assert_eq!(&writer.await.expect("no panic"), b"ok");
    }

    #[tokio::test]
    async fn more_than_gathers_goes_out_as_the_peer_takes_it_and_nothing_is_lost() {
        let (near, mut far) = pair().await;
        let (mut line, sending) = gather(near).expect("a socket");
        let sent: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            sending
                .during(async {
                    line.write_all(&sent).await.expect("sent");
                    line.shutdown().await.expect("ended");
                })
                .await;
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("all of it");
        writer.await.expect("no panic");
        assert!(heard == expected);
    }

    #[tokio::test]
    async fn last_words_are_sent_when_the_connection_is_dropped() {
        let (near, mut far) = pair().await;
        let (mut line, sending) = gather(near).expect("a socket");
        sending.during(line.write_all(b"alert")).await.expect("room");
        drop((line, sending));
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("an end");
        assert_eq!(heard, b"alert");
    }

    #[tokio::test]
    async fn what_is_held_is_sent_on_release() {
        let (near, mut far) = pair().await;
        let (mut line, sending) = gather(near).expect("a socket");
        sending.hold();
        let talk = tokio::spawn({
            let sending = sending.clone();
            async move {
                let talk = async {
                    line.write_all(b"first").await.expect("room");
                    line.read_u8().await.expect("a word")
                };
                sending.during(talk).await
            }
        });
        let mut heard = [0; 16];
        let early = tokio::time::timeout(Duration::from_millis(50), far.read(&mut heard)).await;
        assert!(early.is_err(), "{early:?}");
        sending.release();
        let count = far.read(&mut heard).await.expect("a packet");
        assert_eq!(&heard[..count], b"first");
        far.write_all(b"!").await.expect("sent");
        assert_eq!(talk.await.expect("no panic"), b'!');
    }

    #[tokio::test]
    async fn who_writes_to_a_peer_that_is_gone_is_told() {
        let (near, far) = pair().await;
        let (mut line, sending) = gather(near).expect("a socket");
        drop(far);
        let talk = async {
            loop {
                if let Err(error) = line.write_all(b"hello").await {
                    return error;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(10), sending.during(talk)).await.expect("told in time");
        assert!(matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
    }
}
