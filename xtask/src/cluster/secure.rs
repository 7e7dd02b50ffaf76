//! A broker that lets nobody in unasked: TLS everywhere, SCRAM, client certificates and bearer
//! tokens, and Kafka's own authorizer. The controller's listener alone is plain.

use super::acls::{self, Acl};
use super::certificates::{Authority, Identity};
use super::error::Error;
use super::kafka::KafkaNode;
use super::{free_port, tls};
use crate::clock::Deadline;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// May do everything; the broker itself is it too.
const ADMIN: &str = "admin";

/// A secured broker with users whose password is their name and `-secret`.
pub struct SecureKafka {
    authority: Authority,
    admin: Identity,
    certificates: SocketAddr,
    node: KafkaNode,
}

impl SecureKafka {
    /// Starts one; `users` are known to SCRAM besides the administrator and may do nothing yet.
    pub fn start(users: &[&str]) -> Result<Self, Error> {
        let authority = Authority::new()?;
        let server = authority.server()?;
        let admin = authority.client(ADMIN)?;
        let [sasl, certificates, controller] = [free_port(), free_port(), free_port()];
        let listeners = format!("SASL://127.0.0.1:{sasl},CERT://127.0.0.1:{certificates}");
        let scram = format!(
            "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{ADMIN}\" password=\"{}\";",
            password(ADMIN)
        );
        let bearer = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"admin\";";
        let mut builder = KafkaNode::builder()
            .port(sasl)
            .property(
                "listeners",
                format!("{listeners},CONTROLLER://127.0.0.1:{controller}"),
            )
            .property("advertised.listeners", listeners)
            .property(
                "listener.security.protocol.map",
                "CONTROLLER:PLAINTEXT,SASL:SASL_SSL,CERT:SSL",
            )
            .property(
                "controller.quorum.voters",
                format!("1@127.0.0.1:{controller}"),
            )
            .property("inter.broker.listener.name", "SASL")
            .property("sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-512")
            .property("sasl.enabled.mechanisms", "SCRAM-SHA-512,OAUTHBEARER")
            .property("listener.name.sasl.scram-sha-512.sasl.jaas.config", scram)
            // The validator that Kafka has for tests: it believes unsigned tokens.
            .property("listener.name.sasl.oauthbearer.sasl.jaas.config", bearer)
            .property("ssl.keystore.type", "PEM")
            .property("ssl.keystore.location", server.both.display())
            .property("ssl.truststore.type", "PEM")
            .property("ssl.truststore.location", authority.file().display())
            .property("listener.name.cert.ssl.client.auth", "required")
            .property("ssl.principal.mapping.rules", "RULE:^CN=([^,]+).*$/$1/")
            .property(
                "authorizer.class.name",
                "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            )
            // Who comes in by the controller's plain listener is the broker.
            .property("super.users", format!("User:{ADMIN};User:ANONYMOUS"));
        for user in std::iter::once(&ADMIN).chain(users) {
            builder = builder.scram_user(user, &password(user));
        }
        Ok(Self {
            authority,
            admin,
            certificates: (Ipv4Addr::LOCALHOST, certificates).into(),
            node: builder.start()?,
        })
    }

    /// The broker: to pause, kill and restart.
    #[must_use]
    pub fn node(&self) -> &KafkaNode {
        &self.node
    }

    /// Signs certificates that the broker believes.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where users with a password or a token come in.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        self.node.bootstrap()
    }

    /// Where users with a certificate come in.
    #[must_use]
    pub fn certificate_bootstrap(&self) -> String {
        self.certificates.to_string()
    }

    /// librdkafka's properties for a user with a password, at [`Self::bootstrap`].
    #[must_use]
    pub fn scram(&self, user: &str) -> Vec<(&'static str, String)> {
        vec![
            ("security.protocol", "SASL_SSL".to_owned()),
            ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", password(user)),
            (
                "ssl.ca.location",
                self.authority.file().display().to_string(),
            ),
        ]
    }

    /// librdkafka's properties for a user with an unsigned token, at [`Self::bootstrap`].
    #[must_use]
    pub fn token(&self, user: &str) -> Vec<(&'static str, String)> {
        vec![
            ("security.protocol", "SASL_SSL".to_owned()),
            ("sasl.mechanism", "OAUTHBEARER".to_owned()),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true".to_owned()),
            ("sasl.oauthbearer.config", format!("principal={user}")),
            (
                "ssl.ca.location",
                self.authority.file().display().to_string(),
            ),
        ]
    }

    /// librdkafka's properties for a user with a certificate, at [`Self::certificate_bootstrap`].
    pub fn certificate(&self, user: &str) -> Result<Vec<(&'static str, String)>, Error> {
        let identity = self.authority.client(user)?;
        Ok(vec![
            ("security.protocol", "SSL".to_owned()),
            (
                "ssl.ca.location",
                self.authority.file().display().to_string(),
            ),
            (
                "ssl.certificate.location",
                identity.certificate.display().to_string(),
            ),
            ("ssl.key.location", identity.key.display().to_string()),
        ])
    }

    /// Adds rules; they hold when this returns.
    pub fn allow(&self, rules: &[Acl]) -> Result<(), Error> {
        let mut stream = self.connect()?;
        acls::create(&mut stream, rules)?;
        self.wait(rules, true)
    }

    /// Takes rules away; each must be there.
    pub fn forbid(&self, rules: &[Acl]) -> Result<(), Error> {
        let mut stream = self.connect()?;
        acls::delete(&mut stream, rules)?;
        self.wait(rules, false)
    }

    fn wait(&self, rules: &[Acl], wanted: bool) -> Result<(), Error> {
        let mut stream = self.connect()?;
        let deadline = Deadline::after(Duration::from_secs(30));
        for rule in rules {
            while acls::holds(&mut stream, rule)? != wanted {
                if deadline.passed() {
                    return Err(Error::Answer(format!(
                        "the broker did not learn of {rule:?} in time"
                    )));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<impl std::io::Read + std::io::Write + use<>, Error> {
        tls::connect(self.certificates, &self.authority.file(), &self.admin)
    }
}

/// The password of a user.
#[must_use]
pub fn password(user: &str) -> String {
    format!("{user}-secret")
}

/// One for all tests of a process, with the users `user-00` to `user-39`.
pub fn secure_kafka() -> Result<&'static SecureKafka, Error> {
    static STARTING: Mutex<()> = Mutex::new(());
    static SHARED: OnceLock<SecureKafka> = OnceLock::new();
    let _guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kafka) = SHARED.get() {
        return Ok(kafka);
    }
    let users: Vec<String> = (0..40).map(|number| format!("user-{number:02}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let kafka = SecureKafka::start(&users)?;
    Ok(SHARED.get_or_init(|| kafka))
}
