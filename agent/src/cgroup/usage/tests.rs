use super::*;
use std::fs;

fn file(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(name), text).unwrap();
}

#[test]
fn what_a_v1_cgroup_uses_is_summed_over_all_below() {
    let at = tempfile::tempdir().unwrap();
    for (hierarchy, name, text) in [
        ("cpu,cpuacct", "cpuacct.usage", "5000000000\n"),
        ("cpu,cpuacct", "cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 70\n"),
        ("memory", "memory.usage_in_bytes", "1000\n"),
        ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
        (
            "memory",
            "memory.stat",
            "rss 1\ninactive_file 2\ntotal_rss 300\ntotal_cache 650\ntotal_inactive_file 400\ntotal_pgfault 9\n",
        ),
        ("pids", "pids.current", "4\n"),
    ] {
        file(&at.path().join(hierarchy).join("kubepods"), name, text);
        file(&at.path().join(hierarchy), "cgroup.procs", "");
    }
    let (version, hierarchies) = Hierarchy::find(at.path()).unwrap();
    let usage = of(version, &hierarchies, Path::new("kubepods")).unwrap();
    assert_eq!(usage.cpu_ns, Some(5_000_000_000));
    assert_eq!(usage.throttling, Some(Throttling { periods: 10, throttled: 3, time_ns: 70 }));
    let memory = usage.memory.unwrap();
    assert_eq!((memory.usage, memory.working_set, memory.rss, memory.cache), (1000, 600, Some(300), Some(650)));
    assert_eq!((memory.page_faults, memory.major_page_faults, memory.limit), (Some(9), None, None));
    assert_eq!((usage.tasks, usage.swap_bytes), (Some(4), None));
    assert_eq!(of(version, &hierarchies, Path::new("kubepods/none")), None);
}

#[test]
fn a_v2_pod_with_its_containers_and_their_pressure() {
    let at = tempfile::tempdir().unwrap();
    let id = "0123456789abcdef";
    file(at.path(), "cgroup.controllers", "cpu memory pids\n");
    let pod = at.path().join("kubepods/pod1");
    let container = pod.join(format!("cri-containerd-{id}.scope"));
    file(&pod, "cpu.stat", "usage_usec 2000\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
    file(&container, "cpu.stat", "usage_usec 1500\nnr_periods 8\nnr_throttled 1\nthrottled_usec 2\n");
    file(&container, "memory.current", "100\n");
    file(&container, "memory.max", "4096\n");
    file(&container, "memory.stat", "anon 30\nfile 60\ninactive_file 50\n");
    file(&container, "memory.swap.current", "7\n");
    file(&container, "memory.swap.max", "max\n");
    file(&container, "cpu.pressure", "some avg10=1.50 avg60=0.25 avg300=0.00 total=12\n");
    file(
        &container,
        "memory.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=2.00 avg60=0.00 avg300=0.00 total=3\n",
    );
    file(&container, "cgroup.procs", "77\n78\n");
    let (version, hierarchies) = Hierarchy::find(at.path()).unwrap();
    let ids = [id.to_owned(), "fedcba9876543210".to_owned()];
    let found = of_pod(version, &hierarchies, Path::new("kubepods/pod1"), &ids);
    assert_eq!(found.pod.unwrap().cpu_ns, Some(2_000_000));
    assert_eq!(found.process, Some(77));
    assert_eq!(found.containers[1], None);
    let usage = found.containers[0].clone().unwrap();
    assert_eq!(usage.throttling, Some(Throttling { periods: 8, throttled: 1, time_ns: 2000 }));
    assert_eq!(usage.memory.unwrap().working_set, 50);
    assert_eq!((usage.memory.unwrap().limit, usage.swap_bytes, usage.swap_limit), (Some(4096), Some(7), None));
    let cpu = usage.cpu_pressure.unwrap();
    assert_eq!((cpu.some.avg, cpu.some.total_ns, cpu.full), ([1.5, 0.25, 0.0], 12_000, Stall::default()));
    assert_eq!(usage.memory_pressure.unwrap().full, Stall { avg: [2.0, 0.0, 0.0], total_ns: 3000 });
    assert_eq!(usage.io_pressure, None);
}

#[test]
fn what_is_no_pressure_is_none() {
    for text in ["", "full avg10=0 avg60=0 avg300=0 total=1", "some avg10=x avg60=0 avg300=0 total=1", "some total=1"] {
        assert_eq!(pressure(text), None, "{text:?}");
    }
}
