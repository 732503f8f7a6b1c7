use super::*;

fn said(limits: &Limits, version: Version, release: u32) -> Vec<(&'static str, u64)> {
    let number = |(name, value)| match value {
        Value::U64(n) => (name, n),
        other => panic!("{name}: {other:?}"),
    };
    properties(limits, version, release).into_iter().map(number).collect()
}

#[test]
fn limits_in_the_words_of_each_version() {
    let limits = Limits {
        cpu_shares: Some(1024),
        cpu_quota_us: Some(50_000),
        cpu_period_us: Some(100_000),
        memory_bytes: Some(64 << 20),
        pids: Some(100),
        memory_low: Some(1 << 20),
        ..Limits::default()
    };
    let quota = [("TasksMax", 100), ("CPUQuotaPeriodUSec", 100_000), ("CPUQuotaPerSecUSec", 500_000)];
    let v1 = [[("CPUShares", 1024), ("MemoryLimit", 64 << 20)].as_slice(), &quota].concat();
    assert_eq!(said(&limits, Version::V1, 252), v1);
    let v2 = [[("CPUWeight", 100), ("MemoryMax", 64 << 20), ("MemoryLow", 1 << 20)].as_slice(), &quota].concat();
    assert_eq!(said(&limits, Version::V2, 252), v2);
    let old = said(&limits, Version::V2, 239);
    assert!(old.iter().all(|(name, _)| !matches!(*name, "MemoryLow" | "CPUQuotaPeriodUSec")), "{old:?}");
    assert_eq!(said(&Limits::default(), Version::V2, 252), []);
}

#[test]
fn quotas_are_by_the_second_and_rounded_up() {
    let quota = |quota, period| {
        let limits = Limits { cpu_quota_us: Some(quota), cpu_period_us: period, ..Limits::default() };
        said(&limits, Version::V2, 252).into_iter().find(|(name, _)| *name == "CPUQuotaPerSecUSec").map(|(_, n)| n)
    };
    assert_eq!(quota(1000, Some(100_000)), Some(10_000));
    assert_eq!(quota(12_345, Some(100_000)), Some(130_000));
    assert_eq!(quota(250_000, Some(50_000)), Some(5_000_000));
    assert_eq!(quota(-1, Some(100_000)), Some(u64::MAX));
    assert_eq!(quota(0, Some(100_000)), None);
    assert_eq!(quota(i64::MAX, Some(0)), Some(u64::MAX));
}

#[test]
fn only_slices_are_named() {
    assert_eq!(unit(Path::new("kubepods.slice/kubepods-podx.slice")).unwrap(), "kubepods-podx.slice");
    assert!(unit(Path::new("kubepods/podx")).is_err());
}
