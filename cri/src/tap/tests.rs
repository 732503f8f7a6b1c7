use super::*;
use crate::fake::{Fake, ImageConfig, Profile};
use crate::types::{ContainerConfig, ContainerFilter, ImageSpec, SandboxConfig, SandboxMetadata};
use crate::{Client, Options};
use std::time::Duration;

#[tokio::test]
async fn calls_are_written_down_by_pod_and_container() {
    let dir = tempfile::tempdir().unwrap();
    let (front, behind) = (dir.path().join("tap.sock"), dir.path().join("cri.sock"));
    let fake = Fake::start_at(Profile::containerd_2(), &behind).unwrap();
    fake.add_image("web:1", ImageConfig::default());
    let tap = Tap::start(&front, &behind).unwrap();
    let client = Client::connect(&tap.endpoint(), Options::default()).unwrap();
    let metadata = SandboxMetadata { name: "p".into(), namespace: "ns".into(), uid: "u".into(), attempt: 0 };
    let pod = SandboxConfig { metadata, ..Default::default() };
    let sandbox = client.run_pod_sandbox(&pod, "").await.unwrap();
    let config = ContainerConfig { name: "main".into(), image: ImageSpec::new("web:1"), ..Default::default() };
    let id = client.create_container(&sandbox, &config, &pod).await.unwrap();
    client.start_container(&id).await.unwrap();
    client.exec_sync(&id, &["/web".into(), "echo".into(), "x".into()], Duration::from_secs(5)).await.unwrap();
    // A failed call passes too, with its status in the trailers.
    let refused = client.create_container(&sandbox, &config, &pod).await.unwrap_err();
    assert!(refused.to_string().contains("is reserved"), "{refused}");
    client.stop_container(&id, Duration::from_secs(3)).await.unwrap();
    let line = |c: &Tapped| format!("{} {} {}", c.method, c.container, c.detail).trim().to_owned();
    let calls: Vec<String> = tap.calls("u").iter().map(line).collect();
    let expected = [
        "RunPodSandbox",
        "CreateContainer main",
        "StartContainer main",
        "ExecSync main /web echo x",
        "CreateContainer main",
        "StopContainer main 3",
    ];
    assert_eq!(calls, expected);
    assert_eq!((tap.sandbox("u"), tap.sandbox("other")), (Some(sandbox), None));
    // A runtime that is gone is gone behind the tap as well, and comes back.
    fake.stop_server().await;
    assert!(client.list_containers(&ContainerFilter::default()).await.is_err());
    fake.start_server().unwrap();
    assert_eq!(client.list_containers(&ContainerFilter::default()).await.unwrap().len(), 1);
}
