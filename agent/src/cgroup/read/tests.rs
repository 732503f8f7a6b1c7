use super::super::{Manager, NodeCgroups, plan};
use super::*;
use std::fs;

const ID: &str = "0123456789abcdef0123456789abcdef";

fn folder(root: &Path, at: &str, files: &[(&str, &str)]) {
    fs::create_dir_all(root.join(at)).unwrap();
    files.iter().for_each(|(name, text)| fs::write(root.join(at).join(name), text).unwrap());
}

fn pod() -> super::super::PodCgroup {
    let pod = serde_json::json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
    plan(&serde_json::from_value(pod).unwrap(), &NodeCgroups::default()).unwrap()
}

#[tokio::test]
async fn v1_is_read_from_its_controllers() {
    let dir = tempfile::tempdir().unwrap();
    for controller in ["cpu,cpuacct", "memory"] {
        folder(dir.path(), controller, &[("cgroup.procs", "")]);
    }
    let at = "kubepods/burstable/podu";
    let cpu = |quota| [("cpu.shares", "512\n"), ("cpu.cfs_quota_us", quota), ("cpu.cfs_period_us", "100000\n")];
    folder(dir.path(), &format!("cpu,cpuacct/{at}"), &cpu("50000\n"));
    folder(
        dir.path(),
        &format!("memory/{at}"),
        &[("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "42\n")],
    );
    folder(dir.path(), &format!("cpu,cpuacct/{at}/cri-containerd-{ID}.scope"), &cpu("-1"));
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    let found = manager.read(&pod()).await.unwrap();
    let limits = Limits { cpu_shares: Some(512), cpu_quota_us: Some(50_000), cpu_period_us: Some(100_000), ..Limits::default() };
    assert_eq!(found, Found { limits: limits.clone(), memory_used: Some(42) });
    let container = manager.read_container(&pod(), ID).await.unwrap().unwrap();
    assert_eq!(container.limits, Limits { cpu_quota_us: None, ..limits });
    assert_eq!(manager.read_container(&pod(), "012345").await.unwrap(), None, "too short for an id");
    assert_eq!(manager.read_container(&pod(), &ID.replace('0', "f")).await.unwrap(), None);
}

#[tokio::test]
async fn v2_is_read_from_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), "", &[("cgroup.controllers", "cpu memory"), ("cgroup.subtree_control", "")]);
    let manager = Manager::at(dir.path(), NodeCgroups::default()).unwrap();
    manager.read(&pod()).await.unwrap_err();
    let at = "kubepods/burstable/podu";
    let files = [
        ("cpu.weight", "100\n"),
        ("cpu.max", "max 100000\n"),
        ("memory.max", "1048576\n"),
        ("memory.current", "7\n"),
        ("pids.max", "max\n"),
    ];
    folder(dir.path(), at, &files);
    let found = manager.read(&pod()).await.unwrap();
    assert_eq!(super::super::cpu_weight(found.limits.cpu_shares.unwrap()), 100);
    assert_eq!((found.limits.cpu_quota_us, found.limits.cpu_period_us), (None, Some(100_000)));
    assert_eq!((found.limits.memory_bytes, found.limits.pids, found.memory_used), (Some(1 << 20), None, Some(7)));
}
