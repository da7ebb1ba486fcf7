//! The control socket: the REST API for the machine's own administrators.
//!
//! Who may open the socket is decided by the file system (mode 0660); who calls is the user id the kernel tells.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::api::Caller;

/// The longest path of a Unix socket on Linux, in octets, without the final zero (unix(7)).
const MAX_PATH: usize = 107;

/// The bound socket; its file goes when this is dropped.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds the socket. A file left by a daemon that was killed is replaced; a live daemon is left alone.
    pub async fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            bail!(
                "the control socket {shown} has a path of {length} octets and the system allows {MAX_PATH}: use a shorter directory"
            );
        }
        if path.exists() {
            if UnixStream::connect(path).await.is_ok() {
                bail!("a daemon is running already: it answers at {shown}");
            }
            std::fs::remove_file(path).with_context(|| format!("cannot remove the old control socket {shown}"))?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot make the control socket {shown}"))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .with_context(|| format!("cannot set the mode of the control socket {shown}"))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until told to stop; requests under way are finished.
    pub async fn serve(self, routes: Router, stop: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, routes.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::error!(%error, "the control socket accepts nobody for a moment");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Best effort: the next start replaces a file that is left.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn connection(stream: UnixStream, routes: Router, stop: CancellationToken) {
    let caller = match stream.peer_cred() {
        Ok(credentials) => Caller::Local(credentials.uid()),
        Err(error) => {
            tracing::warn!(%error, "a caller on the control socket is unknown to the kernel and gets no answer");
            return;
        }
    };
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        routes.clone().oneshot(request)
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new());
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the control socket broke");
    }
}
