//! A pod's probes as the driver wants them, and its verdicts as the plan wants them. Pure.

use crate::pod::desired::{Desired, Role};
use crate::pod::lifecycle::Lifecycle;
use crate::pod::observed::{Container, Observed, Verdict, Verdicts};
use crate::pod::{Time, env};
use ferrolet_probes as probes;
use ferrolet_probes::{Check, InitialVerdicts, Kind, Probe, Scheme, Spec, State};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::time::{Duration, SystemTime};

mod periods;
pub use periods::{ANNOTATION, Periods};

/// All probes of what runs now. Ending pods are no longer asked whether they live. The address is the one that the pod's
/// status shows.
pub fn probes(d: &Desired, life: &Lifecycle, o: &Observed, pod_ip: Option<&str>, periods: &Periods) -> Vec<Probe> {
    let mut out = Vec::new();
    for c in d.containers.iter().filter(|c| matches!(c.role, Role::Sidecar | Role::Main)) {
        let Some(running) = o.newest(&c.name).filter(|n| n.running()) else { continue };
        let Some(spec) = d.spec_of(&c.name) else { continue };
        for kind in [Kind::Startup, Kind::Readiness, Kind::Liveness] {
            let wanted = life.active() || (kind == Kind::Readiness && life.rank() == 1);
            if let Some(probe) = periods::probe_of(spec, kind).filter(|_| wanted) {
                let mut settings = of(probe, spec, pod_ip);
                settings.period = periods.get(&c.name, kind).unwrap_or(settings.period);
                out.push(one(c.name.clone(), running, kind, settings));
            }
        }
    }
    out
}

fn one(container: String, running: &Container, kind: Kind, spec: Spec) -> Probe {
    let started_at = running.started_at.unwrap_or(running.created_at);
    Probe { container, container_id: running.id.clone(), kind, spec, started_at: system_time(started_at) }
}

fn system_time(t: Time) -> SystemTime {
    SystemTime::from(t)
}

fn of(p: &api::Probe, c: &api::Container, pod_ip: Option<&str>) -> Spec {
    let seconds = |v: Option<i32>, default: u64| Duration::from_secs(v.and_then(|v| u64::try_from(v).ok()).unwrap_or(default));
    let count = |v: Option<i32>, default: u32| v.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default);
    let at_least_one = |d: Duration| d.max(Duration::from_secs(1));
    Spec {
        // One that cannot be made is still a probe: it must keep the container from being ready, and say why.
        check: check(p, c, pod_ip).unwrap_or_else(|why| Check::Impossible { why }),
        initial_delay: seconds(p.initial_delay_seconds, 0),
        period: if p.period_seconds.unwrap_or(0) == 0 { Duration::from_secs(10) } else { seconds(p.period_seconds, 10) },
        timeout: at_least_one(seconds(p.timeout_seconds, 1)),
        success_threshold: count(p.success_threshold, 1),
        failure_threshold: count(p.failure_threshold, 3),
    }
}

fn check(p: &api::Probe, c: &api::Container, pod_ip: Option<&str>) -> Result<Check, String> {
    if let Some(e) = &p.exec {
        let command = e.command.iter().flatten().map(|word| env::expand(word, |name| written(c, name)));
        return Ok(Check::Exec { command: command.collect() });
    }
    if let Some(h) = &p.http_get {
        return http_check(h, c, pod_ip);
    }
    if let Some(t) = &p.tcp_socket {
        return Ok(Check::Tcp { host: host_or(t.host.as_ref(), pod_ip)?, port: port("tcpSocket", &t.port, c)? });
    }
    let Some(g) = &p.grpc else {
        return Err("none of exec, httpGet, tcpSocket and grpc is set".to_owned());
    };
    let service = g.service.clone().unwrap_or_default();
    Ok(Check::Grpc { host: host_or(None, pod_ip)?, port: number("grpc", g.port)?, service })
}

/// Also that of a lifecycle hook.
pub(super) fn http_check(h: &api::HTTPGetAction, c: &api::Container, pod_ip: Option<&str>) -> Result<Check, String> {
    let headers = h.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
    let https = h.scheme.as_ref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
    let scheme = if https { Scheme::Https } else { Scheme::Http };
    let path = h.path.clone().unwrap_or_default();
    let host = host_or(h.host.as_ref(), pod_ip)?;
    Ok(Check::Http { host, port: port("httpGet", &h.port, c)?, path, scheme, headers })
}

fn host_or(host: Option<&String>, pod_ip: Option<&str>) -> Result<String, String> {
    let host = host.map(String::as_str).filter(|h| !h.is_empty()).or(pod_ip);
    host.map(str::to_owned).ok_or_else(|| "the pod has no address".to_owned())
}

/// A variable as the container's definition writes it; one with a value from elsewhere is empty here, as with kubelet.
fn written<'a>(c: &'a api::Container, name: &str) -> Option<&'a str> {
    let last = c.env.iter().flatten().rfind(|v| v.name == name)?;
    Some(last.value.as_deref().unwrap_or_default())
}

/// A port by number, or by the name that the container's own list gives it.
fn port(handler: &str, p: &IntOrString, c: &api::Container) -> Result<u16, String> {
    match p {
        IntOrString::Int(n) => number(handler, *n),
        IntOrString::String(name) => {
            let named = c.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
            match named.or_else(|| name.parse().ok()) {
                Some(n) => number(handler, n),
                None => Err(format!("{handler}.port: container {:?} has no port named {name:?}", c.name)),
            }
        }
    }
}

fn number(handler: &str, port: i32) -> Result<u16, String> {
    let fits = u16::try_from(port).ok().filter(|n| *n > 0);
    fits.ok_or_else(|| format!("{handler}.port: {port} must be between 1 and 65535"))
}

/// The driver's verdicts by container; what was carried over counts for running ones that the driver does not know yet,
/// so that nothing flips between an agent's start and its first look. In an ending pod nobody asks any more whether what runs
/// has started: it has, and so it stays ready for as long as its readiness probe says so.
pub fn verdicts(v: &probes::Verdicts, carried: &InitialVerdicts, o: &Observed, life: &Lifecycle) -> Verdicts {
    let mut out = Verdicts::default();
    for ((container, kind), verdict) in v {
        let answer = match verdict.state {
            State::Unknown => None,
            State::Success => Some(true),
            State::Failure => Some(false),
        };
        let entry = out.0.entry(container.clone()).or_default();
        if entry.container_id != verdict.container_id {
            *entry = Verdict { container_id: verdict.container_id.clone(), ..Default::default() };
        }
        match kind {
            Kind::Startup => entry.startup = answer,
            Kind::Readiness => entry.readiness = answer,
            Kind::Liveness => entry.liveness = answer,
        }
    }
    for c in o.containers.iter().filter(|c| c.running()) {
        if out.0.get(&c.name).is_some_and(|known| known.container_id == c.id) {
            continue;
        }
        let answer = |kind| carried.get(&(c.id.clone(), kind)).map(|state| *state == State::Success);
        let (startup, readiness) = (answer(Kind::Startup), answer(Kind::Readiness));
        if startup.is_some() || readiness.is_some() {
            out.0.insert(c.name.clone(), Verdict { container_id: c.id.clone(), startup, readiness, ..Default::default() });
        }
    }
    if !life.active() {
        for c in o.containers.iter().filter(|c| c.running()) {
            let entry = out.0.entry(c.name.clone()).or_default();
            if entry.container_id.is_empty() {
                entry.container_id.clone_from(&c.id);
            }
            if entry.container_id == c.id {
                entry.startup = Some(true);
            }
        }
    }
    out
}

/// What the API says of containers that run already: started and ready ones stay so until a probe says otherwise.
pub fn carried(known: &api::PodStatus) -> InitialVerdicts {
    let mut out = InitialVerdicts::new();
    for s in known.container_statuses.iter().chain(&known.init_container_statuses).flatten() {
        let Some((_, id)) = s.container_id.as_deref().and_then(|id| id.split_once("://")) else { continue };
        if s.started == Some(true) {
            out.insert((id.to_owned(), Kind::Startup), State::Success);
        }
        if s.ready {
            out.insert((id.to_owned(), Kind::Readiness), State::Success);
        }
    }
    out
}

#[cfg(test)]
mod tests;
