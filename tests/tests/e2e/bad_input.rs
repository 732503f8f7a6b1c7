//! Bad input gets an error that names the object and the field, or an event, and disturbs nothing else.

use crate::shared::{LIMIT, contains, must_contain, pod, test};
use anyhow::bail;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![
        test("bad_input::malformed_yaml", |ns| {
            let said = ns.apply_refused("apiVersion: v1\nkind: Pod\nmetadata: {name: broken\nspec: [")?;
            must_contain(&said, "error parsing")
        }),
        test("bad_input::malformed_json_sent_to_the_api", |ns| {
            let file = ns.lab.dir.join("broken.json");
            std::fs::write(&file, "{\"kind\": \"Pod\", \"metadata\": {")?;
            let path = format!("/api/v1/namespaces/{}/pods", ns.name);
            let said = ns.refused(&["create", "--raw", &path, "-f", &file.to_string_lossy()])?;
            must_contain(&said, "BadRequest")
        }),
        test("bad_input::unknown_field", |ns| {
            let said = ns.apply_refused(&pod("unknown", "serve", "", "replicaz: 3"))?;
            must_contain(&said, "unknown field \"spec.replicaz\"")
        }),
        test("bad_input::unparsable_quantity", |ns| {
            let said = ns.apply_refused(&pod("quantity", "serve", "resources: {limits: {memory: 12zz}}", ""))?;
            must_contain(&said, "resources.limits")
        }),
        test("bad_input::port_out_of_range", |ns| {
            let said = ns.apply_refused(&pod("port", "serve", "ports: [{containerPort: 70000}]", ""))?;
            must_contain(&said, "spec.containers[0].ports[0].containerPort")?;
            must_contain(&said, "between 1 and 65535")
        }),
        test("bad_input::image_that_cannot_be_pulled", |ns| {
            let manifest = pod("nopull", "serve", "", "").replace(ferrolet_tests::images::WEB, "127.0.0.1:1/nobody/nothing:1");
            ns.apply(&manifest)?;
            ns.pod("nopull", "waiting with the pull's error", |p| {
                let waiting = &p["status"]["containerStatuses"][0]["state"]["waiting"];
                (waiting["reason"] == "ErrImagePull" || waiting["reason"] == "ImagePullBackOff")
                    && contains(&waiting["message"], "127.0.0.1:1/nobody/nothing:1")
            })?;
            ns.event("nopull", "Failed", "127.0.0.1:1/nobody/nothing:1")?;
            ns.pod("nopull", "backing off", |p| {
                p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ImagePullBackOff"
            })?;
            // Beside it another pod starts as if nothing were.
            ns.apply(&pod("beside", "serve", "", ""))?;
            ns.ready("beside").map(drop)
        }),
        test("bad_input::image_name_that_is_none", |ns| {
            ns.apply(&pod("badname", "serve", "", "").replace(ferrolet_tests::images::WEB, "Not/A/Valid::Name"))?;
            ns.pod("badname", "InvalidImageName", |p| {
                p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "InvalidImageName"
            })
            .map(drop)
        }),
        test("bad_input::image_that_must_be_there_and_is_not", |ns| {
            let manifest =
                pod("never", "serve", "imagePullPolicy: Never", "").replace(ferrolet_tests::images::WEB, "ferrolet.dev/absent:1");
            ns.apply(&manifest)?;
            ns.pod("never", "ErrImageNeverPull", |p| {
                p["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
            })
            .map(drop)
        }),
        test("bad_input::command_that_does_not_exist", |ns| {
            ns.apply(&pod("nocommand", "serve", "command: [/no/such/program]", ""))?;
            ns.event("nocommand", "Failed", "/no/such/program")?;
            ns.pod("nocommand", "the runtime's reason in the status", |p| {
                let status = &p["status"]["containerStatuses"][0];
                let text = format!("{}{}", status["state"], status["lastState"]);
                text.contains("/no/such/program") || text.contains("CrashLoopBackOff") || text.contains("RunContainerError")
            })
            .map(drop)
        }),
        test("bad_input::missing_config_map", |ns| {
            ns.apply(&pod("noconfig", "serve", "env: [{name: A, valueFrom: {configMapKeyRef: {name: absent, key: a}}}]", ""))?;
            ns.pod("noconfig", "CreateContainerConfigError", |p| {
                let waiting = &p["status"]["containerStatuses"][0]["state"]["waiting"];
                waiting["reason"] == "CreateContainerConfigError" && contains(&waiting["message"], "absent")
            })?;
            ns.kubectl(&["create", "configmap", "absent", "--from-literal=a=1"])?;
            ns.ready("noconfig").map(drop)
        }),
        test("bad_input::missing_secret_volume", |ns| {
            let volumes = "volumes: [{name: s, secret: {secretName: absent}}]";
            ns.apply(&pod("nosecret", "serve", "volumeMounts: [{name: s, mountPath: /s}]", volumes))?;
            ns.event("nosecret", "FailedMount", "absent")?;
            ns.kubectl(&["create", "secret", "generic", "absent", "--from-literal=a=1"])?;
            ns.ready("nosecret").map(drop)
        }),
        test("bad_input::what_is_not_supported_is_refused_by_name", |ns| {
            let volumes = "volumes: [{name: v, nfs: {server: 127.0.0.1, path: /x}}]";
            ns.apply(&pod("nfs", "serve", "volumeMounts: [{name: v, mountPath: /v}]", volumes))?;
            wait_for("an event that names the field", LIMIT, || {
                let events = ns.list("events")?;
                if events.iter().any(|e| contains(&e["message"], "nfs")) {
                    Ok(())
                } else {
                    bail!("no event names nfs: {events:#?}")
                }
            })
        }),
    ]
}
