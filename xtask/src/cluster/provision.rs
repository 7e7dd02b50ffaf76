//! Apache Kafka and the Apicurio registry from Maven Central, once a machine.
//!
//! A download lands in a temporary directory and is renamed when it is whole; a file lock keeps
//! parallel tests from doing the same work.

use super::error::{Context, Error};
use super::java;
use crate::workspace;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub const KAFKA_VERSION: &str = "4.3.1";
pub const REGISTRY_VERSION: &str = "2.6.13.Final";

/// Newer ones need a newer Maven than Debian 12 has.
const MAVEN_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1";
const KAFKA_POM: &str = include_str!("files/kafka-pom.xml");
const REGISTRY_POM: &str = include_str!("files/registry-pom.xml");
const LOG4J: &str = include_str!("files/log4j2.properties");
const TRIES: u32 = 3;

/// Any 16 bytes in URL-safe base64; one for all, so that a formatted directory can be copied.
pub(crate) const CLUSTER_ID: &str = "Z3Vlc3RraXQtZGV2LWthZg";

/// Where the parts lie.
#[derive(Clone, Debug)]
pub struct Provisioned {
    pub kafka_libs: PathBuf,
    /// A log directory as `StorageTool format` leaves it for a single node: saves a second a start.
    pub kafka_formatted: PathBuf,
    pub log4j: PathBuf,
    pub registry_jar: PathBuf,
}

/// Java is there, and Maven if something has to be fetched.
pub fn check_prerequisites() -> Result<(), Error> {
    java::check()?;
    let (kafka, registry) = places();
    if kafka.is_dir() && registry.is_dir() {
        return Ok(());
    }
    java::check_maven()
}

/// Makes sure that Kafka and the registry are on this machine. Quick when they are.
pub fn provision() -> Result<Provisioned, Error> {
    check_prerequisites()?;
    let dev = workspace::dev_dir();
    let (kafka, registry) = places();
    if !kafka.is_dir() || !registry.is_dir() {
        fs::create_dir_all(&dev).context(|| format!("create {}", dev.display()))?;
        let lock = dev.join("provision.lock");
        let lock = File::create(&lock).context(|| format!("create {}", lock.display()))?;
        lock.lock().context(|| format!("lock {}", dev.display()))?;
        once(&kafka, fetch_kafka)?;
        once(&registry, fetch_registry)?;
    }
    Ok(Provisioned {
        kafka_libs: kafka.join("libs"),
        kafka_formatted: kafka.join("formatted"),
        log4j: kafka.join("log4j2.properties"),
        registry_jar: registry.join(format!(
            "apicurio-registry-app-{REGISTRY_VERSION}-runner.jar"
        )),
    })
}

fn places() -> (PathBuf, PathBuf) {
    let dev = workspace::dev_dir();
    let kafka = dev.join("kafka").join(KAFKA_VERSION);
    (kafka, dev.join("apicurio").join(REGISTRY_VERSION))
}

/// Fills a directory that appears whole or not at all.
fn once(place: &Path, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    if place.is_dir() {
        return Ok(());
    }
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).context(|| format!("create {}", parent.display()))?;
    let temporary = tempfile::Builder::new()
        .prefix("download-")
        .tempdir_in(parent)
        .context(|| format!("temporary directory in {}", parent.display()))?;
    fill(temporary.path())?;
    fs::rename(temporary.keep(), place).context(|| format!("rename to {}", place.display()))
}

fn fetch_kafka(place: &Path) -> Result<(), Error> {
    let pom = KAFKA_POM.replace("@KAFKA_VERSION@", KAFKA_VERSION);
    let what = format!("Apache Kafka {KAFKA_VERSION}");
    let libs = place.join("libs");
    maven(&what, &pom, place, &libs)?;
    let log4j = place.join("log4j2.properties");
    fs::write(&log4j, LOG4J).context(|| format!("write {}", log4j.display()))?;

    let formatted = place.join("formatted");
    let properties = place.join("format.properties");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\nlisteners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2\n\
         controller.listener.names=CONTROLLER\ncontroller.quorum.voters=1@127.0.0.1:2\nlog.dirs={}\n",
        formatted.display()
    );
    fs::write(&properties, text).context(|| format!("write {}", properties.display()))?;
    format_storage(&libs, &log4j, &properties, &[])
}

/// What Kafka asks for before its first start in a directory; `scram` are users with their passwords.
pub(crate) fn format_storage(
    libs: &Path,
    log4j: &Path,
    properties: &Path,
    scram: &[(String, String)],
) -> Result<(), Error> {
    let scram = scram.iter().flat_map(|(name, password)| {
        let user = format!("SCRAM-SHA-512=[name={name},password={password}]");
        ["--add-scram".to_owned(), user]
    });
    let output = Command::new(java::program())
        .args(super::Jvm::Small.flags(128))
        .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()))
        .arg("-cp")
        .arg(libs.join("*"))
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(properties)
        .args(scram)
        .stdin(Stdio::null())
        .output()
        .context(|| "start kafka.tools.StorageTool".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Answer(format!(
        "kafka.tools.StorageTool: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )))
}

fn fetch_registry(place: &Path) -> Result<(), Error> {
    let pom = REGISTRY_POM.replace("@REGISTRY_VERSION@", REGISTRY_VERSION);
    let what = format!("Apicurio registry {REGISTRY_VERSION}");
    let download = tempfile::tempdir().context(|| "temporary directory".to_owned())?;
    maven(&what, &pom, place, download.path())?;
    let archive = download.path().join(format!(
        "apicurio-registry-app-{REGISTRY_VERSION}-all.tar.gz"
    ));
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(&archive)
        .arg("-C")
        .arg(place)
        .stdin(Stdio::null())
        .status()
        .context(|| "start tar".to_owned())?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Answer(format!(
        "tar -xzf {}: {status}",
        archive.display()
    )))
}

/// Copies the runtime dependencies of a pom to `output`. The pom lies in `place`, which is new at
/// every try: Maven remembers beside a pom what it copied, and would copy nothing again.
fn maven(what: &str, pom: &str, place: &Path, output: &Path) -> Result<(), Error> {
    let pom_file = place.join("pom.xml");
    fs::write(&pom_file, pom).context(|| format!("write {}", pom_file.display()))?;
    let log_file = workspace::dev_dir().join("provision.log");
    eprintln!("xtask: {what}: fetching it from Maven Central");
    for attempt in 1..=TRIES {
        let log = File::create(&log_file).context(|| format!("create {}", log_file.display()))?;
        let stderr = log
            .try_clone()
            .context(|| format!("open {}", log_file.display()))?;
        let status = Command::new("mvn")
            // Quiet, no questions, wrong checksums are errors.
            .args(["-q", "-B", "-C", "-Dstyle.color=never", "-f"])
            .arg(&pom_file)
            .arg(format!("{MAVEN_PLUGIN}:copy-dependencies"))
            .arg("-DincludeScope=runtime")
            .arg(format!("-DoutputDirectory={}", output.display()))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            .status()
            .context(|| "start mvn".to_owned())?;
        if status.success() {
            return Ok(());
        }
        if attempt < TRIES {
            std::thread::sleep(Duration::from_secs(2 * u64::from(attempt)));
        }
    }
    Err(Error::Download {
        what: what.to_owned(),
        tries: TRIES,
        tail: super::jvm_process::tail(&log_file, 0),
        log: log_file,
    })
}
