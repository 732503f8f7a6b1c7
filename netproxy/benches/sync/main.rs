//! How long it takes from objects in memory to rules, and from rules to the kernel, at 10,000 services of 10 endpoints.
//!
//! The kernel part runs in a network namespace of its own and needs root. `live` prints figures of a whole proxy.

mod live;

use criterion::{Criterion, criterion_group, criterion_main};
use ferrolet_netproxy::compile::{compile, update};
use ferrolet_netproxy::diff::{Installed, Transaction, diff_of, full};
use ferrolet_netproxy::model::{Endpoint, Family, Key, Proto, Service, ServicePort, Slice, SlicePort};
use ferrolet_netproxy::netlink::Netlink;
use ferrolet_netproxy::proxy::Kernel;
use ferrolet_netproxy::ruleset::{Policy, Ruleset};
use ferrolet_netproxy::tables::{Tables, Touched};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

fn key(n: u32) -> Key {
    Key::new("default", &format!("service-{n}"))
}

fn slice(n: u32, endpoints: std::ops::Range<u32>) -> Slice {
    let address = |e: u32| IpAddr::from((0x0a80_0000 + n * 16 + e).to_be_bytes());
    let endpoint =
        |e| Endpoint { ip: address(e), ready: true, serving: true, terminating: false, local: false, placed: true, hints: None };
    Slice {
        service: key(n),
        family: Family::V4,
        ports: [SlicePort { name: "web".into(), proto: Proto::Tcp, port: 8080 }].into(),
        endpoints: endpoints.map(endpoint).collect(),
    }
}

fn cluster(services: u32, endpoints: u32) -> Tables {
    let mut tables = Tables::default();
    let mut touched = Touched::new();
    for n in 0..services {
        let service = Service {
            cluster_ips: vec![IpAddr::from((0x0a60_0000 + n).to_be_bytes())],
            ports: vec![ServicePort { name: "web".into(), proto: Proto::Tcp, port: 80, node_port: None }],
            external_local: false,
            internal_local: false,
            ..Service::default()
        };
        tables.set_service(key(n), Some(service), &mut touched);
        tables.set_slice(key(n), Some(slice(n, 0..endpoints)), &mut touched);
    }
    tables
}

fn policy() -> Policy {
    Policy { families: [Family::V4].into(), ..Policy::default() }
}

/// One slice changed: what is to be told to the kernel.
fn change(tables: &mut Tables, rules: &mut Ruleset, installed: &Installed, endpoints: std::ops::Range<u32>) -> Transaction {
    let mut touched = Touched::new();
    tables.set_slice(key(7), Some(slice(7, endpoints)), &mut touched);
    let changed = update(rules, tables, &touched, &BTreeSet::new());
    diff_of(installed, rules, &changed)
}

fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

fn bench(c: &mut Criterion) {
    let empty = resident_kib();
    let tables = cluster(10_000, 10);
    let with_tables = resident_kib();
    let rules = compile(&tables, &policy());
    let with_rules = resident_kib();
    eprintln!("resident, KiB: tables of 100,000 endpoints {}, ruleset {}", with_tables - empty, with_rules - with_tables);
    let mut group = c.benchmark_group("10k services of 10 endpoints");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_function("compile", |b| b.iter(|| black_box(compile(&tables, &policy()))));
    group.bench_function("diff, everything new", |b| b.iter(|| black_box(full(&rules))));
    if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("SKIPPED: the kernel part needs root and network namespaces");
        return;
    }
    live::figures(10_000, 10);
    live::figures(44_000, 4);
    let mut kernel = Netlink::open().expect("a netlink socket");
    let tx = full(&rules);
    group.bench_function("kernel, everything replaced in one transaction", |b| b.iter(|| kernel.commit(&tx).expect("taken")));
    group.bench_function("from tables to the kernel, everything in one transaction", |b| {
        b.iter(|| kernel.commit(&full(&compile(&tables, &policy()))).expect("taken"));
    });
    group.finish();

    for services in [100, 10_000, 44_000] {
        let mut tables = cluster(services, 4);
        let mut rules = compile(&tables, &policy());
        let mut installed = Installed::default();
        let tx = full(&rules);
        kernel.commit(&tx).expect("taken");
        installed.apply(tx);
        let mut group = c.benchmark_group(format!("one change among {services} services of 4"));
        group.sample_size(50).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
        for (name, ranges) in [("an endpoint more, then less", [0..5, 0..4]), ("an endpoint replaced", [1..5, 0..4])] {
            let mut turn = 0;
            group.bench_function(name, |b| {
                b.iter(|| {
                    turn += 1;
                    let tx = change(&mut tables, &mut rules, &installed, ranges[turn % 2].clone());
                    kernel.commit(&tx).expect("taken");
                    installed.apply(tx);
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
