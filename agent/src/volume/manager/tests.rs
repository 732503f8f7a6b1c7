use super::*;
use crate::objects::Strategy;
use base64::Engine;
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Mutex;
use std::time::Duration;
use std::time::SystemTime;

/// An API server of a few objects, which counts the tokens it gave.
#[derive(Default)]
struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    tokens: Mutex<u32>,
    token_life: Mutex<(i64, u64)>,
}

impl Api {
    fn client(self: &Arc<Api>) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (status, body) = api.answer(request.uri().path());
            let body = http_body_util::Full::new(bytes::Bytes::from(body.to_string()));
            let response = http::Response::builder().status(status).header("content-type", "application/json").body(body);
            async move { Ok::<_, std::convert::Infallible>(response.unwrap()) }
        });
        kube::Client::new(service, "default")
    }

    /// An object that is in no namespace.
    fn put_cluster(&self, kind: &str, name: &str, object: Value) {
        self.objects.lock().unwrap().insert(format!("/api/v1/{kind}/{name}"), object);
    }

    fn put(&self, kind: &str, name: &str, object: Value) {
        self.objects.lock().unwrap().insert(format!("/api/v1/namespaces/ns/{kind}/{name}"), object);
    }

    fn answer(&self, path: &str) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason}),
            )
        };
        if path.ends_with("/token") {
            let (age, life) = *self.token_life.lock().unwrap();
            if life == 0 {
                return failure(503, "ServiceUnavailable");
            }
            let mut count = self.tokens.lock().unwrap();
            *count += 1;
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            let from = now.checked_add_signed(-age).unwrap();
            let claims = json!({"iat": from, "exp": from + life, "jti": *count, "kubernetes.io": {"pod": {"uid": "u-1"}}});
            let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
            let status = json!({"token": format!("e30.{body}.s"), "expirationTimestamp": "2030-01-01T00:00:00Z"});
            return (201, json!({"metadata": {}, "spec": {"audiences": []}, "status": status}));
        }
        match self.objects.lock().unwrap().get(path) {
            Some(object) => (200, object.clone()),
            None => failure(404, "NotFound"),
        }
    }
}

/// A root folder that unmounts and removes what a test left, even one that failed.
struct Root(tempfile::TempDir);

impl Drop for Root {
    fn drop(&mut self) {
        let path = self.0.path().canonicalize().unwrap_or_default();
        if path.components().count() > 2 {
            let _ = mounts::unmount_below(&path);
        }
    }
}

struct Bench {
    root: Root,
    api: Arc<Api>,
    manager: Manager,
}

/// Read whenever they are needed.
fn objects(api: &Arc<Api>) -> Store {
    let client = api.client();
    Store::new(client.clone(), Strategy::Poll(Duration::from_secs(60)), move || client.clone())
}

fn bench() -> Bench {
    let root = Root(tempfile::tempdir().unwrap());
    let api = Arc::new(Api { token_life: Mutex::new((0, 3600)), ..Api::default() });
    let manager = Manager::new(root.0.path(), api.client(), objects(&api));
    Bench { root, api, manager }
}

fn may_mount(test: &str) -> bool {
    let root = Root(tempfile::tempdir().unwrap());
    let folder = open_root(root.0.path()).unwrap().unwrap();
    let allowed = mounts::tmpfs(folder.as_fd(), None).is_ok();
    if !allowed {
        eprintln!("skipped: {test}: mounting is not allowed here");
    }
    allowed
}

fn pod(volumes: Value, mounts: Value) -> Pod {
    let mut mounts = mounts;
    for volume in volumes.as_array().unwrap() {
        let name = &volume["name"];
        if mounts.as_array().unwrap().iter().all(|m| m["name"] != *name) {
            mounts.as_array_mut().unwrap().push(json!({"name": name, "mountPath": format!("/of/{}", name.as_str().unwrap())}));
        }
    }
    let pod = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u-1", "labels": {"app": "web"}},
        "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts,
            "resources": {"limits": {"memory": "8Mi", "cpu": "1"}}}]}
    });
    serde_json::from_value(pod).unwrap()
}

fn read(prepared: &Prepared, volume: &str, file: &str) -> String {
    std::fs::read_to_string(prepared.host_paths[volume].join(file)).unwrap()
}

#[tokio::test]
async fn config_maps_appear_change_and_go() {
    let b = bench();
    b.api.put("configmaps", "cm", json!({"data": {"a": "1"}, "binaryData": {"b": "AP8="}}));
    let pod = pod(
        json!([{"name": "v", "configMap": {"name": "cm", "defaultMode": 0o600}},
            {"name": "maybe", "configMap": {"name": "absent", "optional": true}}]),
        json!([{"name": "v", "mountPath": "/etc/v"}, {"name": "maybe", "mountPath": "/etc/v/nested/m"}]),
    );
    let context = PodContext::default();
    let first = b.manager.prepare(&pod, &context).await.unwrap();
    assert_eq!(first.host_paths["v"], b.root.0.path().join("pods/u-1/volumes/kubernetes.io~configmap/v"));
    assert_eq!(read(&first, "v", "a"), "1");
    assert_eq!(std::fs::read(first.host_paths["v"].join("b")).unwrap(), [0, 255]);
    assert!(first.host_paths["v"].join("nested/m").is_dir());
    assert!(first.host_paths["maybe"].is_dir() && first.read_only.contains("v"));
    let meta = std::fs::metadata(first.host_paths["v"].join("a")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    assert_eq!(b.manager.prepare(&pod, &context).await.unwrap(), first);
    assert_eq!(std::fs::metadata(first.host_paths["v"].join("a")).unwrap().ino(), meta.ino());
    b.api.put("configmaps", "cm", json!({"data": {"a": "2"}}));
    b.manager.prepare(&pod, &context).await.unwrap();
    assert_eq!(read(&first, "v", "a"), "2");
    assert_eq!(b.manager.list_pod_dirs().await.unwrap(), ["u-1"]);
    b.manager.teardown("u-1").await.unwrap();
    b.manager.teardown("u-1").await.unwrap();
    assert!(b.manager.list_pod_dirs().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let b = bench();
    b.api.put("configmaps", "cm", json!({"data": {"a": "1"}}));
    let error = async |volumes: Value| {
        let error = b.manager.prepare(&pod(volumes, json!([])), &PodContext::default()).await.unwrap_err();
        (error.class(), error.to_string())
    };
    use crate::volume::Class;
    let cases = [
        (
            json!([{"name": "v", "configMap": {"name": "x"}}]),
            Class::Transient,
            "MountVolume.SetUp failed for volume \"v\" : configmap \"x\" not found",
        ),
        (
            json!([{"name": "v", "secret": {"secretName": "x"}}]),
            Class::Transient,
            "MountVolume.SetUp failed for volume \"v\" : secret \"x\" not found",
        ),
        (
            json!([{"name": "v", "configMap": {"name": "cm", "items": [{"key": "k", "path": "p"}]}}]),
            Class::Transient,
            "MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" references non-existent config key: k",
        ),
        (
            json!([{"name": "v", "configMap": {"name": "cm", "items": [{"key": "a", "path": "../p"}]}}]),
            Class::Permanent,
            "MountVolume.SetUp failed for volume \"v\" : path \"../p\" must be relative and must not contain `..`",
        ),
        (json!([{"name": "v", "csi": {"driver": "s"}}]), Class::Permanent, "volume \"v\": csi is not supported"),
        (
            json!([{"name": "v", "hostPath": {"path": "/dev/null", "type": "Directory"}}]),
            Class::Transient,
            "MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: /dev/null is not a directory",
        ),
    ];
    for (volumes, class, text) in cases {
        assert_eq!(error(volumes).await, (class, text.to_owned()));
    }
    assert!(matches!(b.manager.teardown("../etc").await, Err(Error::Uid(_))));
    assert!(matches!(b.manager.teardown("").await, Err(Error::Uid(_))));
}

#[tokio::test]
async fn host_paths_are_checked_and_made() {
    let b = bench();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let _socket = std::os::unix::net::UnixListener::bind(at("sock")).unwrap();
    let volumes = json!([
        {"name": "any", "hostPath": {"path": at("absent")}},
        {"name": "dir", "hostPath": {"path": at("d/e"), "type": "DirectoryOrCreate"}},
        {"name": "file", "hostPath": {"path": at("f"), "type": "FileOrCreate"}},
        {"name": "again", "hostPath": {"path": at("sock"), "type": "Socket"}},
        {"name": "chr", "hostPath": {"path": "/dev/null", "type": "CharDevice"}}]);
    let prepared = b.manager.prepare(&pod(volumes, json!([])), &PodContext::default()).await.unwrap();
    assert!(dir.path().join("d/e").is_dir() && dir.path().join("f").is_file() && !dir.path().join("absent").exists());
    assert_eq!(prepared.host_paths["chr"], Path::new("/dev/null"));
    assert!(prepared.read_only.is_empty());
    let relative = json!([{"name": "v", "hostPath": {"path": "/a/../b"}}]);
    assert!(matches!(
        b.manager.prepare(&pod(relative, json!([])), &PodContext::default()).await,
        Err(Error::Invalid { field: "hostPath.path", .. })
    ));
}

fn everything() -> Value {
    json!([
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "disk", "emptyDir": {}},
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
        {"name": "info", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "mem", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}}]}},
        {"name": "token", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}])
}

#[tokio::test]
async fn memory_volumes_are_mounted_once_and_unmounted() {
    if !may_mount("memory_volumes_are_mounted_once_and_unmounted") {
        return;
    }
    let b = bench();
    b.api.put("secrets", "s", json!({"data": {"password": "c2VjcmV0"}}));
    b.api.put("configmaps", "kube-root-ca.crt", json!({"data": {"ca.crt": "CA"}}));
    let (pod, context) = (pod(everything(), json!([])), PodContext::default());
    let prepared = b.manager.prepare(&pod, &context).await.unwrap();
    assert_eq!(read(&prepared, "secret", "password"), "secret");
    assert_eq!(read(&prepared, "info", "labels"), "app=\"web\"");
    assert_eq!(read(&prepared, "info", "mem"), "8");
    assert_eq!(read(&prepared, "token", "namespace"), "ns");
    assert_eq!(read(&prepared, "token", "ca.crt"), "CA");
    let mode = |v: &str| std::fs::metadata(&prepared.host_paths[v]).unwrap().permissions().mode() & 0o7777;
    assert_eq!(["disk", "mem", "secret"].map(mode), [0o777, 0o1777, 0o1777]);
    let stat = rustix::fs::statfs(&prepared.host_paths["mem"]).unwrap();
    assert_eq!(stat.f_blocks * u64::try_from(stat.f_bsize).unwrap(), 4 << 20);
    let mounted = || {
        let table = std::fs::read("/proc/self/mountinfo").unwrap();
        mounts::below(&table, &b.root.0.path().canonicalize().unwrap()).len()
    };
    assert_eq!(mounted(), 4);
    std::fs::write(prepared.host_paths["mem"].join("kept"), "x").unwrap();
    std::fs::write(prepared.host_paths["disk"].join("kept"), "x").unwrap();
    assert_eq!(b.manager.prepare(&pod, &context).await.unwrap(), prepared);
    assert_eq!((mounted(), read(&prepared, "mem", "kept").as_str(), read(&prepared, "disk", "kept").as_str()), (4, "x", "x"));
    // A folder with a mount in it is not removed before that is gone.
    let pods = open_root(&b.root.0.path().join("pods")).unwrap().unwrap();
    assert!(remove_tree(pods.as_fd(), "u-1").is_err());
    let table = std::fs::read("/proc/self/mountinfo").unwrap();
    let left = mounts::below(&table, &b.root.0.path().canonicalize().unwrap());
    assert!(left.iter().any(|point| point.join("kept").exists()), "{left:?}");
    b.manager.teardown("u-1").await.unwrap();
    assert_eq!(mounted(), 0);
    assert!(!b.root.0.path().join("pods/u-1").exists());
}

#[tokio::test]
async fn tokens_are_kept_while_young_and_renewed_in_time() {
    if !may_mount("tokens_are_kept_while_young_and_renewed_in_time") {
        return;
    }
    let b = bench();
    let source = json!({"sources": [{"serviceAccountToken": {"path": "sub/token"}}]});
    let mut pod = pod(json!([{"name": "t", "projected": source}]), json!([]));
    let context = PodContext::default();
    let prepare = async |pod: &Pod, manager: &Manager| {
        let prepared = manager.prepare(pod, &context).await?;
        Ok::<_, Error>((read(&prepared, "t", "sub/token"), prepared.renew_at.unwrap()))
    };
    let (first, renew_at) = prepare(&pod, &b.manager).await.unwrap();
    let in_secs = renew_at.duration_since(SystemTime::now()).unwrap().as_secs();
    assert!((2870..=2880).contains(&in_secs), "{in_secs}");
    // Another agent process: the token in the volume is all the memory there is.
    let restarted = Manager::new(b.root.0.path(), b.api.client(), objects(&b.api));
    assert_eq!(prepare(&pod, &restarted).await.unwrap(), (first.clone(), renew_at));
    assert_eq!(*b.api.tokens.lock().unwrap(), 1);

    b.manager.teardown("u-1").await.unwrap();
    *b.api.token_life.lock().unwrap() = (900, 1000);
    let (old, _) = prepare(&pod, &b.manager).await.unwrap();
    *b.api.token_life.lock().unwrap() = (0, 0);
    let (kept, again) = prepare(&pod, &b.manager).await.unwrap();
    assert_eq!(kept, old, "a token that still lives is better than none");
    assert!(again <= SystemTime::now() + Duration::from_secs(60));
    *b.api.token_life.lock().unwrap() = (0, 1000);
    assert_ne!(prepare(&pod, &b.manager).await.unwrap().0, old);

    b.manager.teardown("u-1").await.unwrap();
    *b.api.token_life.lock().unwrap() = (0, 0);
    let error = prepare(&pod, &b.manager).await.unwrap_err().to_string();
    assert!(error.starts_with("MountVolume.SetUp failed for volume \"t\" : token for service account \"default\""), "{error}");

    // For one user only where that is known.
    *b.api.token_life.lock().unwrap() = (0, 1000);
    let security = json!({"runAsUser": 1234, "fsGroup": 4321});
    pod.spec.as_mut().unwrap().security_context = Some(serde_json::from_value(security).unwrap());
    let prepared = b.manager.prepare(&pod, &context).await.unwrap();
    let meta = std::fs::metadata(prepared.host_paths["t"].join("sub/token")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 4321, 0o640));
    b.manager.teardown("u-1").await.unwrap();
}

#[tokio::test]
async fn sub_paths_are_bound_and_follow_updates() {
    if !may_mount("sub_paths_are_bound_and_follow_updates") {
        return;
    }
    let b = bench();
    b.api.put("configmaps", "cm", json!({"data": {"a": "1"}}));
    let pod = pod(json!([{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}]), json!([]));
    let root = b.manager.prepare(&pod, &PodContext::default()).await.unwrap().host_paths;
    let bind = async |volume: &str, index, sub: &str| {
        let mount = SubPath { volume, container: "c", index, root: &root[volume], sub };
        b.manager.sub_path("u-1", &mount).await
    };
    let file = bind("v", 0, "a").await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    assert_eq!(bind("v", 0, "a").await.unwrap(), file);
    b.api.put("configmaps", "cm", json!({"data": {"a": "2"}}));
    b.manager.prepare(&pod, &PodContext::default()).await.unwrap();
    assert_eq!(std::fs::read_to_string(bind("v", 0, "a").await.unwrap()).unwrap(), "2");
    let folder = bind("e", 1, "x/y").await.unwrap();
    std::fs::write(folder.join("f"), "z").unwrap();
    assert_eq!(std::fs::read_to_string(root["e"].join("x/y/f")).unwrap(), "z");
    std::os::unix::fs::symlink("/etc", root["e"].join("evil")).unwrap();
    assert!(bind("e", 2, "evil").await.is_err());
    assert!(bind("e", 2, "evil/passwd").await.is_err());
    b.manager.teardown("u-1").await.unwrap();
    assert!(!b.root.0.path().join("pods/u-1").exists());
}

mod claims;
