//! How to come into a schema registry: user, password, and whom to believe that he is the registry.

use crate::fault::Fault;
use crate::secret::Secret;
use percent_encoding::percent_decode_str;
use reqwest::{Certificate, ClientBuilder, Url};
use std::path::{Path, PathBuf};

/// See the module. The default is a registry that lets everybody in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryAccess {
    /// User of HTTP basic authentication.
    pub user: Option<String>,
    /// His password.
    pub password: Option<Secret>,
    /// PEM file with the certificates of the authorities to trust; without it, those of the system.
    pub ca: Option<PathBuf>,
}

impl RegistryAccess {
    /// Puts together what a configuration says. A secret may stand in a file.
    ///
    /// # Errors
    /// [`Fault::Config`] when parts contradict each other or a file cannot be read.
    pub fn new(
        user: Option<String>,
        password: Option<Secret>,
        password_file: Option<&Path>,
        ca: Option<PathBuf>,
    ) -> Result<Self, Fault> {
        let password = match (password, password_file) {
            (Some(_), Some(_)) => {
                return Err(Fault::Config(
                    "schema-registry-password and schema-registry-password-file exclude each other"
                        .to_owned(),
                ));
            }
            (password, None) => password,
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    Fault::Config(format!(
                        "schema-registry-password-file: cannot read {}: {error}",
                        file.display()
                    ))
                })?;
                // Editors and `kubectl create secret` leave a line break that no secret has.
                Some(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
        };
        if password.is_some() && user.is_none() {
            return Err(Fault::Config(
                "schema-registry-password needs schema-registry-user".to_owned(),
            ));
        }
        Ok(Self { user, password, ca })
    }

    /// Takes user and password out of a URL, so that nothing that prints the URL prints them.
    pub(crate) fn take_from(&self, url: &mut Url) -> Result<Self, Fault> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let mut access = self.clone();
        if url.username().is_empty() && url.password().is_none() {
            return Ok(access);
        }
        if access.user.is_some() {
            return Err(Fault::Config(
                "the schema registry's user stands in its URL and in schema-registry-user: give one of them"
                    .to_owned(),
            ));
        }
        access.user = Some(decoded(url.username()));
        access.password = url.password().map(|text| Secret::new(decoded(text)));
        let taken = url.set_username("").and_then(|()| url.set_password(None));
        taken.map_err(|()| Fault::Config("schema registry URL: it has no host".to_owned()))?;
        Ok(access)
    }

    /// A client that trusts whom it should.
    pub(crate) fn client(&self) -> Result<ClientBuilder, Fault> {
        let builder = reqwest::Client::builder();
        let Some(file) = &self.ca else {
            return Ok(builder);
        };
        let wrong = |error: &dyn std::fmt::Display| {
            Fault::Config(format!("schema-registry-ca {}: {error}", file.display()))
        };
        let text = std::fs::read(file).map_err(|error| wrong(&error))?;
        let certificates = Certificate::from_pem_bundle(&text).map_err(|error| wrong(&error))?;
        if certificates.is_empty() {
            return Err(wrong(&"there is no certificate in it"));
        }
        Ok(builder.tls_certs_only(certificates))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_leave_the_url() {
        let mut url = Url::parse("https://me:s%40cret@registry:1/apis").unwrap();
        let access = RegistryAccess::default().take_from(&mut url).unwrap();
        assert_eq!(url.as_str(), "https://registry:1/apis");
        assert_eq!(access.user.as_deref(), Some("me"));
        assert_eq!(access.password.as_ref().unwrap().reveal(), "s@cret");
        assert!(!format!("{access:?}").contains("s@cret"));
        // Two users are one too many.
        let mut url = Url::parse("https://me@registry").unwrap();
        assert!(access.take_from(&mut url).is_err());
    }

    #[test]
    fn a_password_comes_from_one_place_and_has_a_user() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "hush\r\n").unwrap();
        let user = || Some("me".to_owned());
        let access = RegistryAccess::new(user(), None, Some(&file), None).unwrap();
        assert_eq!(access.password.unwrap().reveal(), "hush");
        let both = RegistryAccess::new(user(), Some(Secret::new("x")), Some(&file), None);
        assert!(both.is_err());
        assert!(RegistryAccess::new(None, Some(Secret::new("x")), None, None).is_err());
        let gone = directory.path().join("gone");
        let error = RegistryAccess::new(user(), None, Some(&gone), None).unwrap_err();
        assert!(error.to_string().contains("password-file"), "{error}");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        for text in ["", "no certificate"] {
            std::fs::write(&file, text).unwrap();
            let access = RegistryAccess {
                ca: Some(file.clone()),
                ..RegistryAccess::default()
            };
            let error = access.client().unwrap_err().to_string();
            assert!(error.contains("schema-registry-ca"), "{error}");
        }
    }
}
