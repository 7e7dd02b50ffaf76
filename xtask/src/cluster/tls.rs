//! TLS as far as tests need it: a client that shows a certificate, a server that has one.

use super::certificates::Identity;
use super::error::{Context, Error};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

type ClientStream = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type ServerStream = StreamOwned<ServerConnection, TcpStream>;

/// Connects as `identity` to a server that `authority` vouches for.
pub(crate) fn connect(
    address: SocketAddr,
    authority: &Path,
    identity: &Identity,
) -> Result<ClientStream, Error> {
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate(authority)?)
        .map_err(|error| refused(&error))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![certificate(&identity.certificate)?],
            key(&identity.key)?,
        )
        .map_err(|error| refused(&error))?;
    let name = ServerName::IpAddress(address.ip().into());
    let connection =
        ClientConnection::new(Arc::new(config), name).map_err(|error| refused(&error))?;
    let what = || format!("connect to {address}");
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).context(what)?;
    stream.set_read_timeout(Some(TIMEOUT)).context(what)?;
    Ok(StreamOwned::new(connection, stream))
}

/// What a server with this identity needs.
pub(crate) fn server(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error))?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate(&identity.certificate)?],
            key(&identity.key)?,
        )
        .map_err(|error| refused(&error))?;
    Ok(Arc::new(config))
}

/// One accepted connection; the handshake happens with the first read.
pub(crate) fn accept(config: &Arc<ServerConfig>, stream: TcpStream) -> Result<ServerStream, Error> {
    let connection = ServerConnection::new(config.clone()).map_err(|error| refused(&error))?;
    Ok(StreamOwned::new(connection, stream))
}

/// Named, so that nobody has to install one for the whole process.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificate(file: &Path) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_file(file)
        .map_err(|error| Error::Answer(format!("{}: {error}", file.display())))
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| Error::Answer(format!("{}: {error}", file.display())))
}

fn refused(error: &rustls::Error) -> Error {
    Error::Answer(format!("TLS: {error}"))
}
