//! What is left of volumes: how soon a pod starts when its last one can be made, how large they are, and what becomes of them
//! when the agent was not there.

use crate::shared::{LIMIT, Ns, contains, must_contain, pod, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub fn trials() -> Vec<Trial> {
    vec![
        test("volumes::a_missing_object_starts_its_pod_at_once", a_missing_object),
        test("volumes::folders_in_memory_have_their_size", sizes),
        test("volumes::what_an_agent_left_is_cleaned", what_was_left),
    ]
}

/// Far above the tenth of a second that is aimed at: the machines are small and busy.
const SOON: Duration = Duration::from_secs(3);

fn a_missing_object(ns: &mut Ns) -> Result<()> {
    let volume = "terminationGracePeriodSeconds: 0\nvolumes: [{name: map, configMap: {name: late}}]";
    ns.apply(&pod("waits", "serve", "volumeMounts: [{name: map, mountPath: /map}]", volume))?;
    ns.event("waits", "FailedMount", "configmap \"late\" not found")?;
    let log = ns.lab.nodes[0].containerd.log();
    let before = std::fs::metadata(&log)?.len();
    ns.kubectl(&["create", "configmap", "late", "--from-literal=key=here"])?;
    let there = SystemTime::now();
    ns.ready("waits")?;
    // The runtime writes down when it was first asked for something.
    let text = std::fs::read(&log)?;
    let text = String::from_utf8_lossy(&text[usize::try_from(before)?..]).into_owned();
    let line = text.lines().find(|l| l.contains("RunPodSandbox for")).context("no sandbox in the runtime's log")?;
    let at = line.split("time=\"").nth(1).and_then(|rest| rest.split('"').next()).context("no time in the log")?;
    let at = SystemTime::from(at.parse::<jiff::Timestamp>()?);
    match at.duration_since(there) {
        Ok(took) if took > SOON => bail!("the pod began {took:?} after its ConfigMap"),
        Ok(took) => println!("the pod began {took:?} after kubectl said that the ConfigMap is there"),
        Err(early) => println!("the pod began {:?} before kubectl said that the ConfigMap is there", early.duration()),
    }
    Ok(())
}

fn pod_dir(ns: &Ns, name: &str) -> Result<PathBuf> {
    let uid = ns.get("pod", name)?["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    Ok(ns.lab.nodes[0].root_dir().join("pods").join(uid))
}

fn sizes(ns: &mut Ns) -> Result<()> {
    let limit = "resources: {limits: {memory: 32Mi, cpu: 100m}}";
    let mounts = "volumeMounts: [{name: small, mountPath: /small}, {name: large, mountPath: /large}]";
    let volumes = "terminationGracePeriodSeconds: 0\nvolumes:\n- {name: small, emptyDir: {medium: Memory, sizeLimit: 4Mi}}\n\
                   - {name: large, emptyDir: {medium: Memory, sizeLimit: 1Gi}}";
    ns.apply(&pod("sized", "serve", &format!("{limit}\n{mounts}"), volumes))?;
    ns.ready("sized")?;
    let dir = pod_dir(ns, "sized")?.join("volumes/kubernetes.io~empty-dir");
    for (name, mib) in [("small", 4), ("large", 32)] {
        let stat = statvfs(&dir.join(name))?;
        let size = stat.blocks() * stat.fragment_size();
        if size != mib << 20 {
            bail!("{name} has {size} bytes instead of {mib} MiB");
        }
    }
    Ok(())
}

fn mounts_below(dir: &Path) -> Result<usize> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter(|l| l.split(' ').nth(4).is_some_and(|at| Path::new(at).starts_with(dir))).count())
}

fn what_was_left(ns: &mut Ns) -> Result<()> {
    let disk = ns.lab.dir.join("left");
    std::fs::create_dir_all(&disk)?;
    std::fs::write(disk.join("file"), "data")?;
    let claim = format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: left}}\nspec:\n  capacity: {{storage: 1Mi}}\n  accessModes: [ReadWriteOnce]\n  \
         storageClassName: left\n  local: {{path: {}}}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: left}}\nspec:\n  \
         storageClassName: left\n  accessModes: [ReadWriteOnce]\n  resources: {{requests: {{storage: 1Mi}}}}\n---\n",
        disk.display()
    );
    let mounts = "volumeMounts: [{name: disk, mountPath: /disk}, {name: mem, mountPath: /mem}, {name: disk, mountPath: /f, subPath: file}]";
    let volumes = "terminationGracePeriodSeconds: 0\nvolumes: [{name: disk, persistentVolumeClaim: {claimName: left}}, \
                   {name: mem, emptyDir: {medium: Memory}}]";
    ns.apply(&(claim + &pod("left", "serve", mounts, volumes)))?;
    ns.ready("left")?;
    let dir = pod_dir(ns, "left")?.canonicalize()?;
    // The volume, the memory, the part of the volume, and the token's.
    let made = mounts_below(&dir)?;
    if made < 3 {
        bail!("only {made} mounts below {}", dir.display());
    }
    ns.lab.nodes[0].kill_agent()?;
    ns.kubectl(&["delete", "pod", "left", "--force", "--grace-period=0"])?;
    ns.lab.start_agent(0)?;
    wait_for("the pod's folder and mounts to be gone", LIMIT, || match (mounts_below(&dir)?, dir.exists()) {
        (0, false) => Ok(()),
        (left, _) => bail!("{left} mounts are left"),
    })?;
    must_contain(&std::fs::read_to_string(disk.join("file"))?, "data")?;
    // A folder of a pod that nobody knows, with a mount in it: an agent says so once.
    let nobody = dir.with_file_name("11111111-2222-3333-4444-555555555555");
    let inside = nobody.join("volumes/kubernetes.io~empty-dir/m");
    std::fs::create_dir_all(&inside)?;
    nix::mount::mount(Some("tmpfs"), &inside, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)?;
    ns.lab.nodes[0].kill_agent()?;
    ns.lab.start_agent(0)?;
    wait_for("the orphan to be gone", LIMIT, || if nobody.exists() { bail!("it is there") } else { Ok(()) })?;
    wait_for("one line on the orphan in the log", LIMIT, || {
        let log = std::fs::read_to_string(ns.lab.nodes[0].agent_log())?;
        let lines: Vec<&str> = log.lines().filter(|l| l.contains("11111111-2222")).collect();
        if lines.len() == 1 && lines[0].contains("removed the folder of a pod that is gone") {
            return Ok(());
        }
        bail!("{lines:#?}")
    })?;
    let volume = ns.get("pv", "left")?;
    if !contains(&volume["status"]["phase"], "Bound") {
        bail!("{volume}");
    }
    ns.kubectl(&["delete", "pv", "left", "--wait=false"])?;
    ns.lab.wait_ready()
}
