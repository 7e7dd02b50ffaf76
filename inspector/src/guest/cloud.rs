//! cloud-init: where its data came from; container runtimes: where theirs lies, and how much.

use super::{Scope, clean, ini, yaml};
use crate::error::Result;
use crate::report::{Cloud, CloudInit, ContainerRuntime};

/// Containers and images of one runtime that are counted.
const COUNT_MAX: usize = 100_000;

pub(super) fn read(scope: &mut Scope<'_>) -> Result<Cloud> {
    let mut runtimes = Vec::new();
    runtimes.extend(docker(scope));
    runtimes.extend(podman(scope));
    for (name, program, root) in [
        ("containerd", "/usr/bin/containerd", "/var/lib/containerd"),
        ("cri-o", "/usr/bin/crio", "/var/lib/containers/storage"),
        ("k3s", "/usr/local/bin/k3s", "/var/lib/rancher/k3s"),
        ("kubelet", "/usr/bin/kubelet", "/var/lib/kubelet"),
        ("lxc", "/usr/bin/lxc-start", "/var/lib/lxc"),
    ] {
        if scope.exists(program) {
            runtimes.push(ContainerRuntime {
                name,
                root: scope.exists(root).then(|| root.to_owned()),
                containers: None,
                images: None,
            });
        }
    }
    runtimes.sort_unstable();
    Ok(Cloud {
        cloud_init: cloud_init(scope),
        runtimes,
    })
}

fn cloud_init(scope: &mut Scope<'_>) -> Option<CloudInit> {
    if !scope.exists("/etc/cloud") && !scope.exists("/var/lib/cloud") {
        return None;
    }
    let line = |scope: &mut Scope<'_>, path: &str| {
        let text = scope.text(path)?;
        Some(clean(text.trim())).filter(|line| !line.is_empty())
    };
    let mut found = CloudInit {
        instance_id: line(scope, "/var/lib/cloud/data/instance-id"),
        // "DataSourceNoCloud: DataSourceNoCloud [seed=/dev/sr0]"
        datasource: line(scope, "/var/lib/cloud/instance/datasource"),
        disabled: scope.exists("/etc/cloud/cloud-init.disabled"),
        seeds: Vec::new(),
        datasources: Vec::new(),
    };
    for name in scope.names("/var/lib/cloud/seed") {
        let dir = format!("/var/lib/cloud/seed/{name}");
        if !scope.names(&dir).is_empty() {
            found.seeds.push(clean(&dir));
        }
    }
    // Later files win over earlier ones; cloud.cfg comes first.
    let mut files = vec!["/etc/cloud/cloud.cfg".to_owned()];
    let drop_ins = scope.names("/etc/cloud/cloud.cfg.d");
    files.extend(
        drop_ins
            .iter()
            .filter(|name| name.ends_with(".cfg"))
            .map(|name| format!("/etc/cloud/cloud.cfg.d/{name}")),
    );
    for path in files {
        let text = scope.text(&path).unwrap_or_default();
        // Only this one line is wanted: the rest may use all of YAML.
        let line = text
            .lines()
            .find(|line| line.starts_with("datasource_list:"));
        let names = line.and_then(yaml::parse).and_then(|node| {
            let list = node.get("datasource_list")?.items();
            Some(
                list.iter()
                    .filter_map(|one| Some(clean(one.text()?)))
                    .collect(),
            )
        });
        found.datasources = names.unwrap_or(found.datasources);
    }
    Some(found)
}

fn docker(scope: &mut Scope<'_>) -> Option<ContainerRuntime> {
    let program = ["/usr/bin/dockerd", "/usr/local/bin/dockerd"];
    if !program.iter().any(|path| scope.exists(path)) {
        return None;
    }
    let config = scope.text("/etc/docker/daemon.json").unwrap_or_default();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap_or_default();
    let root = config
        .get("data-root")
        .or_else(|| config.get("graph"))
        .and_then(serde_json::Value::as_str)
        .unwrap_or("/var/lib/docker")
        .to_owned();
    let exists = scope.exists(&root);
    let count = |scope: &mut Scope<'_>, dir: &str| scope.names(dir).len().min(COUNT_MAX);
    let containers = count(scope, &format!("{root}/containers"));
    let mut images = 0_usize;
    for driver in scope.names(&format!("{root}/image")).into_iter().take(16) {
        let dir = format!("{root}/image/{driver}/imagedb/content/sha256");
        images = images.saturating_add(count(scope, &dir));
    }
    Some(ContainerRuntime {
        name: "docker",
        root: exists.then(|| clean(&root)),
        containers: exists.then_some(containers),
        images: exists.then_some(images),
    })
}

fn podman(scope: &mut Scope<'_>) -> Option<ContainerRuntime> {
    if !scope.exists("/usr/bin/podman") {
        return None;
    }
    let config = scope
        .text("/etc/containers/storage.conf")
        .unwrap_or_default();
    let root = ini::entries(&config)
        .into_iter()
        .find(|entry| entry.section == "storage" && entry.key == "graphroot")
        .map(|entry| entry.value.trim_matches('"').to_owned())
        .filter(|root| !root.is_empty())
        .unwrap_or_else(|| "/var/lib/containers/storage".to_owned());
    let exists = scope.exists(&root);
    let mut rows = |name: &str| -> Option<usize> {
        let text = scope.text(&format!("{root}/{name}"))?;
        let list: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(list.as_array()?.len())
    };
    Some(ContainerRuntime {
        name: "podman",
        containers: rows("overlay-containers/containers.json"),
        images: rows("overlay-images/images.json"),
        root: exists.then(|| clean(&root)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::with_scope;

    #[test]
    fn seeds_and_data_roots_are_found() {
        let tree = MemoryTree::of(&[
            ("/etc/cloud/cloud.cfg", "a: &x b\ndatasource_list: [Ec2]\n"),
            (
                "/etc/cloud/cloud.cfg.d/90.cfg",
                "datasource_list: [ NoCloud, None ]\n",
            ),
            ("/var/lib/cloud/data/instance-id", "i-0123\n"),
            ("/var/lib/cloud/seed/nocloud/meta-data", ""),
            ("/usr/bin/dockerd", ""),
            (
                "/etc/docker/daemon.json",
                "{\"data-root\": \"/srv/docker\"}",
            ),
            ("/srv/docker/containers/abc/config.v2.json", ""),
            ("/srv/docker/image/overlay2/imagedb/content/sha256/d", ""),
            ("/usr/bin/podman", ""),
        ]);
        let found = with_scope(tree, |scope| read(scope).unwrap());
        let init = found.cloud_init.unwrap();
        assert_eq!(init.instance_id.as_deref(), Some("i-0123"));
        assert_eq!(init.datasources, ["NoCloud", "None"]);
        assert_eq!(init.seeds, ["/var/lib/cloud/seed/nocloud"]);
        let docker = &found.runtimes[0];
        assert_eq!(docker.root.as_deref(), Some("/srv/docker"));
        assert_eq!((docker.containers, docker.images), (Some(1), Some(1)));
        // Nothing is known of podman's: that is not the same as none.
        assert_eq!(found.runtimes[1].containers, None);
    }
}
