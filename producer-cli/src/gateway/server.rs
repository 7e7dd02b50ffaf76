//! The HTTP server: accepts, speaks TLS, bounds what a connection may cost, drains.

use crate::gateway::tls::Tls;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prometheus::IntGauge;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service;

/// How long the head of a request may take, and a connection stay without one.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// The largest head, in bytes: hyper answers 431 above it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// After a failed accept: no free file descriptor, most often.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a request's connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What a server needs.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) router: Router,
    pub(crate) connections_max: usize,
    pub(crate) connections: IntGauge,
    pub(crate) drain: Duration,
}

impl Server {
    /// Serves until `stop`, then lets requests end for as long as the drain may take.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(self.connections_max));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &permits) => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some((stream, peer, permit)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (router, tls, watcher) =
                (self.router.clone(), self.tls.clone(), graceful.watcher());
            let open = Open::new(&self.connections);
            tokio::spawn(async move {
                let _held = (permit, open);
                match tls {
                    None => connection(stream, peer, router, watcher).await,
                    Some(tls) => {
                        let handshake = tls.acceptor().accept(stream);
                        match tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake).await {
                            Ok(Ok(stream)) => connection(stream, peer, router, watcher).await,
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "tls handshake"),
                            Err(_) => tracing::debug!(%peer, "tls handshake took too long"),
                        }
                    }
                }
            });
        }
        drop(self.listener);
        tracing::info!(open = graceful.count(), "drain");
        tokio::select! {
            () = graceful.shutdown() => tracing::info!("all requests are answered"),
            () = tokio::time::sleep(self.drain) => {
                tracing::warn!("the drain timeout passed with open connections");
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // Without a permit nothing is accepted: further clients wait in the listen queue.
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and whole.
            stream.set_nodelay(true).ok();
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "accept");
            None
        }
    }
}

async fn connection<S>(stream: S, peer: SocketAddr, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        let mut router = router.clone();
        async move { router.call(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, %error, "connection");
    }
}

/// Counts a connection while it lives.
struct Open(IntGauge);

impl Open {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
