//! Phases told one by one, and of all pairs of main containers by the words of the API documentation.

use super::*;

/// The phase by the words of the API documentation, for pods without init containers, worked out on its own.
fn oracle(policy: &str, looks: &[&str], terminal: bool) -> &'static str {
    let never_ran = |l: &str| matches!(l, "none" | "created");
    let ended = |l: &str| matches!(l, "ok" | "failed" | "crashloop");
    let restarts = |l: &str| match policy {
        "Always" => true,
        "OnFailure" => l != "ok",
        _ => false,
    };
    if terminal {
        return if looks.iter().all(|l| *l == "ok") { "Succeeded" } else { "Failed" };
    }
    if looks.iter().any(|l| never_ran(l)) {
        return "Pending";
    }
    if looks.contains(&"running") || looks.iter().any(|l| ended(l) && restarts(l)) {
        return "Running";
    }
    if looks.iter().all(|l| *l == "ok") { "Succeeded" } else { "Failed" }
}

#[test]
fn phases_of_all_pairs_of_containers() {
    for policy in ["Always", "OnFailure", "Never"] {
        for a in LOOKS {
            for b in LOOKS {
                for terminal in [false, true] {
                    let running = a == "running" || b == "running";
                    if terminal && running {
                        continue;
                    }
                    let spec = json!({"restartPolicy": policy,
                        "containers": [{"name": "main", "image": "i"}, {"name": "b", "image": "i"}]});
                    let mut w = World::new(spec);
                    look(&mut w, "main", a);
                    look(&mut w, "b", b);
                    if terminal {
                        w.lifecycle = Lifecycle::Terminated { why: Why::Completed };
                    }
                    let phase = w.status().phase.unwrap();
                    let expected = match oracle(policy, &[a, b], terminal) {
                        // Told once the pod's sandbox has ended too.
                        "Succeeded" | "Failed" if !terminal => "Pending",
                        other => other,
                    };
                    assert_eq!(phase, expected, "{policy} {a} {b} terminal={terminal}");
                }
            }
        }
    }
}

#[test]
fn phases_with_an_init_container() {
    for (policy, init, main, expected) in [
        ("Always", "none", "none", "Pending"),
        ("Always", "running", "none", "Pending"),
        ("Always", "failed", "none", "Pending"),
        ("Never", "failed", "none", "Failed"),
        ("Always", "ok", "none", "Pending"),
        ("Always", "ok", "running", "Running"),
        ("Never", "ok", "ok", "Succeeded"),
        // Its record was removed, but main runs: it must have succeeded.
        ("Always", "none", "running", "Running"),
    ] {
        let mut w = World::new(json!({"restartPolicy": policy, "initContainers": [{"name": "i", "image": "i"}]}));
        look(&mut w, "i", init);
        look(&mut w, "main", main);
        if matches!(expected, "Failed" | "Succeeded") {
            assert_eq!(w.status().phase.as_deref(), Some("Pending"));
            w.lifecycle = Lifecycle::Terminated { why: Why::Completed };
        }
        assert_eq!(w.status().phase.as_deref(), Some(expected), "{policy} {init} {main}");
    }
}

#[test]
fn phases_with_a_sidecar() {
    for (side, started, main, expected) in [
        ("running", false, "none", "Pending"),
        ("running", true, "none", "Pending"),
        ("running", true, "running", "Running"),
        ("failed", false, "running", "Running"),
        // It restarts beside a pod that has run: no way back to Pending.
        ("running", false, "running", "Running"),
    ] {
        let mut w = World::new(json!({"initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always",
            "startupProbe": {"exec": {"command": ["x"]}}}]}));
        look(&mut w, "side", side);
        look(&mut w, "main", main);
        let v = Verdict { container_id: "side-0".into(), startup: Some(started), ..Default::default() };
        w.verdicts.0.insert("side".into(), v);
        assert_eq!(w.status().phase.as_deref(), Some(expected), "{side} {started} {main}");
    }
}
