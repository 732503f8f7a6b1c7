use super::*;
use ferrolet_quantity::Quantity;

fn machine() -> Machine {
    Machine { cpus: 4, memory_bytes: 8 << 30, ..Machine::default() }
}

#[test]
fn no_more_is_kept_than_there_is() {
    let mut config = Config::default();
    assert!(check(&config, &machine(), None).is_ok());
    config.node.reserved.kube = [("cpu".to_owned(), Quantity::from_units(4))].into();
    assert!(check(&config, &machine(), None).is_ok());
    config.node.reserved.system = [("memory".to_owned(), "8Gi".parse().unwrap())].into();
    let error = check(&config, &machine(), None).unwrap_err().to_string();
    assert_eq!(error, "systemReserved, kubeReserved and evictionHard keep 8292Mi of memory, and the node has 8Gi");
    config.node.reserved.system.clear();
    config.node.reserved.cpus = [0, 8000].into();
    assert!(matches!(check(&config, &machine(), None), Err(Error::NoCpu(8000))));
}

#[test]
fn tasks_are_bounded_by_the_lesser() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(tasks_max(dir.path()), None);
    std::fs::write(dir.path().join("pid_max"), "4194304\n").unwrap();
    assert_eq!(tasks_max(dir.path()), Some(4_194_304));
    std::fs::write(dir.path().join("threads-max"), "190000\n").unwrap();
    assert_eq!(tasks_max(dir.path()), Some(190_000));
}

/// On plain folders that stand in for cgroups.
#[tokio::test]
async fn all_are_held_to_it_and_what_is_missing_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (controller, file) in [("cpu", "cpu.shares"), ("memory", "memory.limit_in_bytes"), ("pids", "pids.max")] {
        for folder in ["", "kubepods", "system"] {
            std::fs::create_dir_all(dir.path().join(controller).join(folder)).unwrap();
            std::fs::write(dir.path().join(controller).join(folder).join(file), "").unwrap();
        }
        std::fs::write(dir.path().join(controller).join("cgroup.procs"), "").unwrap();
    }
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    let mut config = Config::default();
    let reserved = &mut config.node.reserved;
    reserved.system = [("cpu".to_owned(), Quantity::from_units(1)), ("memory".to_owned(), "1Gi".parse().unwrap())].into();
    reserved.enforce.system = Some(Existing { name: "/system".into(), cpu_only: false });
    let cgroups = cgroup::Manager::at(dir.path(), cgroup::NodeCgroups::default()).unwrap();
    let start = async |config: &Config| {
        let enforcer = Enforcer {
            config: Arc::new(config.clone()),
            machine: Arc::new(machine()),
            cgroups: cgroups.clone(),
            events: EventRecorder::silent(),
        };
        let cancel = CancellationToken::new();
        let task = enforcer.start(cancel.clone()).await?;
        cancel.cancel();
        task.await.unwrap();
        Ok::<_, Error>(())
    };
    start(&config).await.unwrap();
    assert_eq!(read("cpu/system/cpu.shares"), "1024");
    assert_eq!(read("memory/system/memory.limit_in_bytes"), (1u64 << 30).to_string());
    assert_eq!(read("pids/system/pids.max"), "", "nothing is reserved of it");
    assert_eq!(read("cpu/kubepods/cpu.shares"), "3072");
    assert_eq!(read("memory/kubepods/memory.limit_in_bytes"), (7u64 << 30).to_string());
    assert!(!read("pids/kubepods/pids.max").is_empty());
    // Not enforced: the whole node.
    config.node.reserved.enforce.pods = false;
    start(&config).await.unwrap();
    assert_eq!(read("memory/kubepods/memory.limit_in_bytes"), (8u64 << 30).to_string());
    config.node.reserved.enforce.kube = Some(Existing { name: "/not/there".into(), cpu_only: true });
    let error = start(&config).await.unwrap_err();
    let Error::Existing { field, source, .. } = error else { panic!("{error:?}") };
    assert_eq!(field, "kubeReservedCgroup");
    assert!(matches!(*source, cgroup::Error::Missing { .. }), "{source:?}");
    assert!(!dir.path().join("cpu/not").exists());
}
