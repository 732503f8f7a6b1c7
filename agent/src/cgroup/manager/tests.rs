use super::*;
use std::fs;
use std::process::{Child, Command};

const UID: &str = "0a1b2c3d-0000-4000-8000-00000000000f";

fn pod(manager: &Manager, resources: serde_json::Value) -> PodCgroup {
    let pod = serde_json::json!({"metadata": {"uid": UID}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
    super::super::plan(&serde_json::from_value(pod).unwrap(), manager.node()).unwrap()
}

fn burstable(manager: &Manager) -> PodCgroup {
    pod(manager, serde_json::json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}))
}

/// Files that the kernel would make, so that plain folders can stand in for a hierarchy.
fn fake(root: &Path, folder: &str, files: &[(&str, &str)]) {
    let folder = root.join(folder);
    fs::create_dir_all(&folder).unwrap();
    for (name, value) in files {
        fs::write(folder.join(name), value).unwrap();
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

#[tokio::test]
async fn v1_writes_each_limit_to_its_controller() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeCgroups { pod_pids_limit: Some(100), ..NodeCgroups::default() };
    for controllers in ["cpu,cpuacct", "memory", "pids", "systemd"] {
        fake(dir.path(), controllers, &[("cgroup.procs", "")]);
    }
    std::os::unix::fs::symlink("cpu,cpuacct", dir.path().join("cpu")).unwrap();
    fs::create_dir(dir.path().join("not-a-hierarchy")).unwrap();
    let manager = Manager::at(dir.path(), node).unwrap();
    assert_eq!(manager.version(), Version::V1);
    let pod = burstable(&manager);
    let leaf = format!("kubepods/burstable/pod{UID}");
    fake(dir.path(), &format!("cpu,cpuacct/{leaf}"), &[("cpu.shares", ""), ("cpu.cfs_quota_us", ""), ("cpu.cfs_period_us", "")]);
    fake(dir.path(), &format!("memory/{leaf}"), &[("memory.limit_in_bytes", "")]);
    fake(dir.path(), &format!("pids/{leaf}"), &[("pids.max", "max")]);
    manager.create(&pod).await.unwrap();
    manager.create(&pod).await.unwrap();
    let value = |controller: &str, file: &str| read(dir.path().join(controller).join(&leaf).join(file));
    assert_eq!(value("cpu,cpuacct", "cpu.shares"), "102");
    assert_eq!(value("cpu,cpuacct", "cpu.cfs_quota_us"), "50000");
    assert_eq!(value("cpu,cpuacct", "cpu.cfs_period_us"), "100000");
    assert_eq!(value("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(value("pids", "pids.max"), "100");
    assert!(dir.path().join("systemd").join(&leaf).is_dir());
    assert!(!dir.path().join("not-a-hierarchy/kubepods").exists());
    assert_eq!(manager.list().await.unwrap().iter().map(|p| p.uid.as_str()).collect::<Vec<_>>(), [UID]);
}

#[tokio::test]
async fn a_new_cpuset_gets_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    fake(dir.path(), "cpuset", &[("cgroup.procs", ""), ("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")]);
    let leaf = format!("cpuset/kubepods/burstable/pod{UID}");
    for folder in ["cpuset/kubepods", "cpuset/kubepods/burstable", &leaf] {
        fake(dir.path(), folder, &[("cpuset.cpus", "\n"), ("cpuset.mems", "\n")]);
    }
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    manager.create(&burstable(&manager)).await.unwrap();
    assert_eq!(read(dir.path().join(&leaf).join("cpuset.cpus")), "0-3");
    assert_eq!(read(dir.path().join(&leaf).join("cpuset.mems")), "0");
}

#[tokio::test]
async fn v2_enables_controllers_on_the_way_and_writes_its_own_files() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = format!("kubepods/burstable/pod{UID}");
    for folder in ["", "kubepods", "kubepods/burstable", &leaf] {
        fake(dir.path(), folder, &[("cgroup.controllers", "cpu memory pids rdma\n"), ("cgroup.subtree_control", "cpu memory\n")]);
    }
    fake(dir.path(), &leaf, &[("cpu.weight", "100"), ("cpu.max", "max 100000"), ("memory.max", "max"), ("pids.max", "max")]);
    let manager = Manager::at(dir.path(), NodeCgroups { pod_pids_limit: Some(7), ..NodeCgroups::default() }).unwrap();
    assert_eq!(manager.version(), Version::V2);
    manager.create(&burstable(&manager)).await.unwrap();
    for folder in ["", "kubepods", "kubepods/burstable"] {
        assert_eq!(read(dir.path().join(folder).join("cgroup.subtree_control")), "+pids", "{folder}");
    }
    assert_eq!(
        read(dir.path().join(&leaf).join("cgroup.subtree_control")),
        "cpu memory",
        "the pod's own children are the runtime's"
    );
    let value = |file: &str| read(dir.path().join(&leaf).join(file));
    assert_eq!(value("cpu.weight"), cpu_weight(102).to_string());
    assert_eq!(value("cpu.max"), "50000 100000");
    assert_eq!(value("memory.max"), (64 << 20).to_string());
    assert_eq!(value("pids.max"), "7");
}

#[tokio::test]
async fn only_pods_cgroups_in_their_place_are_touched() {
    let dir = tempfile::tempdir().unwrap();
    fake(dir.path(), "memory", &[("cgroup.procs", "")]);
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    let right = burstable(&manager);
    for path in ["", "kubepods", "kubepods/burstable", "system.slice", "kubepods/burstable/other", "kubepods/burstable/podx"] {
        let wrong = PodCgroup { path: path.into(), ..right.clone() };
        assert!(matches!(manager.remove(&wrong).await, Err(Error::Uid(_))), "{path}");
        assert!(matches!(manager.create(&wrong).await, Err(Error::Uid(_))), "{path}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Manager::at(empty.path(), NodeCgroups::default()), Err(Error::NoHierarchy(_))));
    let node = NodeCgroups { root: "/a/../b".into(), ..NodeCgroups::default() };
    assert!(matches!(Manager::at(dir.path(), node), Err(Error::Root(_))));
}

#[tokio::test]
async fn slices_are_listed_by_uid() {
    let dir = tempfile::tempdir().unwrap();
    fake(dir.path(), "memory", &[("cgroup.procs", "")]);
    let node = NodeCgroups { driver: Driver::Systemd, ..NodeCgroups::default() };
    let manager = Manager::at(dir.path(), node).unwrap();
    manager.ensure_roots().await.unwrap();
    let pods = [
        burstable(&manager),
        pod(&manager, serde_json::json!({})),
        pod(&manager, serde_json::json!({"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": 1, "memory": "1Gi"}})),
    ];
    for pod in &pods {
        manager.create(pod).await.unwrap();
    }
    let found = manager.list().await.unwrap();
    let mut wanted = pods.map(|pod| PodCgroup { limits: Limits::default(), ..pod });
    wanted.sort_by_key(|p| p.qos);
    assert_eq!(found, wanted);
}

/// A cgroup of this test's own in the host's hierarchies, removed at the end even of a failed test.
struct Own {
    manager: Manager,
    mounts: Vec<PathBuf>,
    root: String,
}

impl Own {
    fn new(mount: &str, name: &str) -> Option<Own> {
        let root = format!("ferrolet-test-{name}-{}", std::process::id());
        let node = NodeCgroups { root: format!("/{root}"), pod_pids_limit: Some(50), ..NodeCgroups::default() };
        let skip = |why: &dyn std::fmt::Display| eprintln!("skipped: {name}: {why}");
        let manager = Manager::at(Path::new(mount), node).map_err(|e| skip(&e)).ok()?;
        let mounts: Vec<PathBuf> = match manager.version() {
            Version::V2 => vec![mount.into()],
            Version::V1 => {
                fs::read_dir(mount).ok()?.flatten().map(|e| e.path()).filter(|p| p.join("cgroup.procs").exists()).collect()
            }
        };
        let probe = mounts.first()?.join(&root);
        fs::create_dir(&probe).map_err(|e| skip(&e)).ok()?;
        Some(Own { manager, mounts, root })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for mount in &self.mounts {
            let top = mount.join(&self.root);
            for folder in ["kubepods/burstable", "kubepods/besteffort", "kubepods", ""] {
                let _ = fs::remove_dir(top.join(folder));
            }
        }
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

async fn lives_and_dies(own: &Own) {
    let manager = &own.manager;
    manager.ensure_roots().await.unwrap();
    manager.ensure_roots().await.unwrap();
    let pod = burstable(manager);
    manager.create(&pod).await.unwrap();
    manager.create(&pod).await.unwrap();
    assert_eq!(manager.list().await.unwrap().len(), 1);
    // A container below, with a process in every hierarchy.
    let mut child = sleeper();
    for mount in &own.mounts {
        let container = mount.join(&pod.path).join("container");
        manager.inner.hierarchies.iter().find(|h| h.children(&pod.path).is_ok()).unwrap();
        fs::create_dir(&container).unwrap();
        if container.join("cpuset.cpus").exists() && mount.ends_with("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(container.join(file), read(mount.join(&pod.path).join(file))).unwrap();
            }
        }
        fs::write(container.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    let removed = manager.remove(&pod);
    let reaped = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let (removed, status) = tokio::join!(removed, reaped);
    removed.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status.unwrap()), Some(9));
    assert!(manager.list().await.unwrap().is_empty());
    manager.remove(&pod).await.unwrap();
    for mount in &own.mounts {
        assert!(!mount.join(&pod.path).exists());
        assert!(mount.join(&own.root).join("kubepods/burstable").exists(), "class cgroups stay");
    }
}

#[tokio::test]
async fn on_this_host_a_pods_cgroup_lives_and_dies() {
    let Some(own) = Own::new("/sys/fs/cgroup", "host") else { return };
    lives_and_dies(&own).await;
    let pod = burstable(&own.manager);
    own.manager.create(&pod).await.unwrap();
    for mount in &own.mounts {
        let leaf = mount.join(&pod.path);
        for (file, value) in [
            ("cpu.shares", "102".to_owned()),
            ("cpu.cfs_quota_us", "50000".to_owned()),
            ("memory.limit_in_bytes", (64 << 20).to_string()),
            ("pids.max", "50".to_owned()),
            ("cpu.weight", cpu_weight(102).to_string()),
            ("cpu.max", "50000 100000".to_owned()),
            ("memory.max", (64 << 20).to_string()),
        ] {
            if leaf.join(file).exists() {
                assert_eq!(read(leaf.join(file)), value, "{}", leaf.join(file).display());
            }
        }
    }
    own.manager.remove(&pod).await.unwrap();
}

#[tokio::test]
async fn on_a_unified_hierarchy_a_pods_cgroup_lives_and_dies() {
    // Hosts with v1 controllers often have an empty v2 tree beside them.
    let Some(own) = Own::new("/sys/fs/cgroup/unified", "unified") else { return };
    assert_eq!(own.manager.version(), Version::V2);
    lives_and_dies(&own).await;
    let huge = pod(&own.manager, serde_json::json!({"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1"}}));
    own.manager.create(&huge).await.unwrap();
    let file = own.mounts[0].join(&huge.path).join("hugetlb.2MB.max");
    if file.exists() {
        assert_eq!(read(&file), (4 << 20).to_string(), "by the kernel");
    }
    own.manager.remove(&huge).await.unwrap();
}

fn shares(burstable_cpu_shares: u64) -> Weights {
    Weights { burstable_cpu_shares, ..Weights::default() }
}

#[tokio::test]
async fn what_is_kept_for_pods_is_kept_for_those_around_them() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["", "kubepods", "kubepods/burstable"] {
        fake(dir.path(), folder, &[("cgroup.controllers", "memory\n"), ("cgroup.subtree_control", "memory\n")]);
        fake(dir.path(), folder, &[("memory.min", "0"), ("memory.low", "0")]);
    }
    let weights = Weights { burstable_cpu_shares: 2, burstable_memory: 300, guaranteed_memory: 500 };
    let value = |file: &str| read(dir.path().join("kubepods").join(file));
    let plain = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    plain.weigh(weights).await.unwrap();
    assert_eq!((value("memory.min"), value("burstable/memory.low")), ("0".into(), "0".into()));
    let manager = Manager::at(dir.path(), NodeCgroups { memory_qos: true, ..NodeCgroups::default() }).unwrap();
    manager.weigh(weights).await.unwrap();
    assert_eq!((value("memory.min"), value("burstable/memory.low")), ("800".into(), "300".into()));
    manager.weigh(shares(2)).await.unwrap();
    assert_eq!((value("memory.min"), value("burstable/memory.low")), ("0".into(), "0".into()));
}

#[tokio::test]
async fn a_class_has_a_weight_and_swap_is_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    for controller in ["cpu", "memory"] {
        fake(dir.path(), controller, &[("cgroup.procs", "")]);
    }
    fake(dir.path(), "cpu/kubepods/burstable", &[("cpu.shares", "1024")]);
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    manager.weigh(shares(307)).await.unwrap();
    assert_eq!(read(dir.path().join("cpu/kubepods/burstable/cpu.shares")), "307");
    assert!(!manager.bounds_swap().await);
    fs::write(dir.path().join("memory/memory.memsw.limit_in_bytes"), "").unwrap();
    assert!(manager.bounds_swap().await);

    let dir = tempfile::tempdir().unwrap();
    for folder in ["", "kubepods", "kubepods/burstable"] {
        fake(dir.path(), folder, &[("cgroup.controllers", "cpu memory\n"), ("cgroup.subtree_control", "cpu memory\n")]);
    }
    fake(dir.path(), "kubepods/burstable", &[("cpu.weight", "100")]);
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    manager.weigh(shares(1024)).await.unwrap();
    assert_eq!(read(dir.path().join("kubepods/burstable/cpu.weight")), "100");
    manager.weigh(shares(2)).await.unwrap();
    assert_eq!(read(dir.path().join("kubepods/burstable/cpu.weight")), "1");
    assert!(!manager.bounds_swap().await);
    fake(dir.path(), "kubepods", &[("memory.swap.max", "max")]);
    assert!(manager.bounds_swap().await);
}

#[tokio::test]
async fn on_this_host_all_pods_together_are_limited_but_what_they_use_is_not_cut_off() {
    let Some(own) = Own::new("/sys/fs/cgroup", "allocatable") else { return };
    if own.manager.version() == Version::V2 {
        return; // `v2_memory_in_use_is_an_error` on files.
    }
    let limits = Limits { cpu_shares: Some(3072), memory_bytes: Some(1 << 30), pids: Some(1000), ..Limits::default() };
    own.manager.limit_pods(limits.clone()).await.unwrap();
    own.manager.limit_pods(limits).await.unwrap();
    let kubepods = |controller: &str, file: &str| {
        read(Path::new("/sys/fs/cgroup").join(controller).join(&own.root).join("kubepods").join(file))
    };
    assert_eq!(kubepods("cpu", "cpu.shares"), "3072");
    assert_eq!(kubepods("memory", "memory.limit_in_bytes"), (1 << 30).to_string());
    assert_eq!(kubepods("pids", "pids.max"), "1000");

    let program = "read go; x=$(head -c 8388608 /dev/zero | tr '\\0' a); read stop";
    let mut child = Command::new("sh").args(["-c", program]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let memory = Path::new("/sys/fs/cgroup/memory").join(&own.root).join("kubepods");
    fs::write(memory.join("cgroup.procs"), child.id().to_string()).unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"go\n").unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while read(memory.join("memory.usage_in_bytes")).parse::<u64>().unwrap() < 8 << 20 {
        assert!(std::time::Instant::now() < deadline, "the shell never used its memory");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let tight = Limits { memory_bytes: Some(2 << 20), ..Limits::default() };
    assert!(matches!(own.manager.limit_pods(tight).await, Err(Error::Io { op: "write", .. })));
    assert!(child.try_wait().unwrap().is_none(), "it lives on");
    child.kill().unwrap();
    child.wait().unwrap();
    while !read(memory.join("cgroup.procs")).is_empty() {
        assert!(std::time::Instant::now() < deadline, "it is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn v2_memory_in_use_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["", "kubepods"] {
        fake(dir.path(), folder, &[("cgroup.controllers", "memory\n"), ("cgroup.subtree_control", "memory\n")]);
    }
    let stat = "anon 1000\ninactive_file 2000\nactive_file 500\n";
    fake(dir.path(), "kubepods", &[("memory.max", "max"), ("memory.current", "5000\n"), ("memory.stat", stat)]);
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    let limit = |bytes| Limits { memory_bytes: Some(bytes), ..Limits::default() };
    assert!(matches!(manager.limit_pods(limit(2400)).await, Err(Error::InUse { used: 2500, limit: 2400, .. })));
    assert_eq!(read(dir.path().join("kubepods/memory.max")), "max");
    manager.limit_pods(limit(2600)).await.unwrap();
    assert_eq!(read(dir.path().join("kubepods/memory.max")), "2600");
}

#[tokio::test]
async fn cgroups_of_others_are_limited_but_never_made() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["", "a", "bare"] {
        let controllers = if folder == "bare" { "cpu\n" } else { "cpu memory\n" };
        fake(dir.path(), folder, &[("cgroup.controllers", controllers), ("cgroup.subtree_control", controllers)]);
    }
    fake(dir.path(), "a", &[("memory.max", "max"), ("memory.min", "0"), ("cpu.weight", "100")]);
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    let limits = Limits { memory_bytes: Some(1 << 20), memory_min: Some(1 << 20), cpu_shares: Some(2), ..Limits::default() };
    manager.limit_existing("/a", limits.clone()).await.unwrap();
    let value = |file: &str| read(dir.path().join("a").join(file));
    assert_eq!((value("memory.max"), value("memory.min"), value("cpu.weight")), ("1048576".into(), "1048576".into(), "1".into()));
    let without = manager.limit_existing("/bare", limits.clone()).await;
    assert!(matches!(without, Err(Error::NoController { controller: "memory", .. })), "{without:?}");
    assert!(matches!(manager.limit_existing("/b", limits.clone()).await, Err(Error::Missing { .. })));
    assert!(!dir.path().join("b").exists());
    assert!(matches!(manager.limit_existing("/a/../b", limits).await, Err(Error::Reserved(_))));
}
