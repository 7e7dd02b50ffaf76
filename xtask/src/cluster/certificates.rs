//! A certificate authority of a test: what it signs is believed by those who were given its file.

use super::error::{Context, Error};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A certificate with its key, in PEM, and where it lies.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate.
    pub certificate: PathBuf,
    /// Its key, PKCS #8, not encrypted.
    pub key: PathBuf,
    /// Both in one file, the key first: what Kafka takes for a key store.
    pub both: PathBuf,
}

/// See the module. Its files go with it.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one with a key of its own.
    pub fn new() -> Result<Self, Error> {
        let dir = tempfile::Builder::new()
            .prefix("guestkit-ca-")
            .tempdir()
            .context(|| "temporary directory".to_owned())?;
        let mut params = named("guestkit test authority", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.self_signed(&key).map_err(refused)?;
        let authority = Self {
            dir,
            issuer: Issuer::new(params, key),
        };
        write(&authority.file(), &certificate.pem())?;
        Ok(authority)
    }

    /// Its own certificate, in PEM: what clients and servers are told to trust.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for a server on this machine.
    pub fn server(&self) -> Result<Identity, Error> {
        let mut params = named("server", &["localhost", "127.0.0.1"])?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            // A broker is a client of itself.
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue("server", &params)
    }

    /// A certificate for a client of this name.
    pub fn client(&self, name: &str) -> Result<Identity, Error> {
        let mut params = named(name, &[])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, &params)
    }

    fn issue(&self, name: &str, params: &CertificateParams) -> Result<Identity, Error> {
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(refused)?;
        let file = |kind: &str| self.dir.path().join(format!("{name}.{kind}.pem"));
        let identity = Identity {
            certificate: file("certificate"),
            key: file("key"),
            both: file("both"),
        };
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        write(&identity.certificate, &certificate)?;
        write(&identity.key, &key)?;
        write(&identity.both, &format!("{key}{certificate}"))?;
        Ok(identity)
    }
}

fn named(name: &str, hosts: &[&str]) -> Result<CertificateParams, Error> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).map_err(refused)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    fs::write(file, text).context(|| format!("write {}", file.display()))
}

fn refused(error: rcgen::Error) -> Error {
    Error::Answer(format!("make a certificate: {error}"))
}
