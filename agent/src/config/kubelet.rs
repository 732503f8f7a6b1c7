//! KubeletConfiguration `kubelet.config.k8s.io/v1beta1`.
//!
//! Pure. Owns which fields are honoured, which are refused, and the ranges kubelet allows for them.

use super::fields::{Fields, Plain, Problem};
use super::{AuthorizationMode, CgroupDriver, Config, Threshold, default_eviction_hard};
use crate::admission::sysctls;
use crate::cgroup::SwapBehavior;
use crate::images::policy::{Allowlist, Policy};
use crate::objects::Strategy;
use crate::userns;
use ferrolet_quantity::Quantity;
use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Sets what the document says; problems are added, and leave the default in place.
pub fn apply(config: &mut Config, document: Value, problems: &mut Vec<Problem>) {
    let mut fields = Fields::new("", document, problems);
    header(&mut fields, "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration");
    for name in NO_EFFECT {
        if fields.has(name) {
            config.no_effect.insert((*name).to_owned());
        }
    }
    serving(config, &mut fields);
    access(config, &mut fields);
    node(config, &mut fields);
    runtime(config, &mut fields);
    upkeep(config, &mut fields);
    super::statics::apply(&mut config.static_pods, &mut fields);
    for (name, plain) in UNSUPPORTED {
        fields.unsupported(name, *plain);
    }
    fields.finish();
}

/// Checks `apiVersion` and `kind`, which must be there.
pub(super) fn header(fields: &mut Fields<'_>, api_version: &str, kind: &str) {
    for (name, want) in [("apiVersion", api_version), ("kind", kind)] {
        match fields.string(name) {
            Some(got) if got == want => {}
            Some(got) => fields.problem(name, format!("expected {want:?}, found {got:?}")),
            None => fields.problem(name, format!("missing, expected {want:?}")),
        }
    }
}

fn serving(config: &mut Config, fields: &mut Fields<'_>) {
    let server = &mut config.server;
    server.enabled = fields.boolean("enableServer").unwrap_or(true);
    if let Some(address) = fields.parsed("address", "an IP address") {
        server.address = address;
    }
    if let Some(port) = fields.integer("port", 0..=65535).filter(|port| *port != 0) {
        server.port = port as u16;
    }
    let healthz_address = fields.parsed::<IpAddr>("healthzBindAddress", "an IP address");
    let healthz_port = fields.integer("healthzPort", 0..=65535);
    let (default_address, default_port) = server.healthz.unwrap_or((IpAddr::from([127, 0, 0, 1]), 10248));
    server.healthz = match healthz_port.unwrap_or(i64::from(default_port)) {
        0 => None,
        port => Some((healthz_address.unwrap_or(default_address), port as u16)),
    };
    match (fields.text("tlsCertFile"), fields.text("tlsPrivateKeyFile")) {
        (Some(cert), Some(key)) => server.tls_files = Some((cert.into(), key.into())),
        (None, None) => {}
        (Some(_), None) => fields.problem("tlsPrivateKeyFile", "required when tlsCertFile is set"),
        (None, Some(_)) => fields.problem("tlsCertFile", "required when tlsPrivateKeyFile is set"),
    }
}

fn access(config: &mut Config, fields: &mut Fields<'_>) {
    let authn = &mut config.authentication;
    fields.object("authentication", |fields| {
        fields.object("x509", |fields| authn.client_ca_file = fields.text("clientCAFile").map(Into::into));
        fields.object("webhook", |fields| {
            authn.webhook = fields.boolean("enabled").unwrap_or(authn.webhook);
            authn.webhook_cache_ttl = fields.duration("cacheTTL").unwrap_or(authn.webhook_cache_ttl);
        });
        fields.object("anonymous", |fields| fields.unsupported("enabled", Plain::Off));
    });
    let authz = &mut config.authorization;
    fields.object("authorization", |fields| {
        match fields.text("mode").as_deref() {
            None | Some("Webhook") => authz.mode = AuthorizationMode::Webhook,
            Some("AlwaysAllow") => authz.mode = AuthorizationMode::AlwaysAllow,
            Some(other) => fields.problem("mode", format!("{other:?} must be AlwaysAllow or Webhook")),
        }
        fields.object("webhook", |fields| {
            authz.authorized_ttl = fields.duration("cacheAuthorizedTTL").unwrap_or(authz.authorized_ttl);
            authz.unauthorized_ttl = fields.duration("cacheUnauthorizedTTL").unwrap_or(authz.unauthorized_ttl);
        });
    });
}

fn node(config: &mut Config, fields: &mut Fields<'_>) {
    let node = &mut config.node;
    node.register = fields.boolean("registerNode").unwrap_or(true);
    node.provider_id = fields.text("providerID").unwrap_or_default();
    let update = fields.duration("nodeStatusUpdateFrequency");
    let report = fields.duration("nodeStatusReportFrequency");
    // An explicit update frequency is also the default report frequency.
    node.status_report_frequency = report.or(update).unwrap_or(node.status_report_frequency);
    node.status_update_frequency = update.unwrap_or(node.status_update_frequency);
    if let Some(seconds) = fields.integer("nodeLeaseDurationSeconds", 0..=i64::from(i32::MAX)).filter(|s| *s > 0) {
        node.lease_duration = Duration::from_secs(seconds as u64);
    }
    if let Some(images) = fields.integer("nodeStatusMaxImages", -1..=i64::from(i32::MAX)) {
        node.status_max_images = usize::try_from(images).ok();
    }
    if let Some(pods) = fields.integer("maxPods", 0..=i64::from(i32::MAX)).filter(|pods| *pods > 0) {
        config.max_pods = pods as u32;
    }
    if let Some(taints) = fields.take("registerWithTaints") {
        node.taints = read_taints(fields, taints);
    }
    super::reserved::apply(&mut node.reserved, fields);
    let merge = fields.boolean("mergeDefaultEvictionSettings").unwrap_or(false);
    if let Some(thresholds) = fields.string_map("evictionHard") {
        let mut hard = if merge { default_eviction_hard() } else { BTreeMap::new() };
        for (signal, text) in thresholds {
            match threshold(&signal, &text) {
                Ok(value) => drop(hard.insert(signal, value)),
                Err(detail) => fields.problem(&format!("evictionHard.{signal}"), detail),
            }
        }
        node.eviction_hard = hard;
    }
}

const SIGNALS: [&str; 8] = [
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "containerfs.available",
    "containerfs.inodesFree",
    "pid.available",
];

fn threshold(signal: &str, text: &str) -> Result<Threshold, String> {
    if !SIGNALS.contains(&signal) {
        return Err(format!("unknown eviction signal, expected one of {}", SIGNALS.join(", ")));
    }
    if let Some(number) = text.strip_suffix('%') {
        let percent: Quantity = number.parse().map_err(|_| format!("{text:?} is not a percentage"))?;
        // Milli of a percent is finer than any file system can tell.
        return match percent.milli() {
            milli @ 0..=100_000 => Ok(Threshold::MilliPercent(milli as u64)),
            _ => Err(format!("{text:?} must be between 0% and 100%")),
        };
    }
    match text.parse::<Quantity>() {
        Ok(amount) if amount.is_negative() => Err(format!("quantity {text:?} must not be negative")),
        Ok(amount) => Ok(Threshold::Amount(amount)),
        Err(error) => Err(error.to_string()),
    }
}

fn read_taints(fields: &mut Fields<'_>, value: Value) -> Vec<Taint> {
    let Value::Array(items) = value else {
        fields.problem("registerWithTaints", "expected a list of taints");
        return Vec::new();
    };
    let mut taints = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        let mut own = Vec::new();
        let mut taint = Fields::new(&format!("registerWithTaints[{index}]"), item, &mut own);
        let key = taint.text("key");
        let value = taint.string("value");
        let effect = taint.text("effect");
        taint.unsupported("timeAdded", Plain::Text(""));
        if key.is_none() {
            taint.problem("key", "required");
        }
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        if !effect.as_deref().is_some_and(|effect| known.contains(&effect)) {
            taint.problem("effect", format!("must be one of {}", known.join(", ")));
        }
        taint.finish();
        for problem in &own {
            fields.problem(&problem.path, problem.detail.clone());
        }
        if let (true, Some(key), Some(effect)) = (own.is_empty(), key, effect) {
            taints.push(Taint { key, value, effect, time_added: None });
        }
    }
    taints
}

fn memory(config: &mut Config, fields: &mut Fields<'_>) {
    config.single_process_oom_kill = fields.boolean("singleProcessOOMKill");
    fields.object("memorySwap", |fields| match fields.text("swapBehavior").as_deref() {
        None | Some("NoSwap") => {}
        Some("LimitedSwap") => config.swap = SwapBehavior::LimitedSwap,
        Some(other) => fields.problem("swapBehavior", format!("{other:?} must be NoSwap or LimitedSwap")),
    });
    let throttling = fields.share("memoryThrottlingFactor").unwrap_or(0.9);
    let tiered = match fields.text("memoryReservationPolicy").as_deref() {
        None | Some("None") => false,
        Some("TieredReservation") => true,
        Some(other) => {
            fields.problem("memoryReservationPolicy", format!("{other:?} must be None or TieredReservation"));
            false
        }
    };
    let on = fields.gate("MemoryQoS") == Some(true);
    if tiered && !on {
        fields.problem("memoryReservationPolicy", "needs the feature gate MemoryQoS");
    }
    config.memory_qos = on.then_some((throttling, tiered));
}

fn runtime(config: &mut Config, fields: &mut Fields<'_>) {
    if let Some(endpoint) = fields.text("containerRuntimeEndpoint") {
        config.container_runtime_endpoint = endpoint.clone();
        config.image_service_endpoint = endpoint;
    }
    if let Some(endpoint) = fields.text("imageServiceEndpoint") {
        config.image_service_endpoint = endpoint;
    }
    if let Some(timeout) = fields.duration("runtimeRequestTimeout") {
        config.runtime_request_timeout = timeout;
    }
    if let Some(dir) = fields.text("podLogsDir") {
        match dir.starts_with('/') {
            true => config.pod_logs_dir = dir.into(),
            false => fields.problem("podLogsDir", format!("{dir:?} must be an absolute path")),
        }
    }
    config.cgroup_root = fields.text("cgroupRoot").unwrap_or_default();
    match fields.text("cgroupDriver").as_deref() {
        None => {}
        Some("cgroupfs") => config.cgroup_driver = CgroupDriver::Cgroupfs,
        Some("systemd") => config.cgroup_driver = CgroupDriver::Systemd,
        Some(other) => fields.problem("cgroupDriver", format!("{other:?} must be cgroupfs or systemd")),
    }
    memory(config, fields);
    config.fail_cgroup_v1 = fields.boolean("failCgroupV1").unwrap_or(config.fail_cgroup_v1);
    config.pod_pids_limit =
        fields.integer("podPidsLimit", -1..=i64::MAX).and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    config.cpu_cfs_quota = fields.boolean("cpuCFSQuota").unwrap_or(true);
    if let Some(period) = fields.duration("cpuCFSQuotaPeriod") {
        match (Duration::from_millis(1)..=Duration::from_secs(1)).contains(&period) {
            true => config.cpu_cfs_quota_period = period,
            false => fields.problem("cpuCFSQuotaPeriod", format!("{period:?} must be between 1ms and 1s")),
        }
    }
    // Swap is never offered to containers here, so its mere presence on the host is no reason to refuse to start.
    fields.boolean("failSwapOn");
    config.cluster_dns = fields.parsed_list("clusterDNS", "an IP address").unwrap_or_default();
    config.cluster_domain = fields.text("clusterDomain").unwrap_or_default();
    if let Some(path) = fields.string("resolvConf") {
        config.resolv_conf = (!path.is_empty()).then(|| path.into());
    }
    fields.object("crashLoopBackOff", |fields| {
        if let Some(period) = fields.duration("maxContainerRestartPeriod") {
            match (Duration::from_secs(1)..=Duration::from_secs(300)).contains(&period) {
                true => config.max_container_restart_period = period,
                false => fields.problem("maxContainerRestartPeriod", format!("{period:?} must be between 1s and 300s")),
            }
        }
    });
    let parallel = fields.integer("maxParallelImagePulls", 1..=i64::from(i32::MAX));
    let serialize = fields.boolean("serializeImagePulls");
    config.max_parallel_image_pulls = match (serialize, parallel) {
        (Some(true), Some(2..)) => {
            fields.problem("maxParallelImagePulls", "cannot be larger than 1 unless serializeImagePulls is false");
            1
        }
        (_, Some(limit)) => limit as usize,
        // Unlimited in kubelet; a bound that no node's network or disk profits from exceeding.
        (Some(false), None) => 16,
        (Some(true) | None, None) => 1,
    };
    image_policy(config, fields);
    object_changes(config, fields);
    isolation(config, fields);
}

/// How changes of the ConfigMaps and Secrets of running pods are noticed.
fn object_changes(config: &mut Config, fields: &mut Fields<'_>) {
    const STRATEGY: &str = "configMapAndSecretChangeDetectionStrategy";
    let every = fields.duration("syncFrequency").unwrap_or(Duration::from_secs(60));
    if every.is_zero() {
        fields.problem("syncFrequency", "must be greater than 0".to_owned());
    }
    config.object_changes = match fields.text(STRATEGY).as_deref() {
        None | Some("Watch") => Strategy::Watch,
        Some("Get" | "Cache") => Strategy::Poll(every),
        Some(other) => return fields.problem(STRATEGY, format!("{other:?} must be Get, Cache or Watch")),
    };
}

/// What pods may change of the kernel, and what keeps them apart.
fn isolation(config: &mut Config, fields: &mut Fields<'_>) {
    config.seccomp_default = fields.boolean("seccompDefault").unwrap_or(false);
    config.allowed_unsafe_sysctls = fields.strings("allowedUnsafeSysctls").unwrap_or_default();
    for (index, pattern) in config.allowed_unsafe_sysctls.iter().enumerate() {
        if let Some(problem) = sysctls::problem(pattern) {
            fields.problem(&format!("allowedUnsafeSysctls[{index}]"), problem);
        }
    }
    fields.object("userNamespaces", |fields| {
        let unit = i64::from(userns::UNIT);
        match fields.integer("idsPerPod", unit..=i64::from(u32::MAX)) {
            Some(ids) if ids % unit == 0 => config.ids_per_pod = ids as u32,
            Some(ids) => fields.problem("idsPerPod", format!("{ids} must be a multiple of {unit}")),
            None => {}
        }
    });
}

/// Who may use an image that another pod has pulled.
fn image_policy(config: &mut Config, fields: &mut Fields<'_>) {
    const POLICY: &str = "imagePullCredentialsVerificationPolicy";
    const LIST: &str = "preloadedImagesVerificationAllowlist";
    let patterns = fields.strings(LIST).unwrap_or_default();
    let listed = Allowlist::parse(&patterns).map_err(|e| e.to_string());
    let policy = fields.text(POLICY);
    if policy.as_deref() != Some("NeverVerifyAllowlistedImages") && !patterns.is_empty() {
        fields.problem(LIST, format!("can only be set if {POLICY} is \"NeverVerifyAllowlistedImages\""));
    }
    config.image_policy = match (policy.as_deref(), listed) {
        (None | Some("NeverVerifyPreloadedImages"), _) => Policy::Preloaded,
        (Some("NeverVerify"), _) => Policy::Never,
        (Some("AlwaysVerify"), _) => Policy::Always,
        (Some("NeverVerifyAllowlistedImages"), Ok(list)) => Policy::Allowlisted(list),
        (Some("NeverVerifyAllowlistedImages"), Err(why)) => return fields.problem(LIST, why),
        (Some(other), _) => {
            let valid = "NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify";
            return fields.problem(POLICY, format!("{other:?} must be {valid}"));
        }
    };
}

fn upkeep(config: &mut Config, fields: &mut Fields<'_>) {
    let upkeep = &mut config.upkeep;
    upkeep.image_minimum_gc_age = fields.duration("imageMinimumGCAge").unwrap_or(upkeep.image_minimum_gc_age);
    if let Some(high) = fields.integer("imageGCHighThresholdPercent", 0..=100) {
        upkeep.image_gc_high_percent = high as u32;
    }
    if let Some(low) = fields.integer("imageGCLowThresholdPercent", 0..=100) {
        upkeep.image_gc_low_percent = low as u32;
    }
    if upkeep.image_gc_low_percent >= upkeep.image_gc_high_percent {
        let (low, high) = (upkeep.image_gc_low_percent, upkeep.image_gc_high_percent);
        fields.problem("imageGCLowThresholdPercent", format!("{low} must be less than imageGCHighThresholdPercent ({high})"));
    }
    if let Some(size) = fields.quantity("containerLogMaxSize") {
        upkeep.container_log_max_size = size.units().max(0) as u64;
    }
    if let Some(files) = fields.integer("containerLogMaxFiles", 2..=i64::from(i32::MAX)) {
        upkeep.container_log_max_files = files as u32;
    }
}

/// Fields that are read and checked but change nothing yet, or not all that they should. Existing files set them, so they
/// are warned of instead of refused.
const NO_EFFECT: &[&str] = &[
    "imageMinimumGCAge",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "containerLogMaxSize",
    "containerLogMaxFiles",
    "evictionHard",
    "failSwapOn",
];

/// Fields of v1beta1 that are known and must be left at their defaults.
const UNSUPPORTED: &[(&str, Plain)] = &[
    ("readOnlyPort", Plain::Int(0)),
    ("tlsCipherSuites", Plain::Empty),
    ("tlsCurvePreferences", Plain::Empty),
    ("tlsMinVersion", Plain::Text("VersionTLS12")),
    ("rotateCertificates", Plain::Off),
    ("serverTLSBootstrap", Plain::Off),
    ("registryPullQPS", Plain::IntOrNull(5)),
    ("registryBurst", Plain::Int(10)),
    ("eventRecordQPS", Plain::IntOrNull(50)),
    ("eventBurst", Plain::Int(100)),
    ("enableDebuggingHandlers", Plain::On),
    ("enableContentionProfiling", Plain::Off),
    ("oomScoreAdj", Plain::IntOrNull(-999)),
    ("streamingConnectionIdleTimeout", Plain::Ignored),
    ("imageMaximumGCAge", Plain::Time("0s")),
    ("volumeStatsAggPeriod", Plain::Time("1m")),
    ("kubeletCgroups", Plain::Text("")),
    ("systemCgroups", Plain::Text("")),
    ("cgroupsPerQOS", Plain::On),
    ("cpuManagerPolicy", Plain::Text("none")),
    ("cpuManagerPolicyOptions", Plain::Empty),
    ("cpuManagerReconcilePeriod", Plain::Time("10s")),
    ("memoryManagerPolicy", Plain::Text("None")),
    ("topologyManagerPolicy", Plain::Text("none")),
    ("topologyManagerScope", Plain::Text("container")),
    ("topologyManagerPolicyOptions", Plain::Empty),
    ("qosReserved", Plain::Empty),
    ("hairpinMode", Plain::Text("promiscuous-bridge")),
    ("podCIDR", Plain::Text("")),
    ("runOnce", Plain::Off),
    ("maxOpenFiles", Plain::Int(1_000_000)),
    ("contentType", Plain::Text("application/vnd.kubernetes.protobuf")),
    ("kubeAPIQPS", Plain::IntOrNull(50)),
    ("kubeAPIBurst", Plain::Int(100)),
    ("evictionSoft", Plain::Empty),
    ("evictionSoftGracePeriod", Plain::Empty),
    ("evictionPressureTransitionPeriod", Plain::Time("5m")),
    ("evictionMaxPodGracePeriod", Plain::Int(0)),
    ("evictionMinimumReclaim", Plain::Empty),
    ("podsPerCore", Plain::Int(0)),
    ("enableControllerAttachDetach", Plain::On),
    ("protectKernelDefaults", Plain::Off),
    ("makeIPTablesUtilChains", Plain::On),
    ("iptablesMasqueradeBit", Plain::IntOrNull(14)),
    ("iptablesDropBit", Plain::IntOrNull(15)),
    ("featureGates", Plain::Empty),
    ("containerLogMaxWorkers", Plain::IntOrNull(1)),
    ("containerLogMonitorInterval", Plain::Time("10s")),
    ("showHiddenMetricsForVersion", Plain::Text("")),
    ("volumePluginDir", Plain::Text("/usr/libexec/kubernetes/kubelet-plugins/volume/exec/")),
    ("kernelMemcgNotification", Plain::Off),
    ("logging", Plain::Empty),
    ("enableSystemLogHandler", Plain::On),
    ("enableSystemLogQuery", Plain::Off),
    ("shutdownGracePeriod", Plain::Time("0s")),
    ("shutdownGracePeriodCriticalPods", Plain::Time("0s")),
    ("shutdownGracePeriodByPodPriority", Plain::Empty),
    ("reservedMemory", Plain::Empty),
    ("enableProfilingHandler", Plain::On),
    ("enableDebugFlagsHandler", Plain::On),
    ("tracing", Plain::Empty),
    ("localStorageCapacityIsolation", Plain::On),
];
