//! What is added to or refused of a request between defaults and validation: namespaces, service accounts, tolerations,
//! priorities, and what a node may do. Must never store anything.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Registry, User, WriteOptions, key, meta};
use crate::kinds::{self, Kind, Op, Sub};
use crate::status::ApiError;

const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Tokens in pods: one hour and a little, so that a renewal at 80 % never runs into the end.
const TOKEN_SECONDS: u32 = 3607;
const TOLERATION_SECONDS: i64 = 300;
/// A namespace's default service account comes a moment after the namespace.
const ACCOUNT_WAIT: Duration = Duration::from_secs(2);

impl Registry {
    pub(super) async fn admit_create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        object: &mut Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        if kind.namespaced {
            self.check_namespace(kind, namespace, meta::name(object))?;
        }
        restrict_node(kind, Op::Create, None, object, None, &options.user)?;
        match (kind.group, kind.kind) {
            ("", "Pod") => self.admit_pod(namespace, object).await?,
            ("", "Node") => taint_new_node(object),
            ("certificates.k8s.io", "CertificateSigningRequest") => stamp_requester(object, &options.user),
            _ => {}
        }
        Ok(())
    }

    fn check_namespace(&self, kind: &Kind, namespace: &str, name: &str) -> Result<(), ApiError> {
        let Some(found) = self.inner.store.get(&key(&kinds::NAMESPACE, "", namespace)) else {
            return Err(ApiError::not_found("", "namespaces", namespace));
        };
        if !meta::is_terminating(&found.object) {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let message = format!("namespace {namespace} is being terminated");
        Err(ApiError::forbidden_object(kind.group, kind.plural, name, &why).with_cause(
            "NamespaceTerminating",
            message,
            "metadata.namespace",
        ))
    }

    async fn admit_pod(&self, namespace: &str, pod: &mut Value) -> Result<(), ApiError> {
        if !pod.get("spec").is_some_and(Value::is_object) {
            return Ok(()); // Validation has the words for it.
        }
        let mirror = pod["metadata"].get("annotations").and_then(|a| a.get(MIRROR)).is_some();
        if !mirror {
            self.admit_service_account(namespace, pod).await?;
        }
        self.admit_priority(pod)?;
        self.admit_runtime_class(pod)?;
        if !mirror {
            add_tolerations(pod);
        }
        Ok(())
    }

    async fn admit_service_account(&self, namespace: &str, pod: &mut Value) -> Result<(), ApiError> {
        let named = pod["spec"].get("serviceAccountName").and_then(Value::as_str).unwrap_or_default();
        let name = if named.is_empty() { "default".to_owned() } else { named.to_owned() };
        pod["spec"]["serviceAccountName"] = json!(name);
        pod["spec"]["serviceAccount"] = json!(name);
        let Some(account) = self.await_account(namespace, &name).await else {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(ApiError::forbidden_object("", "pods", meta::name(pod), &why));
        };
        let no_secrets = pod["spec"].get("imagePullSecrets").is_none_or(|s| s.as_array().is_none_or(Vec::is_empty));
        if let Some(secrets) = account.get("imagePullSecrets").filter(|_| no_secrets) {
            pod["spec"]["imagePullSecrets"] = secrets.clone();
        }
        let wanted = pod["spec"].get("automountServiceAccountToken").and_then(Value::as_bool);
        if wanted.or(account.get("automountServiceAccountToken").and_then(Value::as_bool)).unwrap_or(true) {
            mount_token(pod, &meta::generated_name("kube-api-access-", |n| rand::random_range(0..n)));
        }
        Ok(())
    }

    async fn await_account(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = key(&kinds::SERVICE_ACCOUNT, namespace, name);
        let seen = self.revision();
        if let Some(found) = self.inner.store.get(&key) {
            return Some(found.object);
        }
        let mut changes = self.inner.store.watch(&key, seen);
        // Whatever the watch says, the latest state decides.
        let _ = tokio::time::timeout(ACCOUNT_WAIT, changes.next()).await;
        self.inner.store.get(&key).map(|i| i.object)
    }

    fn admit_priority(&self, pod: &mut Value) -> Result<(), ApiError> {
        let name = pod["spec"].get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
        let class = if name.is_empty() {
            let classes = self.inner.store.list(&super::prefix(&kinds::PRIORITY_CLASS, None), None, 0).items;
            classes.into_iter().map(|i| i.object).find(|c| c.get("globalDefault") == Some(&Value::Bool(true)))
        } else {
            let Some(found) = self.inner.store.get(&key(&kinds::PRIORITY_CLASS, "", &name)) else {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(ApiError::forbidden_object("", "pods", meta::name(pod), &why));
            };
            Some(found.object)
        };
        let value = class.as_ref().and_then(|c| c.get("value")).and_then(Value::as_i64).unwrap_or(0);
        let preemption = class.as_ref().and_then(|c| c.get("preemptionPolicy")).and_then(Value::as_str);
        if let Some(class) = &class
            && name.is_empty()
        {
            pod["spec"]["priorityClassName"] = json!(meta::name(class));
        }
        if let Some(stated) = pod["spec"].get("priority").and_then(Value::as_i64)
            && stated != value
        {
            let why = format!(
                "the integer value of priority ({stated}) must not be provided in pod spec; priority admission controller computed \
                 {value} from the given PriorityClass name"
            );
            return Err(ApiError::forbidden_object("", "pods", meta::name(pod), &why));
        }
        pod["spec"]["priority"] = json!(value);
        pod["spec"]["preemptionPolicy"] = json!(preemption.unwrap_or("PreemptLowerPriority"));
        Ok(())
    }

    fn admit_runtime_class(&self, pod: &mut Value) -> Result<(), ApiError> {
        let name = pod["spec"].get("runtimeClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
        if name.is_empty() {
            return Ok(());
        }
        let Some(class) = self.inner.store.get(&key(&kinds::RUNTIME_CLASS, "", &name)) else {
            let why = format!("pod rejected: RuntimeClass {name:?} not found");
            return Err(ApiError::forbidden_object("", "pods", meta::name(pod), &why));
        };
        if let Some(overhead) = class.object.pointer("/overhead/podFixed") {
            pod["spec"]["overhead"] = overhead.clone();
        }
        if let Some(more) = class.object.pointer("/scheduling/nodeSelector").and_then(Value::as_object) {
            let Some(spec) = pod["spec"].as_object_mut() else { return Ok(()) };
            let selector = spec.entry("nodeSelector").or_insert_with(|| json!({}));
            if let Some(selector) = selector.as_object_mut() {
                selector.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        if let Some(more) = class.object.pointer("/scheduling/tolerations").and_then(Value::as_array) {
            let Some(spec) = pod["spec"].as_object_mut() else { return Ok(()) };
            let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
            if let Some(tolerations) = tolerations.as_array_mut() {
                tolerations.extend(more.iter().cloned());
            }
        }
        Ok(())
    }

    /// The objects every cluster has from the start.
    pub(super) async fn bootstrap(&self) -> Result<(), ApiError> {
        let options = WriteOptions::default();
        let made = |result: Result<Arc<Value>, ApiError>| match result {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            if self.inner.store.get(&key(&kinds::NAMESPACE, "", name)).is_none() {
                made(self.create(&kinds::NAMESPACE, "", json!({"metadata": {"name": name}}), &options).await)?;
            }
        }
        for (name, value, what) in [
            ("system-cluster-critical", 2_000_000_000, "pods the cluster cannot do without, which may move to another node"),
            ("system-node-critical", 2_000_001_000, "pods their node cannot do without"),
        ] {
            if self.inner.store.get(&key(&kinds::PRIORITY_CLASS, "", name)).is_none() {
                let class = json!({"metadata": {"name": name}, "value": value, "globalDefault": false,
                    "description": format!("For {what}."), "preemptionPolicy": "PreemptLowerPriority"});
                made(self.create(&kinds::PRIORITY_CLASS, "", class, &options).await)?;
            }
        }
        self.own_service(&options).await
    }

    /// `default/kubernetes`: how pods reach this server.
    async fn own_service(&self, options: &WriteOptions) -> Result<(), ApiError> {
        let Some((address, port)) = self.inner.config.advertise else { return Ok(()) };
        let first = crate::controllers::allocate::IpAllocator::new(self.inner.config.service_cidr.primary()).first();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        if self.inner.store.get(&key(&kinds::SERVICE, "default", "kubernetes")).is_none() {
            let service = json!({"metadata": {"name": "kubernetes", "labels": labels}, "spec": {
                "clusterIP": first.to_string(), "type": "ClusterIP", "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]}});
            self.create(&kinds::SERVICE, "default", service, options).await?;
        }
        if address.is_ipv4() != first.is_ipv4() {
            tracing::warn!(%address, service = %first, "the kubernetes Service has no endpoint of its own address family: give \
                --advertise-address an address of the first service range's family");
        }
        if address.is_loopback() || address.is_unspecified() {
            tracing::warn!(%address, "the kubernetes Service gets no endpoint: pods cannot reach this address; set --advertise-address");
            return Ok(());
        }
        let slice = json!({
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        });
        match self.create(&kinds::ENDPOINT_SLICE, "default", slice.clone(), options).await {
            Err(error) if error.is_already_exists() => {}
            result => return result.map(|_| ()),
        }
        let change = |old: &mut Value| {
            let mut changed = false;
            for field in ["endpoints", "ports"] {
                changed |= old.get(field) != slice.get(field);
                old[field] = slice[field].clone();
            }
            changed
        };
        self.modify(&kinds::ENDPOINT_SLICE, "default", "kubernetes", None, change).await.map(|_| ())
    }
}

fn mount_token(pod: &mut Value, volume: &str) {
    let has_mount = |c: &Value| {
        let mounts = c.get("volumeMounts").and_then(Value::as_array);
        mounts.is_some_and(|m| m.iter().any(|m| m.get("mountPath").and_then(Value::as_str) == Some(TOKEN_MOUNT)))
    };
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|c| c.is_object() && !has_mount(c)) {
            let Some(map) = container.as_object_mut() else { continue };
            let mounts = map.entry("volumeMounts").or_insert_with(|| json!([]));
            if let Some(mounts) = mounts.as_array_mut() {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_MOUNT}));
                mounted = true;
            }
        }
    }
    let Some(spec) = pod["spec"].as_object_mut().filter(|_| mounted) else { return };
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

fn add_tolerations(pod: &mut Value) {
    let Some(spec) = pod["spec"].as_object_mut() else { return };
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Value| {
            let text = |f: &str| t.get(f).and_then(Value::as_str).unwrap_or_default();
            (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "" | "NoExecute")
        };
        if !list.iter().any(covers) {
            list.push(
                json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}),
            );
        }
    }
}

/// A node takes no pods until it has said that it is ready; the node lifecycle controller takes the taint off.
fn taint_new_node(node: &mut Value) {
    let Some(map) = node.as_object_mut() else { return };
    let Some(spec) = map.entry("spec").or_insert_with(|| json!({})).as_object_mut() else { return };
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    let Some(taints) = taints.as_array_mut() else { return };
    let key = "node.kubernetes.io/not-ready";
    if !taints.iter().any(|t| t.get("key").and_then(Value::as_str) == Some(key)) {
        taints.push(json!({"key": key, "effect": "NoSchedule"}));
    }
}

fn stamp_requester(request: &mut Value, user: &User) {
    let Some(spec) = request.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.insert("username".to_owned(), json!(user.name));
    spec.insert("groups".to_owned(), json!(user.groups));
    if !user.uid.is_empty() {
        spec.insert("uid".to_owned(), json!(user.uid));
    }
    let extra: serde_json::Map<String, Value> = user.extra.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    if !extra.is_empty() {
        spec.insert("extra".to_owned(), Value::Object(extra));
    }
}

/// What a node's own credentials may write: its Node, its pods' status, its lease. (Reading is authorization's business.)
pub(super) fn restrict_node(
    kind: &Kind,
    op: Op,
    sub: Option<Sub>,
    new: &Value,
    old: Option<&Value>,
    user: &User,
) -> Result<(), ApiError> {
    let Some(node) = user.node() else { return Ok(()) };
    let name = meta::name(old.unwrap_or(new));
    let deny = |why: String| Err(ApiError::forbidden_object(kind.group, kind.plural, name, &why));
    match (kind.group, kind.kind) {
        ("", "Node") if name != node => deny(format!("node {node:?} is not allowed to modify node {name:?}")),
        ("", "Node") => match old {
            Some(old) if old.pointer("/spec/taints") != new.pointer("/spec/taints") => {
                deny(format!("node {node:?} is not allowed to modify taints"))
            }
            _ => Ok(()),
        },
        ("", "Pod") => {
            let on = old.unwrap_or(new).pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
            let mirror = new["metadata"].get("annotations").and_then(|a| a.get(MIRROR)).is_some();
            if op == Op::Create && !mirror {
                return deny(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
            }
            if op == Op::Update && sub != Some(Sub::Status) {
                return deny(format!("node {node:?} can only update the status of pods"));
            }
            if on == node { Ok(()) } else { deny(format!("node {node:?} can only change pods with spec.nodeName set to itself")) }
        }
        ("coordination.k8s.io", "Lease") if meta::namespace(new) != "kube-node-lease" || name != node => {
            deny(format!("node {node:?} can only access the lease of its own name in namespace kube-node-lease"))
        }
        ("storage.k8s.io", "CSINode") if name != node => deny(format!("node {node:?} can only access its own CSINode")),
        _ => Ok(()),
    }
}
