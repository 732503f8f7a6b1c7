//! The driver with a real systemd: the host's program as the first process of namespaces of the test's own, in cgroups of its own.

use super::super::plan::{Driver, Limits, NodeCgroups, PodCgroup};
use super::super::{Manager, Version, plan};
use ferrolet_systemd::units::Units;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// Nothing of the host can be written but what this mounts.
const SCRIPT: &str = r#"set -e
version=$1 units=$2; shift 2
mount --make-rprivate /
mount -t proc proc /proc
mount -o remount,ro,bind / 2>/dev/null || mount --bind / / && mount -o remount,ro,bind /
mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys
mount -t tmpfs tmpfs /run
umount -Rl /sys/fs/cgroup
if [ "$version" = v2 ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  for name in "$@"; do
    mkdir "/sys/fs/cgroup/$name"
    options=$name; [ "$name" = systemd ] && options=none,name=systemd
    mount -t cgroup -o "$options" cgroup "/sys/fs/cgroup/$name"
  done
fi
exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH="/run/systemd/transient:/run/systemd/system.control:$units" SYSTEMD_GENERATOR_PATH="$units" \
  /lib/systemd/systemd --system --unit=quiet.target --log-target=console </dev/null
"#;

struct Systemd {
    child: Child,
    /// The first process, as this namespace numbers it.
    pid: i32,
    folders: Vec<PathBuf>,
    relay: Option<Child>,
    _units: tempfile::TempDir,
}

impl Systemd {
    fn start(version: Version) -> Option<Systemd> {
        let skip = |why: &str| eprintln!("skipped: systemd of the test's own: {why}");
        if !rustix::process::geteuid().is_root() || !Path::new("/lib/systemd/systemd").exists() {
            skip("not root, or it is not installed");
            return None;
        }
        let name = format!("ferrolet-test-systemd-{}-{version:?}", std::process::id());
        let mut folders = Vec::new();
        let mut controllers = Vec::new();
        for entry in std::fs::read_dir("/sys/fs/cgroup").ok()?.flatten().filter(|e| e.path().join("cgroup.procs").exists()) {
            let folder = entry.path().join(&name);
            let unified = entry.path().join("cgroup.controllers").exists();
            if !entry.path().is_symlink() && std::fs::create_dir(&folder).is_ok() {
                for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|f| folder.join(f).exists()) {
                    std::fs::write(folder.join(file), std::fs::read_to_string(entry.path().join(file)).unwrap()).unwrap();
                }
                folders.push(folder);
                if !unified {
                    controllers.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        let usable = if version == Version::V1 { !controllers.is_empty() } else { folders.len() > controllers.len() };
        if !usable {
            skip("no hierarchy of this version is mounted beside the others");
            folders.iter().for_each(|f| drop(std::fs::remove_dir(f)));
            return None;
        }
        let units = tempfile::tempdir().unwrap();
        std::fs::write(units.path().join("quiet.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
        let enter = folders.iter().map(|f| format!("echo $$ > {}/cgroup.procs\n", f.display())).collect::<String>();
        let unshare = "exec unshare --mount --pid --fork --uts --ipc --net --cgroup --kill-child sh -c \"$SCRIPT\" sh \"$@\"";
        let child = Command::new("sh")
            .args(["-ec", &format!("{enter}{unshare}"), "sh", if version == Version::V1 { "v1" } else { "v2" }])
            .arg(units.path())
            .args(&controllers)
            .env("SCRIPT", SCRIPT)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut systemd = Systemd { child, pid: 0, folders, relay: None, _units: units };
        let until = Instant::now() + SOON;
        while systemd.pid == 0 {
            let own = format!("/proc/{0}/task/{0}/children", systemd.child.id());
            let first: Option<i32> = std::fs::read_to_string(own).ok().and_then(|t| t.split_whitespace().next()?.parse().ok());
            if let Some(pid) = first.filter(|pid| Path::new(&format!("/proc/{pid}/root/run/systemd/private")).exists()) {
                systemd.pid = pid;
            }
            assert!(systemd.child.try_wait().unwrap().is_none() && Instant::now() < until, "systemd did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Who only waits for it must not stand where it wants to have children.
        for folder in &systemd.folders {
            let above = folder.parent().unwrap_or(folder);
            std::fs::write(above.join("cgroup.procs"), systemd.child.id().to_string()).unwrap();
        }
        systemd.relay();
        Some(systemd)
    }

    /// systemd takes nobody whose process it cannot see, so that somebody inside must pass on what is said: this program again.
    fn relay(&mut self) {
        let mut relay = Command::new("nsenter");
        relay.args(["-t", &self.pid.to_string(), "-m", "-p", "--"]).arg(std::env::current_exe().unwrap());
        relay.args(["--exact", "cgroup::slices::real::passes_on"]).env(RELAY, "1");
        self.relay = Some(relay.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + SOON;
        while UnixStream::connect(self.root("/run/relay")).is_err() {
            assert!(Instant::now() < until, "no relay");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn root(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.pid).into()
    }

    fn units(&self) -> Units {
        Units { private: self.root("/run/relay"), shared: "/nonexistent".into(), patience: SOON }
    }

    async fn manager(&self, root: &str) -> Manager {
        let node = NodeCgroups { driver: Driver::Systemd, root: root.into(), pod_pids_limit: Some(50), ..NodeCgroups::default() };
        Manager::find(self.root("/sys/fs/cgroup"), node, self.units()).await.unwrap()
    }

    /// As `systemctl show` says it.
    fn show(&self, unit: &str, property: &str) -> String {
        let out = Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-p", "--", "systemctl", "show", "--value", "-p", property, unit])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn reload(&self) {
        let out = Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-p", "--", "systemctl", "daemon-reload"])
            .status()
            .unwrap();
        assert!(out.success());
    }

    fn read(&self, controller: &str, path: &Path, file: &str) -> String {
        let file = self.root("/sys/fs/cgroup").join(controller).join(path).join(file);
        std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
    }
}

const RELAY: &str = "FERROLET_TEST_RELAY";

/// Nothing but in the process that `relay` starts, which lives as long as the systemd that it passes on to.
#[test]
fn passes_on() {
    if std::env::var_os(RELAY).is_none() {
        return;
    }
    let listener = UnixListener::bind("/run/relay").unwrap();
    for client in listener.incoming() {
        let (mut from, mut to) = (client.unwrap(), UnixStream::connect("/run/systemd/private").unwrap());
        let (mut back, mut out) = (to.try_clone().unwrap(), from.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut out);
            let _ = out.shutdown(Shutdown::Both);
        });
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(relay) = &mut self.relay {
            let _ = relay.kill();
            let _ = relay.wait();
        }
        let until = Instant::now() + SOON;
        while Instant::now() < until && self.folders.iter().any(|f| f.exists()) {
            self.folders.iter().for_each(|folder| remove(folder));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

const UID: &str = "0a1b2c3d-0000-4000-8000-00000000000f";

fn burstable(manager: &Manager, cpu: &str) -> PodCgroup {
    let resources = serde_json::json!({"requests": {"cpu": "100m"}, "limits": {"cpu": cpu, "memory": "64Mi"}});
    let pod = serde_json::json!({"metadata": {"uid": UID}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
    plan(&serde_json::from_value(pod).unwrap(), manager.node()).unwrap()
}

/// A pod with a process in a scope of systemd's, as runtimes start containers.
async fn lives_and_dies(systemd: &Systemd, manager: &Manager, slice: &str) -> PodCgroup {
    manager.ensure_roots().await.unwrap();
    manager.ensure_roots().await.unwrap();
    let all = Limits { cpu_shares: Some(3072), memory_bytes: Some(1 << 30), pids: Some(1000), ..Limits::default() };
    manager.limit_pods(all).await.unwrap();
    let pod = burstable(manager, "500m");
    manager.create(&pod).await.unwrap();
    manager.create(&burstable(manager, "250m")).await.unwrap();
    assert_eq!(systemd.show(slice, "ActiveState"), "active");
    assert_eq!(systemd.show(slice, "ControlGroup"), format!("/{}", pod.path.display()));
    assert_eq!(systemd.show(slice, "CPUQuotaPerSecUSec"), "250ms");
    assert_eq!(systemd.show(slice, "TasksMax"), "50");
    systemd.reload();
    let mut child = Command::new("nsenter")
        .args(["-t", &systemd.pid.to_string(), "-m", "-p", "-C", "--", "systemd-run", "--scope", "-q", "--slice", slice])
        .args(["--unit", "container", "-p", "Delegate=yes", "sleep", "600"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + SOON;
    while systemd.show("container.scope", "ActiveState") != "active" {
        assert!(Instant::now() < until && child.try_wait().unwrap().is_none(), "no scope");
    }
    assert_eq!(manager.list().await.unwrap().len(), 1);
    let removed = manager.remove(&pod);
    let reaped = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let (removed, status) = tokio::join!(removed, reaped);
    removed.unwrap();
    assert!(!status.unwrap().success());
    manager.remove(&pod).await.unwrap();
    assert!(manager.list().await.unwrap().is_empty());
    assert_eq!(systemd.show(slice, "ActiveState"), "inactive");
    pod
}

#[tokio::test]
async fn on_v1_slices_live_and_die_and_keep_their_limits() {
    let Some(systemd) = Systemd::start(Version::V1) else { return };
    let manager = systemd.manager("").await;
    assert_eq!(manager.version(), Version::V1);
    let slice = "kubepods-burstable-pod0a1b2c3d_0000_4000_8000_00000000000f.slice";
    let pod = lives_and_dies(&systemd, &manager, slice).await;
    manager.create(&pod).await.unwrap();
    assert_eq!(systemd.show(slice, "CPUShares"), "102");
    assert_eq!(systemd.show(slice, "MemoryLimit"), (64 << 20).to_string());
    systemd.reload();
    for (controller, file, value) in [
        ("cpu", "cpu.shares", "102".to_owned()),
        ("cpu", "cpu.cfs_quota_us", "50000".to_owned()),
        ("memory", "memory.limit_in_bytes", (64 << 20).to_string()),
        ("pids", "pids.max", "50".to_owned()),
    ] {
        assert_eq!(systemd.read(controller, &pod.path, file), value, "{file}");
    }
    manager.weigh(super::super::Weights { burstable_cpu_shares: 777, ..Default::default() }).await.unwrap();
    assert_eq!(systemd.show("kubepods-burstable.slice", "CPUShares"), "777");
    assert_eq!(systemd.show("kubepods-besteffort.slice", "CPUShares"), "2");
    assert_eq!(systemd.show("kubepods.slice", "MemoryLimit"), (1 << 30).to_string());
    assert_eq!(systemd.read("memory", Path::new("kubepods.slice"), "memory.limit_in_bytes"), (1 << 30).to_string());
    manager.remove(&pod).await.unwrap();
}

#[tokio::test]
async fn on_v2_slices_live_and_die_below_a_root_of_their_own() {
    let Some(systemd) = Systemd::start(Version::V2) else { return };
    let manager = systemd.manager("/my-lab").await;
    assert_eq!(manager.version(), Version::V2);
    let slice = "my_lab-kubepods-burstable-pod0a1b2c3d_0000_4000_8000_00000000000f.slice";
    let pod = lives_and_dies(&systemd, &manager, slice).await;
    let low = PodCgroup { limits: Limits { memory_low: Some(1 << 20), ..pod.limits.clone() }, ..pod };
    manager.create(&low).await.unwrap();
    for (property, value) in [
        ("CPUWeight", super::cpu_weight(102).to_string()),
        ("MemoryMax", (64 << 20).to_string()),
        ("MemoryLow", (1 << 20).to_string()),
    ] {
        assert_eq!(systemd.show(slice, property), value, "{property}");
    }
    manager.remove(&low).await.unwrap();
}

#[tokio::test]
async fn without_systemd_its_driver_is_refused() {
    let node = NodeCgroups { driver: Driver::Systemd, ..NodeCgroups::default() };
    let units = Units { private: "/nonexistent/a".into(), shared: "/nonexistent/b".into(), patience: SOON };
    let error = Manager::find("/sys/fs/cgroup".into(), node, units).await.unwrap_err();
    let said = crate::api::watch::chain(&error);
    assert!(said.contains("cgroup driver systemd") && said.contains("/nonexistent/a"), "{said}");
}
