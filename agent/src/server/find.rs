//! Which container or sandbox a request means: the pod by the API's snapshot, the rest by the runtime's own list.

use crate::api::snapshot::{ObjectKey, Snapshot};
use crate::pod::status::all_containers;
use crate::static_pods::read::{HASH, MIRROR};
use axum::http::StatusCode;
use ferrolet_cri::types::{ContainerFilter, ContainerState, ContainerSummary, SandboxFilter, SandboxState};
use ferrolet_cri::{Class, Client};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use std::sync::Arc;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub text: String,
}

impl Refusal {
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Refusal { status, text: text.into() }
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        (self.status, self.text + "\n").into_response()
    }
}

impl From<ferrolet_cri::Error> for Refusal {
    fn from(error: ferrolet_cri::Error) -> Self {
        let status = match error.class() {
            Class::Gone => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, error.to_string())
    }
}

pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// The pods of this node as it has them: a static pod itself in the place of its mirror, with its status of now.
pub fn pods(deps: &super::Deps) -> Vec<Arc<Pod>> {
    let (api, statics) = (deps.pods.borrow().clone(), deps.statics.borrow().clone());
    let of_api = api.items.values().filter(|pod| annotation(pod, MIRROR).is_none()).cloned();
    of_api.chain(statics.pods.values().map(|pod| shown(deps, pod, &api))).collect()
}

/// The pod of that name, and of that uid where one is asked for. The uid of a mirror stands for that of its static pod.
pub fn pod(deps: &super::Deps, namespace: &str, name: &str, uid: Option<&str>) -> Result<Arc<Pod>, Refusal> {
    let key = ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() };
    let api = deps.pods.borrow().clone();
    let object = api.items.get(&key).cloned();
    let own = deps.statics.borrow().named(namespace, name).map(|pod| shown(deps, pod, &api));
    let is = |pod: &Arc<Pod>| uid.is_none_or(|uid| pod.metadata.uid.as_deref() == Some(uid));
    let mirrored = object.as_ref().is_some_and(|object| annotation(object, MIRROR).is_some() && is(object));
    let own = own.filter(|pod| is(pod) || mirrored);
    // A mirror is nothing that runs.
    let object = object.filter(|pod| is(pod) && annotation(pod, MIRROR).is_none());
    own.or(object).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("pod {name:?} does not exist")))
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(name)
}

/// With what this node knows of it, or before its actor has said anything what the API does.
fn shown(deps: &super::Deps, pod: &Arc<Pod>, api: &Snapshot<Pod>) -> Arc<Pod> {
    let status = deps.statuses.of(pod.metadata.uid.as_deref().unwrap_or_default()).map(|status| PodStatus::clone(&status));
    let key = ObjectKey {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: pod.metadata.name.clone().unwrap_or_default(),
    };
    let mirror = || api.items.get(&key).filter(|mirror| annotation(mirror, MIRROR) == annotation(pod, HASH));
    match status.or_else(|| mirror()?.status.clone()) {
        Some(status) => Arc::new(Pod { status: Some(status), ..Pod::clone(pod) }),
        None => pod.clone(),
    }
}

/// Whether the pod's spec has such a container.
pub fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.containers.iter().any(|c| c.name == name)
        || spec.init_containers.iter().flatten().any(|c| c.name == name)
        || spec.ephemeral_containers.iter().flatten().any(|c| c.name == name)
}

/// All of a container's incarnations that the runtime still has, newest first.
pub async fn incarnations(cri: &Client, pod: &Pod, container: &str) -> Result<Vec<ContainerSummary>, Refusal> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let labels = [(POD_UID.to_owned(), uid), (CONTAINER_NAME.to_owned(), container.to_owned())].into();
    let mut found = cri.list_containers(&ContainerFilter { labels, ..ContainerFilter::default() }).await?;
    found.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.attempt)));
    Ok(found)
}

/// The running container to exec into or attach to.
pub async fn running(cri: &Client, pod: &Pod, container: &str) -> Result<String, Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let found = incarnations(cri, pod, container).await?;
    let running = found.into_iter().find(|c| c.state == ContainerState::Running).map(|c| c.id);
    running.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, format!("container not found (\"{container}\" of pod \"{name}\" is not running)"))
    })
}

/// The container whose log is meant; the error says why there is none yet.
pub async fn logged(cri: &Client, pod: &Pod, container: &str, previous: bool) -> Result<String, Refusal> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let found = incarnations(cri, pod, container).await?;
    // A container that was only created has written nothing; before it there may be one that did.
    let mut written = found.into_iter().filter(|c| c.state != ContainerState::Created);
    let bad = |text: String| Refusal::new(StatusCode::BAD_REQUEST, text);
    if previous {
        let gone = || bad(format!("previous terminated container {container:?} in pod {name:?} not found"));
        return written.nth(1).map(|c| c.id).ok_or_else(gone);
    }
    written
        .next()
        .map(|c| c.id)
        .ok_or_else(|| bad(format!("container {container:?} in pod {name:?} is {}", waiting(pod, container))))
}

fn waiting(pod: &Pod, container: &str) -> String {
    let Some(status) = &pod.status else { return "not available".to_owned() };
    let state = all_containers(status).find(|c| c.name == container).and_then(|c| c.state.as_ref());
    let Some(state) = state else { return "not available".to_owned() };
    match state.waiting.as_ref().map(|w| w.reason.as_deref().unwrap_or_default()) {
        Some("ErrImagePull") => "waiting to start: image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => "waiting to start: trying and failing to pull image".to_owned(),
        Some("") | None if state.terminated.is_some() => "terminated".to_owned(),
        Some("") | None => "waiting to start - no logs yet".to_owned(),
        Some(reason) => format!("waiting to start: {reason}"),
    }
}

/// The pod's sandbox that is ready.
pub async fn sandbox(cri: &Client, pod: &Pod) -> Result<String, Refusal> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let filter = SandboxFilter {
        state: Some(SandboxState::Ready),
        labels: [(POD_UID.to_owned(), uid)].into(),
        ..SandboxFilter::default()
    };
    let mut found = cri.list_pod_sandbox(&filter).await?;
    found.sort_by_key(|s| std::cmp::Reverse(s.created_at));
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let none = || Refusal::new(StatusCode::NOT_FOUND, format!("pod {name:?} is not running"));
    found.into_iter().next().map(|s| s.id).ok_or_else(none)
}
