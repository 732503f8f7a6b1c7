//! Claims of pods, and the volumes of this host behind them.

use crate::shared::{LIMIT, Ns, must_contain, pod, test};
use anyhow::{Result, bail};
use ferrolet_tests::sys::{run, wait_for};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn trials() -> Vec<Trial> {
    vec![
        test("volumes::claims_are_bound_and_waited_for", bound_and_waited_for),
        test("volumes::claims_that_are_not_to_be_had", not_to_be_had),
        test("volumes::claims_of_block_devices", block_devices),
    ]
}

/// A volume of this name and a source, and more of its spec.
fn volume(name: &str, source: &str, modes: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}, labels: {{disk: {name}}}}}\nspec:\n  \
         capacity: {{storage: 1Gi}}\n  accessModes: [{modes}]\n  {source}\n{more}---\n"
    )
}

/// A claim that fits the volume of this label alone.
fn claim(name: &str, disk: &str, modes: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec:\n  accessModes: [{modes}]\n  \
         selector: {{matchLabels: {{disk: {disk}}}}}\n  resources: {{requests: {{storage: 1Gi}}}}\n{more}---\n"
    )
}

fn user(name: &str, claim: &str, read_only: bool, spec: &str) -> String {
    let source = format!("persistentVolumeClaim: {{claimName: {claim}, readOnly: {read_only}}}");
    let volumes = format!("{spec}terminationGracePeriodSeconds: 0\nvolumes:\n- name: data\n  {source}");
    pod(name, "serve", "volumeMounts: [{name: data, mountPath: /data}]", &volumes) + "---\n"
}

fn local(path: &Path) -> String {
    format!("local: {{path: {}}}", path.display())
}

fn at(node: &str) -> String {
    format!(
        "  nodeAffinity:\n    required:\n      nodeSelectorTerms:\n      - matchExpressions:\n        \
         - {{key: kubernetes.io/hostname, operator: In, values: [{node}]}}\n"
    )
}

/// A folder of the node's with a file in it.
fn disk(ns: &Ns, name: &str) -> Result<PathBuf> {
    let path = ns.lab.dir.join(format!("{}-{name}", ns.name));
    std::fs::create_dir_all(path.join("deep"))?;
    std::fs::write(path.join("deep/file"), name)?;
    Ok(path)
}

/// Volumes are in no namespace, so a test takes its own away.
fn removed(ns: &Ns, volumes: &[&str]) -> Result<()> {
    let mut args = vec!["delete", "pv", "--wait=false"];
    args.extend(volumes);
    ns.kubectl(&args).map(drop)
}

fn bound_and_waited_for(ns: &mut Ns) -> Result<()> {
    let (one, two, three) = (disk(ns, "one")?, disk(ns, "two")?, disk(ns, "three")?);
    let node = ns.lab.nodes[0].name.clone();
    // All at once, as they come out of one file.
    let host_path = format!("hostPath: {{path: {}, type: Directory}}", one.display());
    let all = [
        volume("bound-one", &host_path, "ReadWriteOnce", ""),
        claim("one", "bound-one", "ReadWriteOnce", ""),
        user("first", "one", false, ""),
        user("waits", "two", true, ""),
    ];
    ns.apply(&all.concat())?;
    ns.ready("first")?;
    ns.kubectl(&["exec", "first", "--", "/web", "write", "/data/new", "seen"])?;
    if std::fs::read_to_string(one.join("new"))? != "seen" {
        bail!("what the pod wrote is not in the volume");
    }
    ns.event("waits", "FailedMount", "/two: failed to fetch PVC from API server: persistentvolumeclaims \"two\" not found")?;
    ns.apply(&claim("two", "bound-two", "ReadWriteOnce", ""))?;
    ns.event("waits", "FailedMount", "/two: PVC is not bound")?;
    let group = "securityContext: {fsGroup: 4321}\n";
    let own = "volumeClaimTemplate:\n      spec:\n        accessModes: [ReadWriteOnce]\n        \
               selector: {matchLabels: {disk: bound-three}}\n        resources: {requests: {storage: 1Gi}}";
    let own = format!("{group}terminationGracePeriodSeconds: 0\nvolumes:\n- name: data\n  ephemeral:\n    {own}");
    let own = pod("owner", "serve", "volumeMounts: [{name: data, mountPath: /data, subPath: deep}]", &own);
    let begun = std::time::Instant::now();
    ns.apply(&volume("bound-two", &local(&two), "ReadWriteOnce", &at(&node)))?;
    ns.ready("waits")?;
    println!("a pod was ready {:?} after the volume it waited for", begun.elapsed());
    must_contain(&ns.kubectl(&["exec", "waits", "--", "/web", "cat", "/data/deep/file"])?, "two")?;
    must_contain(&ns.refused(&["exec", "waits", "--", "/web", "write", "/data/no", "x"])?, "Read-only file system")?;
    // A claim of the pod's own, on a volume whose files become the pod's group's.
    ns.apply(&(volume("bound-three", &local(&three), "ReadWriteOnce", "") + &own))?;
    ns.ready("owner")?;
    must_contain(&ns.kubectl(&["exec", "owner", "--", "/web", "cat", "/data/file"])?, "three")?;
    let group = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(three.join("deep/file"))?);
    if group != 4321 {
        bail!("the files of a volume are of group {group}");
    }
    ns.kubectl(&["delete", "pod", "owner", "waits"])?;
    wait_for("the pod's own claim to go with it", LIMIT, || {
        let claims = ns.list("pvc")?;
        if claims.len() == 2 { Ok(()) } else { bail!("{claims:?}") }
    })?;
    must_contain(&std::fs::read_to_string(two.join("deep/file"))?, "two")?;
    removed(ns, &["bound-one", "bound-two", "bound-three"])
}

fn not_to_be_had(ns: &mut Ns) -> Result<()> {
    let path = disk(ns, "alone")?;
    let all = [
        volume("had-alone", &local(&path), "ReadWriteOncePod", ""),
        volume("had-elsewhere", &local(&path), "ReadWriteOnce", &at("another-node")),
        volume("had-csi", "csi: {driver: example.com, volumeHandle: h}", "ReadWriteOnce", ""),
        volume("had-nfs", "nfs: {server: 192.0.2.1, path: /export}", "ReadWriteMany", ""),
        claim("alone", "had-alone", "ReadWriteOncePod", ""),
        claim("elsewhere", "had-elsewhere", "ReadWriteOnce", ""),
        claim("csi", "had-csi", "ReadWriteOnce", ""),
        claim("nfs", "had-nfs", "ReadWriteMany", ""),
        user("first", "alone", false, ""),
        user("elsewhere", "elsewhere", false, ""),
        user("csi", "csi", false, ""),
    ];
    ns.apply(&all.concat())?;
    ns.ready("first")?;
    ns.apply(&(user("second", "alone", false, "") + &user("nfs", "nfs", false, "")))?;
    let text = "NodeAffinity check failed for volume \"had-elsewhere\" : no matching NodeSelectorTerms";
    ns.event("elsewhere", "FailedMount", text)?;
    ns.event("csi", "FailedMount", "PersistentVolume had-csi: volumes of type csi are not supported by this agent")?;
    ns.event("second", "FailedMount", "ReadWriteOncePod access mode and is already in use by another pod")?;
    if Path::new("/sbin/mount.nfs").exists() {
        println!("NFS without its program: SKIPPED, this host has mount.nfs");
    } else {
        ns.event("nfs", "FailedMount", "volume \"data\" : the program mount.nfs is not installed on this node")?;
    }
    // The next look at it is at most half a minute away.
    ns.kubectl(&["delete", "pod", "first"])?;
    ns.ready("second")?;
    removed(ns, &["had-alone", "had-elsewhere", "had-csi", "had-nfs"])
}

/// A loop device, gone when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run(Command::new("losetup").args(["-d", &self.0]));
    }
}

fn block_devices(ns: &mut Ns) -> Result<()> {
    let file = ns.lab.dir.join("block.img");
    std::fs::write(&file, [b"on the device\n".as_slice(), &[0; 65536 - 14]].concat())?;
    let device = match run(Command::new("losetup").args(["--find", "--show"]).arg(&file)) {
        Ok(device) => Loop(device.trim().to_owned()),
        Err(error) => {
            println!("block devices: SKIPPED, no loop device can be had here: {error:#}");
            return Ok(());
        }
    };
    let spec = |claim: &str| {
        format!("terminationGracePeriodSeconds: 0\nvolumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]")
    };
    let raw = "volumeDevices: [{name: data, devicePath: /dev/data}]";
    let block = "  volumeMode: Block\n";
    let all = [
        volume("raw", &local(Path::new(&device.0)), "ReadWriteOnce", block),
        claim("raw", "raw", "ReadWriteOnce", block),
        pod("reads", "serve", raw, &spec("raw")) + "---\n",
        user("mounts", "raw", false, ""),
    ];
    ns.apply(&all.concat())?;
    ns.ready("reads")?;
    must_contain(&ns.kubectl(&["exec", "reads", "--", "/web", "cat", "/dev/data"])?, "on the device")?;
    ns.event("mounts", "FailedMount", "volume data has volumeMode Block, but is specified in volumeMounts")?;
    ns.kubectl(&["delete", "pod", "reads", "mounts"])?;
    removed(ns, &["raw"])
}
