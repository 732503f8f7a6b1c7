use super::*;
use std::process::Command;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn primary_addresses_come_first_and_once() {
    let all = primary_first(&ips(&["10.0.0.2"]), ips(&["10.0.0.1", "10.0.0.2", "fd00::1"]));
    assert_eq!(all, ips(&["10.0.0.2", "10.0.0.1", "fd00::1"]));
}

#[test]
fn a_primary_address_stays_for_as_long_as_the_host_has_it() {
    let before = ips(&["10.0.0.2", "fd00::1"]);
    let now = ips(&["10.0.0.9", "fd00::9"]);
    assert_eq!(settled(&before, &ips(&["10.0.0.2", "fd00::1", "10.0.0.9"]), &now), before);
    assert_eq!(settled(&before, &ips(&["10.0.0.2"]), &now), ips(&["10.0.0.2", "fd00::9"]));
    assert_eq!(settled(&before, &[], &[]), ips(&[]));
}

/// A thread in a network namespace of its own, which ends with it; `None` where that is not allowed.
fn in_own_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    std::thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok().then(work)).join().unwrap()
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
}

#[test]
fn changes_are_told_without_being_asked_for() {
    let ran = in_own_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            ip("link add d0 type veth peer name d1");
            ip("link set d1 up");
            ip("link set d0 up");
            ip("address add 192.0.2.1/24 dev d0");
            let (inputs, mut inbox) = mpsc::channel(4);
            let cancel = CancellationToken::new();
            let task = spawn(Primary::Given(ips(&["192.0.2.9"])), inputs, cancel.clone()).await;
            let mut next = async || {
                let told = tokio::time::timeout(Duration::from_secs(10), inbox.recv()).await.unwrap();
                match told {
                    Some(Input::NodeAddresses(told)) => told,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(next().await, ips(&["192.0.2.9", "192.0.2.1"]));
            ip("address add 192.0.2.9/24 dev d0");
            ip("address add 192.0.2.2/24 dev d0");
            ip("address add 2001:db8::1/64 dev d0 nodad");
            let mut told = next().await;
            // A burst is told at once unless this thread was slow.
            while told.len() < 4 {
                told = next().await;
            }
            assert_eq!(told, ips(&["192.0.2.9", "192.0.2.1", "192.0.2.2", "2001:db8::1"]));
            ip("link set lo up");
            ip("address del 192.0.2.2/24 dev d0");
            assert_eq!(next().await, ips(&["192.0.2.9", "192.0.2.1", "2001:db8::1"]), "loopback says nothing");
            cancel.cancel();
            task.await.unwrap();
        });
    });
    if ran.is_none() {
        eprintln!("skipped: no network namespace can be made here");
    }
}
