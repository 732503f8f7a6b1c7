//! The real thing, each in a network namespace of its own.

use super::*;
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs in a network namespace that ends with its thread. `None` where none can be made.
fn in_own_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let ran = std::thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok().then(work)).join().unwrap();
    if ran.is_none() {
        eprintln!("skipped: no network namespace can be made here");
    }
    ran
}

fn tool(words: &[&str], input: &str) -> Option<String> {
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        eprintln!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cleaned(words: &[&str]) -> Result<Done, Error> {
    let args = <Args as clap::Parser>::parse_from([&["cleanup"], words].concat());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&args))
}

#[test]
fn our_tables_go_and_others_stay() {
    in_own_namespace(|| {
        if tool(&["nft", "--version"], "").is_none() {
            return eprintln!("skipped: nft is not installed");
        }
        let tables =
            "table ip ferrolet {\n chain a {\n }\n}\ntable ip other {\n}\ntable ip kube-proxy {\n chain services {\n }\n}\n";
        tool(&["nft", "-f", "-"], tables).unwrap();
        let root = tempfile::tempdir().unwrap();
        let root = root.path().to_str().unwrap();
        assert_eq!(cleaned(&["--root-dir", root]).unwrap().lines, ["removed nf_tables table ip ferrolet"]);
        assert_eq!(tool(&["nft", "list", "tables"], "").unwrap(), "table ip other\ntable ip kube-proxy\n");
        assert_eq!(cleaned(&["--root-dir", root]).unwrap().lines, ["no table of ferrolet was in nf_tables"]);
        let done = cleaned(&["--root-dir", root, "--kube-proxy"]).unwrap();
        assert!(done.lines.contains(&"removed nf_tables table ip kube-proxy".to_owned()), "{done:?}");
        assert!(!done.failed, "{done:?}");
        assert_eq!(tool(&["nft", "list", "tables"], "").unwrap(), "table ip other\n");
    });
}

const RULES: &str = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-ABC - [0:0]\n:KUBE-SEP-DEF - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:MINE - [0:0]\n\
    -A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n-A PREROUTING -j MINE\n\
    -A KUBE-SERVICES -d ADDRESS -p tcp -j KUBE-SVC-ABC\n-A KUBE-SVC-ABC -j KUBE-SEP-DEF\n-A KUBE-SEP-DEF -j KUBE-MARK-MASQ\n\
    -A MINE -p udp -j RETURN\nCOMMIT\n*filter\n:KUBE-FORWARD - [0:0]\n:KUBE-FIREWALL - [0:0]\n-A FORWARD -j KUBE-FORWARD\n\
    -A INPUT -j KUBE-FIREWALL\nCOMMIT\n*mangle\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n";

#[test]
fn chains_of_kube_proxy_go_in_both_kinds_of_iptables() {
    in_own_namespace(|| {
        let root = tempfile::tempdir().unwrap();
        let mut tried = Vec::new();
        for (program, address) in [
            ("iptables-nft", "10.96.0.1"),
            ("ip6tables-nft", "fd00::1"),
            ("iptables-legacy", "10.96.0.1"),
            ("ip6tables-legacy", "fd00::1"),
        ] {
            match tool(&[&format!("{program}-restore")], &RULES.replace("ADDRESS", address)) {
                Some(_) => tried.push(program),
                None => eprintln!("skipped: {program}-restore does not work here"),
            }
        }
        let done = cleaned(&["--root-dir", root.path().to_str().unwrap(), "--kube-proxy"]).unwrap();
        assert!(!done.failed, "{done:?}");
        for program in tried {
            let line = format!("removed {program}: 4 chains of kube-proxy in table nat and 1 jumps to them");
            assert!(done.lines.contains(&line), "{program}: {done:?}");
            let left = format!("left: {program}: chain KUBE-FIREWALL of table filter is kubelet's");
            assert!(done.lines.contains(&left), "{program}: {done:?}");
            let saved = tool(&[&format!("{program}-save")], "").unwrap();
            let ours: Vec<&str> = saved.lines().filter(|line| line.contains("KUBE-")).collect();
            assert_eq!(ours.len(), 2, "kubelet's chain and the jump to it: {saved}");
            assert!(saved.contains("-A PREROUTING -j MINE") && saved.contains("-A MINE -p udp -j RETURN"), "{saved}");
        }
        let done = cleaned(&["--root-dir", root.path().to_str().unwrap(), "--kube-proxy"]).unwrap();
        assert!(!done.lines.iter().any(|line| line.starts_with("removed")), "{done:?}");
    });
}

#[test]
fn a_running_daemon_is_not_robbed_of_its_rules() {
    in_own_namespace(|| {
        let root = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(root.path().join(socket::NAME)).unwrap();
        let path = root.path().to_str().unwrap().to_owned();
        let error = cleaned(&["--root-dir", &path]).unwrap_err().to_string();
        assert!(error.contains("is running") && error.contains("--force"), "{error}");
        assert!(cleaned(&["--root-dir", &path, "--force"]).is_ok());
    });
}
