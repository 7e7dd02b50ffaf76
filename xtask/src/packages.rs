//! Packages for Node and Java, in exact versions, installed once. [`crate::python`] has those for Python.

use crate::steps::run_within;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use xtask::cluster::process;
use xtask::workspace::{dev_dir, root};

/// Longest time for packages from an index and a first build.
pub(crate) const INSTALL: Duration = Duration::from_secs(900);
/// Newer ones need a newer Maven than Debian 12 has.
const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

/// `npm ci`, when the lock file is another than last time. No package's own scripts run.
pub(crate) fn npm_ci(folder: &Path) -> Result<()> {
    need("npm", "apt-get install -y nodejs npm")?;
    let lock = folder.join("package-lock.json");
    let installed = folder.join("node_modules/.installed.json");
    if is_installed(&installed, &lock)? {
        return Ok(());
    }
    let mut install = Command::new("npm");
    install
        .args(["ci", "--ignore-scripts", "--no-fund", "--no-audit"])
        .args(["--loglevel", "error"])
        .current_dir(folder);
    run_within(&mut install, INSTALL)?;
    // Last, so that an installation that was broken off is made again.
    fs::copy(lock, installed)?;
    Ok(())
}

/// The jars of a pom's runtime dependencies, from Maven Central.
pub(crate) fn maven_libraries(name: &str, pom: &Path) -> Result<PathBuf> {
    need("mvn", "apt-get install -y maven")?;
    let folder = dev_dir().join(name);
    let (libraries, installed) = (folder.join("libs"), folder.join("installed.xml"));
    if is_installed(&installed, pom)? {
        return Ok(libraries);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    // Maven remembers beside a pom what it copied, and would copy nothing again.
    let own = folder.join("pom.xml");
    fs::copy(pom, &own).with_context(|| format!("copy {}", pom.display()))?;
    let mut copy = Command::new("mvn");
    copy.args(["-q", "-B", "-gs"])
        .arg(root().join("interop/sinks/maven-central.xml"))
        .arg("-f")
        .arg(&own)
        .arg(MAVEN_COPY)
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", libraries.display()));
    run_within(&mut copy, INSTALL)?;
    // Last, so that an installation that was broken off is made again.
    fs::copy(pom, installed)?;
    Ok(libraries)
}

/// Whether a program is there, and if not, what to do.
pub(crate) fn need(program: &str, remedy: &str) -> Result<()> {
    if process::on_path(program) {
        return Ok(());
    }
    bail!("{program} is needed: {remedy}")
}

/// Whether the copy of a list of packages that an installation left is the list as it is now.
fn is_installed(copy: &Path, file: &Path) -> Result<bool> {
    let wanted = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(fs::read(copy).is_ok_and(|text| text == wanted))
}
