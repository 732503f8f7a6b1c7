//! Images from a registry: pulled once, told, held back, and had as soon as what was wrong is put right.

use crate::shared::{LIMIT, Ns, contains, must_contain, test};
use anyhow::{Context, Result, bail};
use ferrolet_tests::images::{self, Blobs, Image};
use ferrolet_tests::registry::Registry;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::Value;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        test("images::one_pull_for_all_one_at_a_time", one_pull),
        test("images::what_is_wrong_is_told_and_ends", held_back),
        test("images::credentials_that_come_later", credentials),
    ]
}

/// The lab's image, with a default command of its own that makes its bytes differ from all others.
fn image(ns: &Ns, words: &str) -> Result<Blobs> {
    let files: &[(&str, &std::path::Path)] = &[("/web", &ns.lab.bins.web)];
    images::build(&Image { name: words, files, entrypoint: &["/web"], arguments: &["echo", words], user: "" })
}

fn pod(name: &str, image: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  {extra}\n  containers: [{{name: main, image: \"{image}\"}}]\n"
    )
}

fn waiting(p: &Value) -> &Value {
    &p["status"]["containerStatuses"][0]["state"]["waiting"]
}

fn held(ns: &Ns, name: &str, reason: &str, text: &str) -> Result<Value> {
    ns.pod(name, reason, |p| waiting(p)["reason"] == reason && contains(&waiting(p)["message"], text))
}

fn done(ns: &Ns, name: &str) -> Result<Value> {
    ns.pod(name, "Succeeded", |p| p["status"]["phase"] == "Succeeded")
}

fn one_pull(ns: &mut Ns) -> Result<()> {
    let registry = Registry::start(&ns.lab.nodes[0].netns, 5301)?;
    let first = image(ns, "first")?;
    let digest = images::digest(&first.manifest);
    let wanted = registry.offer("lab/first", first);
    let other = registry.offer("lab/other", image(ns, "other")?);
    registry.hold(true);
    for name in ["a", "b", "c"] {
        ns.apply(&pod(name, &wanted, ""))?;
    }
    ns.apply(&pod("d", &other, ""))?;
    for name in ["a", "b", "c"] {
        ns.event(name, "Pulling", &format!("Pulling image {wanted:?}"))?;
    }
    ns.event("d", "Pulling", &format!("Pulling image {other:?}"))?;
    wait_for("somebody to ask the registry", LIMIT, || if registry.held() > 0 { Ok(()) } else { bail!("nobody") })?;
    registry.hold(false);
    for name in ["a", "b", "c", "d"] {
        done(ns, name)?;
    }
    // Pulls of one image are one, and by default one pull follows the other.
    if (registry.pulls("lab/first"), registry.pulls("lab/other"), registry.most_held()) != (1, 1, 1) {
        let (first, other) = (registry.pulls("lab/first"), registry.pulls("lab/other"));
        bail!("{first} and {other} pulls, {} at once", registry.most_held());
    }
    let pulled = ns.event("b", "Pulled", &format!("Successfully pulled image {wanted:?} in "))?;
    let message = pulled["message"].as_str().unwrap_or_default();
    let tail = message.split(" (").nth(1).unwrap_or_default();
    let size = tail.split(". Image size: ").nth(1).and_then(|t| t.strip_suffix(" bytes.")).and_then(|t| t.parse::<u64>().ok());
    if !tail.contains("s including waiting)") || size.is_none_or(|s| s == 0) {
        bail!("message: {message}");
    }
    must_contain(&ns.kubectl(&["logs", "a"])?, "first")?;
    // By digest too, and nobody is asked for what is there.
    let by_digest = format!("{}/lab/first@{digest}", registry.address);
    ns.apply(&pod("digest", &by_digest, ""))?;
    ns.apply(&pod("present", &wanted, ""))?;
    for name in ["digest", "present"] {
        // The runtime knows it by its tag, and by one digest.
        let status = &done(ns, name)?["status"]["containerStatuses"][0];
        if status["image"] != wanted.as_str() || status["imageID"] != by_digest.as_str() {
            bail!("image {} with ID {}", status["image"], status["imageID"]);
        }
    }
    ns.event(
        "present",
        "Pulled",
        &format!("Container image {wanted:?} already present on machine and can be accessed by the pod"),
    )?;
    if registry.pulls("lab/first") != 1 {
        bail!("an image that is there was pulled again");
    }
    // Always asks, though the image is there; the command is the image's unless the pod has one.
    ns.kubectl(&[
        "run",
        "always",
        "--restart=Never",
        "--image-pull-policy=Always",
        &format!("--image={wanted}"),
        "--",
        "echo",
        "own",
    ])?;
    done(ns, "always")?;
    must_contain(&ns.kubectl(&["logs", "always"])?, "own")?;
    if registry.pulls("lab/first") != 2 {
        bail!("imagePullPolicy Always did not ask the registry");
    }
    Ok(())
}

fn held_back(ns: &mut Ns) -> Result<()> {
    let registry = Registry::start(&ns.lab.nodes[0].netns, 5302)?;
    let (missing, later) = (registry.name("lab/missing"), registry.name("lab/later"));
    ns.apply(&pod("gone", &missing, ""))?;
    ns.apply(&pod("later", &later, ""))?;
    ns.apply(&pod("odd", "Not-A-Name:1", ""))?;
    let never = "apiVersion: v1\nkind: Pod\nmetadata: {name: never}\nspec: {restartPolicy: Never, containers: [{name: main, image: \"lab.invalid/never:1\", imagePullPolicy: Never, args: [echo, x]}]}";
    ns.apply(never)?;
    let cause = format!("failed to resolve reference {missing:?}: {missing}: not found");
    held(ns, "gone", "ImagePullBackOff", &format!("Back-off pulling image {missing:?}: ErrImagePull: "))?;
    held(ns, "gone", "ImagePullBackOff", &cause)?;
    for (reason, text) in [
        ("Pulling", format!("Pulling image {missing:?}")),
        ("Failed", format!("Failed to pull image {missing:?}: rpc error: code = NotFound desc = ")),
        ("Failed", "Error: ErrImagePull".to_owned()),
        ("BackOff", format!("Back-off pulling image {missing:?}")),
        ("Failed", "Error: ImagePullBackOff".to_owned()),
    ] {
        let event = ns.event("gone", reason, &text)?;
        if event["involvedObject"]["fieldPath"] != "spec.containers{main}" {
            bail!("event: {event}");
        }
    }
    held(ns, "odd", "InvalidImageName", "Failed to apply default image tag \"Not-A-Name:1\": couldn't parse image name")?;
    ns.event("odd", "InspectFailed", "Failed to apply default image tag")?;
    ns.event("odd", "Failed", "Error: InvalidImageName")?;
    held(ns, "never", "ErrImageNeverPull", "Container image \"lab.invalid/never:1\" is not present with pull policy of Never")?;
    ns.event("never", "ErrImageNeverPull", "is not present with pull policy of Never")?;
    // Another image in the pod is another matter: nothing of the old delay is left.
    let change = |image: &str| format!("{{\"spec\":{{\"containers\":[{{\"name\":\"main\",\"image\":\"{image}\"}}]}}}}");
    let good = registry.offer("lab/good", image(ns, "good")?);
    ns.kubectl(&["patch", "pod", "odd", "-p", &change(&good)])?;
    ns.kubectl(&["patch", "pod", "gone", "-p", &change(&good)])?;
    // One that is brought to the node by hand ends the wait, whatever its policy says of pulling.
    held(ns, "later", "ImagePullBackOff", "not found")?;
    let containerd = &ns.lab.nodes[0].containerd;
    containerd.ctr(&["images", "tag", images::WEB, &later])?;
    containerd.ctr(&["images", "tag", images::WEB, "lab.invalid/never:1"])?;
    for name in ["odd", "gone", "later", "never"] {
        done(ns, name)?;
    }
    Ok(())
}

fn credentials(ns: &mut Ns) -> Result<()> {
    let registry = Registry::start(&ns.lab.nodes[0].netns, 5303)?;
    let private = registry.offer("lab/private", image(ns, "private")?);
    registry.protect("lab/private", "user:password");
    ns.apply(&pod("p", &private, "imagePullSecrets: [{name: later}]"))?;
    held(ns, "p", "ImagePullBackOff", "401 Unauthorized")?;
    ns.event(
        "p",
        "FailedToRetrieveImagePullSecret",
        "Unable to retrieve image pull secret \"later\"; attempting to pull the image may not succeed.",
    )?;
    let secret = |password: &str| {
        let server = format!("--docker-server={}", registry.address);
        let password = format!("--docker-password={password}");
        ns.kubectl(&["create", "secret", "docker-registry", "later", &server, "--docker-username=user", &password])
    };
    secret("wrong")?;
    wait_for("a pull with the wrong password", LIMIT, || {
        if registry.pulls("lab/private") >= 3 { Ok(()) } else { bail!("{} requests", registry.pulls("lab/private")) }
    })?;
    ns.kubectl(&["delete", "secret", "later"])?;
    secret("password")?;
    let begun = Instant::now();
    done(ns, "p")?;
    if begun.elapsed() > Duration::from_secs(17) {
        bail!("the pull waited {:?}, to the end of its delay", begun.elapsed());
    }
    // Nothing that was shown to a registry may show up in what users read.
    let told = ns.kubectl(&["get", "events", "-o", "json"])?;
    for word in ["wrong", "password\""] {
        if told.contains(&format!("user:{word}")) {
            bail!("an event holds a password");
        }
    }
    ns.get("pod", "p").context("the pod is gone").map(drop)
}
