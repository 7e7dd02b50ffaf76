//! The Java machine that Kafka and the registry run on.

use super::error::Error;
use super::process;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Kafka 4 asks for this Java or a newer one.
const OLDEST: u32 = 17;
const PACKAGES: &str = "openjdk-17-jre-headless maven";

/// Memory of the Java heap in MiB.
pub type Heap = u32;

/// What the virtual machine is tuned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jvm {
    /// Starts fast and stays small; half the peak speed.
    #[default]
    Small,
    /// The default compiler and collector: for benches.
    Throughput,
}

impl Jvm {
    pub(crate) fn flags(self, heap_mb: Heap) -> Vec<String> {
        let mut flags = vec![format!("-Xmx{heap_mb}m"), "-Xshare:auto".to_owned()];
        if self == Self::Small {
            flags.push("-XX:TieredStopAtLevel=1".to_owned());
            flags.push("-XX:+UseSerialGC".to_owned());
        }
        flags
    }
}

/// `$JAVA_HOME/bin/java`, else the one on `PATH`.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("JAVA_HOME")
        .map(|home| PathBuf::from(home).join("bin/java"))
        .filter(|java| java.is_file())
        .unwrap_or_else(|| PathBuf::from("java"))
}

/// Java is there and new enough, asked once a process.
pub(crate) fn check() -> Result<(), Error> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let output = Command::new(program())
                .arg("-version")
                .output()
                .map_err(|error| format!("{}: {error}", program().display()))?;
            // `openjdk version "17.0.15" 2025-04-15`, on stderr.
            let text = String::from_utf8_lossy(&output.stderr);
            match major(&text) {
                Some(version) if version >= OLDEST => Ok(()),
                Some(version) => Err(format!("Java {version} is older than {OLDEST}")),
                None => Err(format!("no version in {text:?}")),
            }
        })
        .clone()
        .map_err(|reason| Error::Prerequisite {
            program: "java",
            reason,
            packages: PACKAGES,
        })
}

/// Maven, which brings the jars.
pub(crate) fn check_maven() -> Result<(), Error> {
    if process::on_path("mvn") {
        return Ok(());
    }
    Err(Error::Prerequisite {
        program: "mvn",
        reason: "not found on PATH".to_owned(),
        packages: PACKAGES,
    })
}

fn major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    version.split(['.', '-', '+']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(major("openjdk version \"26\" 2026-03-17"), Some(26));
        assert_eq!(major("java version \"1.8.0_292\""), Some(1));
        assert_eq!(major("nothing"), None);
    }
}
