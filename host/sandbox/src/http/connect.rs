//! From a target to a connection: resolve, judge every address, and connect to one that was judged.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::OnceCell,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, ClientConfig, RootCertStore, pki_types::ServerName},
};
use wasmtime_wasi_http::Error;

use super::{
    failure,
    target::{Leave, Target},
};

/// Finds the addresses of a host. What it says is not trusted: every address is judged.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync {
    /// All addresses of a name, the best first.
    ///
    /// # Errors
    /// Why there are none.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The one that the system has.
#[derive(Debug)]
pub(crate) struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// What all connections have in common.
pub(crate) struct Net {
    resolver: Arc<dyn Resolver>,
    /// Loaded when it is needed first: the system's certificates are a few hundred files.
    tls: OnceCell<Arc<ClientConfig>>,
}

/// A connection, over TLS or not.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection.
pub(super) enum Fault {
    /// The name stands for these addresses alone, none of which it may.
    Denied(Vec<IpAddr>),
    /// Anything else.
    Failed(Error),
}

impl Net {
    pub(crate) fn new(resolver: Arc<dyn Resolver>) -> Self {
        Self { resolver, tls: OnceCell::new() }
    }

    /// Connects, within so long.
    pub(super) async fn connect(
        &self,
        target: &Target,
        leave: Leave,
        within: Duration,
    ) -> Result<Box<dyn Stream>, Fault> {
        let until = Instant::now() + within;
        let addresses = match target.address() {
            Some(address) => vec![address],
            None => match timeout_at(until, self.resolver.resolve(&target.host)).await {
                Ok(Ok(addresses)) => addresses,
                Ok(Err(_)) => return Err(Fault::Failed(Error::DnsError { rcode: None, info_code: None })),
                Err(_) => return Err(Fault::Failed(Error::DnsTimeout)),
            },
        };
        let (allowed, denied): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses.into_iter().partition(|address| leave.allows(*address));
        if allowed.is_empty() && !denied.is_empty() {
            return Err(Fault::Denied(denied));
        }
        let stream = connect_to_one(&allowed, target.port, until).await.map_err(Fault::Failed)?;
        if !target.tls {
            return Ok(Box::new(stream));
        }
        match timeout_at(until, self.secure(target, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Fault::Failed(error)),
            Err(_) => Err(Fault::Failed(Error::ConnectionTimeout)),
        }
    }

    async fn secure(&self, target: &Target, stream: TcpStream) -> Result<impl Stream + use<>, Error> {
        let config = self.tls.get_or_try_init(|| async { tls_config(system_roots().await?) }).await?;
        let name = match target.address() {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(target.host.clone()).map_err(|_| Error::HttpRequestUriInvalid)?,
        };
        let connector = TlsConnector::from(Arc::clone(config));
        connector.connect(name, stream).await.map_err(|error| failure::of_tls(&error))
    }
}

/// The first that answers. Each gets its share of the time, so that one that is silent does not use it up.
async fn connect_to_one(addresses: &[IpAddr], port: u16, until: Instant) -> Result<TcpStream, Error> {
    let mut error = Error::DnsError { rcode: None, info_code: None };
    for (index, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = now + until.saturating_duration_since(now) / left;
        match timeout_at(share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => {
                // It only costs time if it cannot be set.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(fault)) => error = failure::of_connect(&fault),
            Err(_) => error = Error::ConnectionTimeout,
        }
    }
    Err(error)
}

/// The certificates that this machine trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
async fn system_roots() -> Result<RootCertStore, Error> {
    let load = || {
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _unusable) = roots.add_parsable_certificates(loaded.certs);
        if added == 0 {
            let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
            tracing::warn!(
                ?errors,
                "this machine trusts no certificate, so no handler can call https; see SSL_CERT_FILE"
            );
            return Err(Error::TlsCertificateError);
        }
        Ok(roots)
    };
    spawn_blocking(load).await.unwrap_or(Err(Error::TlsCertificateError))
}

fn tls_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::InternalError(Some(error.to_string())))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
