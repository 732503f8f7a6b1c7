//! What is done to pods from outside.

use super::*;

/// The end from outside.
pub fn deletions() -> Vec<Scenario> {
    let stubborn = || one("Always", &["ignore-term", "600"], json!({}));
    let missing = json!({"envFrom": [{"configMapRef": {"name": "missing"}}]});
    let pulling = json!({"containers": [{"name": "main", "image": SLOW, "imagePullPolicy": "Always"}]});
    vec![
        scenario(
            "grace-overrun",
            stubborn(),
            RUNS,
            vec![Until(&["Ready True"]), Delete(3), Gone(3), Saw(&["main ended 137 Error"]), Saw(&["Ready False"])],
        )
        .calls(&["StopContainer main", "StopPodSandbox", "RemoveContainer main", "RemovePodSandbox"]),
        scenario(
            "deleted-twice",
            stubborn(),
            RUNS,
            vec![Until(&["Ready True"]), Delete(600), Delete(2), Gone(1), Saw(&["main ended 137 Error"])],
        ),
        // The object goes at once, its container soon after.
        scenario(
            "deleted-by-force",
            stubborn(),
            RUNS,
            vec![Until(&["Ready True"]), Delete(0), Gone(0), Called("RemovePodSandbox")],
        )
        .calls(&["StopContainer main", "StopPodSandbox", "RemoveContainer main", "RemovePodSandbox"]),
        scenario("deleted-at-once", one("Always", &["sleep", "600"], json!({})), RUNS, vec![Delete(5), Gone(0)]),
        scenario(
            "deleted-while-pulling",
            pulling,
            WAITS,
            vec![
                Called("PullImage"),
                Until(&["PodReadyToStartContainers True", "main waits ContainerCreating"]),
                Delete(600),
                Gone(0),
            ],
        )
        .calls(&["PullImage", "StopPodSandbox", "RemovePodSandbox"])
        .never(&["CreateContainer main"]),
        scenario(
            "deleted-while-refused",
            one("Always", &["sleep", "600"], missing),
            WAITS,
            vec![
                Until(&["main waits CreateContainerConfigError", "main waits-with \"missing\" not found", "phase Pending"]),
                Delete(600),
                Gone(0),
            ],
        )
        .calls(&["RunPodSandbox", "RemovePodSandbox"])
        .never(&["CreateContainer main"]),
    ]
}

/// What changes while a pod runs.
pub fn changes() -> Vec<Scenario> {
    let image = || json!({"spec": {"containers": [{"name": "main", "image": OTHER}]}});
    let debug = json!({"spec": {"ephemeralContainers": [c("debug", &["exit", "3"], json!({}))]}});
    vec![
        scenario(
            "sandbox-dies",
            one("Always", &["sleep", "600"], json!({})),
            RUNS,
            vec![Until(&["Ready True"]), KillSandbox, Until(&["main restarts 1", "Ready True"]), NewAddress],
        )
        .calls(&[
            "RunPodSandbox",
            "StartContainer main",
            "StopContainer main",
            "StopPodSandbox",
            "RunPodSandbox",
            "StartContainer main",
        ]),
        // Its container lives on, is told to end, and ends well.
        scenario(
            "sandbox-dies-never",
            one("Never", &["sleep", "600"], json!({})),
            SUCCEEDS,
            vec![Until(&["Ready True"]), KillSandbox, Until(&["phase Succeeded", "main restarts 0", "main ended 0 Completed"])],
        )
        .calls(&["StartContainer main", "StopContainer main", "StopPodSandbox"]),
        scenario(
            "image",
            one("Always", &["sleep", "600"], json!({})),
            RUNS,
            vec![Until(&["Ready True"]), Patch("", image()), Until(&["main restarts 1", "main last 0", "Ready True"])],
        )
        .calls(&["StartContainer main", "StopContainer main", "CreateContainer main", "StartContainer main"]),
        // Ended to be replaced, it has not failed.
        scenario(
            "image-never",
            one("Never", &["sleep", "600"], json!({})),
            RUNS,
            vec![
                Until(&["Ready True"]),
                Patch("", image()),
                Until(&["main restarts 1", "main last 0", "phase Running", "Ready True"]),
            ],
        )
        .calls(&["StopContainer main", "CreateContainer main", "StartContainer main"]),
        scenario(
            "ephemeral",
            one("Always", &["sleep", "600"], json!({})),
            RUNS,
            vec![
                Until(&["Ready True"]),
                Patch("/ephemeralcontainers", debug),
                Until(&["debug ended 3 Error", "Ready True", "main restarts 0"]),
            ],
        )
        .calls(&["StartContainer main", "CreateContainer debug", "StartContainer debug"])
        .never(&["StopContainer main"]),
    ]
}
