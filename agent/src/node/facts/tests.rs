use super::*;

#[test]
fn facts_come_from_the_given_roots() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("proc/meminfo", "MemTotal:       2048 kB\nSwapTotal:      0 kB\n");
    put("proc/sys/kernel/random/boot_id", "b\n");
    put("proc/sys/kernel/osrelease", "6.1\n");
    put("sys/devices/system/cpu/online", "0-3,6\n");
    put("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "3\n");
    put("etc/machine-id", "m\n");
    put("etc/os-release", "NAME=X\nPRETTY_NAME=\"X 1 (y)\"\n");
    let root = |name: &str| dir.path().join(name);
    let machine = read(&Roots { proc: root("proc"), sys: root("sys"), etc: root("etc") });
    assert_eq!((machine.cpus, machine.memory_bytes, machine.swap_bytes), (5, 2 << 20, 0));
    assert_eq!(machine.hugepages["hugepages-2Mi"], 6 << 20);
    assert_eq!((machine.machine_id.as_str(), machine.system_uuid.as_str(), machine.boot_id.as_str()), ("m", "m", "b"));
    assert_eq!(machine.os_image, "X 1 (y)");
    assert!(file_system(&dir.path().join("not/there")).unwrap().size_bytes > 0);
    assert_eq!(count_cpus("x"), None);
}

#[test]
fn nothing_readable_is_no_failure() {
    let nowhere = || "/nonexistent".into();
    let machine = read(&Roots { proc: nowhere(), sys: nowhere(), etc: nowhere() });
    assert!(machine.cpus >= 1);
    assert_eq!(machine.os_image, "Linux");
}

#[test]
fn what_keeps_containers_in_and_out() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let file = dir.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    };
    let roots = || Roots { proc: dir.path().join("proc"), sys: dir.path().into(), etc: dir.path().join("etc") };
    assert!(!read(&roots()).apparmor);
    put("module/apparmor/parameters/enabled", "Y\n");
    assert!(!read(&roots()).apparmor, "its file system is not there");
    std::fs::create_dir_all(dir.path().join("kernel/security/apparmor")).unwrap();
    assert!(read(&roots()).apparmor);
    put("module/apparmor/parameters/enabled", "N\n");
    assert!(!read(&roots()).apparmor);
    for cpu in [10, 2, 0] {
        put(&format!("devices/system/cpu/cpu{cpu}/thermal_throttle/count"), "0");
    }
    put("devices/system/cpu/cpu1/online", "1");
    put("devices/system/cpu/cpufreq/thermal_throttle", "");
    let paths = [0, 2, 10].map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"));
    assert_eq!(throttle_paths(dir.path()), paths);
}
