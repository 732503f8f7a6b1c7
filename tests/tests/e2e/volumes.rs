//! Volumes: what they show of API objects while the pod runs, and the kinds that have more than that to them.

mod claims;
mod escapes;
mod images;
mod remains;

use crate::shared::{LIMIT, Ns, test};
use anyhow::{Result, bail};
use ferrolet_tests::images::WEB;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let mut all = vec![
        test("volumes::running_pods_see_changes", running_pods_see_changes),
        test("volumes::certificates_that_are_not_offered", not_offered),
    ];
    all.extend(claims::trials());
    all.extend(escapes::trials());
    all.extend(images::trials());
    all.extend(remains::trials());
    all
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: shows, labels: {colour: red}, annotations: {note: first}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: WEB
    args: [serve]
    volumeMounts:
    - {name: map, mountPath: /v/map}
    - {name: secret, mountPath: /v/secret}
    - {name: own, mountPath: /v/own}
    - {name: all, mountPath: /v/all}
    - {name: map, mountPath: /fixed, subPath: key}
  volumes:
  - {name: map, configMap: {name: c}}
  - {name: secret, secret: {secretName: s}}
  - {name: own, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - name: all
    projected:
      sources:
      - {configMap: {name: later, optional: true}}
      - {secret: {name: s, items: [{key: word, path: deep/word}]}}
      - {downwardAPI: {items: [{path: notes, fieldRef: {fieldPath: metadata.annotations}}]}}
";

/// The lab's API server has neither kind: the pod waits and says why, and others do not.
fn not_offered(ns: &mut Ns) -> Result<()> {
    let source = |name: &str, source: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
             - {{name: main, image: '{WEB}', args: [serve], volumeMounts: [{{name: v, mountPath: /v}}]}}\n  volumes:\n  \
             - {{name: v, projected: {{sources: [{source}]}}}}\n"
        )
    };
    ns.apply(&source("trust", "{clusterTrustBundle: {name: roots, path: roots.pem}}"))?;
    ns.apply(&source("own", "{podCertificate: {signerName: example.com/s, keyType: ED25519, credentialBundlePath: own.pem}}"))?;
    ns.apply(&source("plain", "{downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}"))?;
    // Who may not ask for what is not there is told that; who may is told that it is not there.
    ns.event("trust", "FailedMount", "clustertrustbundles.certificates.k8s.io is forbidden")?;
    ns.event("own", "FailedMount", "podcertificaterequests.certificates.k8s.io is forbidden")?;
    ns.ready("plain").map(drop)
}

fn running_pods_see_changes(ns: &mut Ns) -> Result<()> {
    ns.kubectl(&["create", "configmap", "c", "--from-literal=key=one", "--from-literal=goes=x"])?;
    ns.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=quiet"])?;
    ns.apply(&POD.replace("WEB", WEB))?;
    ns.ready("shows")?;
    shows(ns, "map/key", Some("one"))?;
    shows(ns, "all/later", None)?;
    ns.kubectl(&["create", "configmap", "later", "--from-literal=later=here"])?;
    let data = "{\"data\":{\"key\":\"two\",\"goes\":null,\"comes\":\"y\"}}";
    ns.kubectl(&["patch", "configmap", "c", "-p", data])?;
    ns.kubectl(&["patch", "secret", "s", "-p", "{\"stringData\":{\"word\":\"louder\"}}"])?;
    ns.kubectl(&["label", "pod", "shows", "colour=blue", "--overwrite"])?;
    ns.kubectl(&["annotate", "pod", "shows", "note=second", "--overwrite"])?;
    shows(ns, "map/key", Some("two"))?;
    shows(ns, "map/goes", None)?;
    shows(ns, "map/comes", Some("y"))?;
    shows(ns, "secret/word", Some("louder"))?;
    shows(ns, "own/labels", Some("colour=\"blue\""))?;
    shows(ns, "all/later", Some("here"))?;
    shows(ns, "all/deep/word", Some("louder"))?;
    shows(ns, "all/notes", Some("note=\"second\""))?;
    ns.kubectl(&["delete", "configmap", "later"])?;
    shows(ns, "all/later", None)?;
    let fixed = ns.kubectl(&["exec", "shows", "--", "/web", "cat", "/fixed"])?;
    if fixed != "one" {
        bail!("a subPath mount shows {fixed:?}");
    }
    let pod = ns.pod("shows", "its status", |p| p["status"]["phase"] == "Running")?;
    if pod["status"]["containerStatuses"][0]["restartCount"] != 0 {
        bail!("it was restarted: {pod}");
    }
    Ok(())
}

/// Waits until the pod sees this text in the file, or no file.
fn shows(ns: &Ns, file: &str, text: Option<&str>) -> Result<()> {
    let path = format!("/v/{file}");
    wait_for(&format!("{file} to show {text:?}"), LIMIT, || {
        let seen = ns.kubectl(&["exec", "shows", "--", "/web", "cat", &path]);
        match (text, seen) {
            (Some(text), Ok(seen)) if seen.contains(text) => Ok(()),
            (None, Err(error)) if error.to_string().contains("No such file") => Ok(()),
            (_, seen) => bail!("{seen:?}"),
        }
    })
}
