//! ClusterIPs and node ports of Services. Owns which are taken: rebuilt from the store at start, changed under one lock that is
//! held for moments and never over an await. The choosing itself is `controllers::allocate`.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::{Config, meta};
use crate::controllers::allocate::{AllocateError, IpAllocator, PortAllocator};
use crate::kinds::{self, Kind};
use crate::status::{ApiError, Cause};
use crate::store::Store;

struct Taken {
    ips: IpAllocator,
    ports: PortAllocator,
}

#[derive(Clone)]
pub(super) struct Services {
    taken: Arc<Mutex<Taken>>,
}

/// What one write took. Unless it is kept, all of it is given back.
pub(super) struct Claim {
    services: Services,
    took_ips: Vec<IpAddr>,
    took_ports: Vec<u16>,
    /// Held by the old object only; given back once the new one is stored.
    obsolete: (Vec<IpAddr>, Vec<u16>),
}

impl Claim {
    pub(super) fn keep(mut self) {
        self.took_ips.clear();
        self.took_ports.clear();
        let (ips, ports) = std::mem::take(&mut self.obsolete);
        self.services.give_back(&ips, &ports);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.services.give_back(&self.took_ips, &self.took_ports);
    }
}

fn is_service(kind: &Kind) -> bool {
    kind.kind == "Service" && kind.group.is_empty()
}

fn spec_text<'a>(service: &'a Value, field: &str) -> &'a str {
    service.get("spec").and_then(|s| s.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn service_type(service: &Value) -> &str {
    match spec_text(service, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

fn has_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn ports(service: &Value) -> &[Value] {
    service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn node_port(port: &Value) -> u16 {
    port.get("nodePort").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).unwrap_or(0)
}

/// The addresses and ports a stored Service holds.
fn held(service: &Value) -> (Vec<IpAddr>, Vec<u16>) {
    let list = service.pointer("/spec/clusterIPs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut ips: Vec<IpAddr> = list.iter().filter_map(Value::as_str).filter_map(|s| s.parse().ok()).collect();
    if let Ok(ip) = spec_text(service, "clusterIP").parse()
        && !ips.contains(&ip)
    {
        ips.push(ip);
    }
    let mut numbers: Vec<u16> = ports(service).iter().map(node_port).filter(|p| *p > 0).collect();
    let check = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
    numbers.extend(check.filter(|p| *p > 0));
    numbers.sort_unstable();
    numbers.dedup();
    (ips, numbers)
}

impl Services {
    pub(super) fn load(store: &Store, config: &Config) -> Services {
        let mut taken =
            Taken { ips: IpAllocator::new(config.service_cidr), ports: PortAllocator::new(config.node_ports.clone()) };
        for item in store.list(&super::prefix(&kinds::SERVICE, None), None, 0).items {
            let (ips, ports) = held(&item.object);
            let problems = ips.iter().filter_map(|ip| taken.ips.take(*ip).err());
            let problems: Vec<AllocateError> = problems.chain(ports.iter().filter_map(|p| taken.ports.take(*p).err())).collect();
            for error in problems {
                tracing::warn!(service = &*item.key, %error, "stored Service does not fit the ranges");
            }
        }
        Services { taken: Arc::new(Mutex::new(taken)) }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn give_back(&self, ips: &[IpAddr], ports: &[u16]) {
        if ips.is_empty() && ports.is_empty() {
            return;
        }
        let mut taken = self.lock();
        for ip in ips {
            taken.ips.release(*ip);
        }
        for port in ports {
            taken.ports.release(*port);
        }
    }

    pub(super) fn release(&self, kind: &Kind, service: &Value) {
        if is_service(kind) {
            let (ips, ports) = held(service);
            self.give_back(&ips, &ports);
        }
    }

    /// What a client left out of an update and the server had chosen before stays as it was.
    pub(super) fn carry_over(&self, kind: &Kind, new: &mut Value, old: &Value) {
        if !is_service(kind) || !new.get("spec").is_some_and(Value::is_object) {
            return;
        }
        let (old_type, new_type) = (service_type(old).to_owned(), service_type(new).to_owned());
        if new_type != "ExternalName" && old_type != "ExternalName" {
            let empty = |v: &Value| v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty);
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let kept = old["spec"].get(field).cloned();
                if new["spec"].get(field).is_none_or(empty)
                    && let Some(kept) = kept
                {
                    new["spec"][field] = kept;
                }
            }
        }
        if new_type == "ExternalName" && old_type != "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let same = new["spec"].get(field) == old["spec"].get(field);
                if same && let Some(spec) = new["spec"].as_object_mut() {
                    spec.remove(field);
                }
            }
        }
        let keeps_ports = has_node_ports(new);
        let old_ports: Vec<Value> = ports(old).to_vec();
        let Some(list) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
        let same_port = |a: &Value, b: &Value| {
            let protocol = |p: &Value| p.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
            a.get("port") == b.get("port") && protocol(a) == protocol(b)
        };
        let used: Vec<u16> = list.iter().map(node_port).filter(|p| *p > 0).collect();
        for port in list.iter_mut().filter(|p| p.is_object()) {
            let before = old_ports.iter().find(|o| same_port(o, port)).map_or(0, node_port);
            if keeps_ports && node_port(port) == 0 && before > 0 && !used.contains(&before) {
                port["nodePort"] = json!(before);
            } else if !keeps_ports
                && node_port(port) > 0
                && node_port(port) == before
                && let Some(port) = port.as_object_mut()
            {
                port.remove("nodePort");
            }
        }
    }

    /// Takes what a Service asks for or needs, and writes it into the object.
    pub(super) fn claim(&self, kind: &Kind, new: &mut Value, old: Option<&Value>) -> Result<Claim, ApiError> {
        let nothing = (Vec::new(), Vec::new());
        let mut claim =
            Claim { services: self.clone(), took_ips: Vec::new(), took_ports: Vec::new(), obsolete: (Vec::new(), Vec::new()) };
        if !is_service(kind) || !new.get("spec").is_some_and(Value::is_object) {
            return Ok(claim);
        }
        let had = old.map_or(nothing, held);
        // The claim gives back on drop, which locks again: the guard must be gone before an error leaves this function.
        let mut taken = self.lock();
        let result = claim_ips(&mut taken, new, &had.0, &mut claim.took_ips)
            .and_then(|()| claim_ports(&mut taken, new, &had.1, &mut claim.took_ports));
        drop(taken);
        result.map_err(|cause| ApiError::invalid("", "Service", meta::name(new), vec![cause]))?;
        let now = held(new);
        claim.obsolete.0 = had.0.into_iter().filter(|ip| !now.0.contains(ip)).collect();
        claim.obsolete.1 = had.1.into_iter().filter(|p| !now.1.contains(p)).collect();
        Ok(claim)
    }
}

fn refuse(field: String, value: String, error: AllocateError) -> Cause {
    Cause { reason: "FieldValueInvalid".to_owned(), message: format!("Invalid value: {value}: {error}"), field }
}

fn claim_ips(taken: &mut Taken, new: &mut Value, had: &[IpAddr], took: &mut Vec<IpAddr>) -> Result<(), Cause> {
    if service_type(new) == "ExternalName" {
        return Ok(());
    }
    let first = new.pointer("/spec/clusterIPs/0").and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted = if spec_text(new, "clusterIP").is_empty() { first } else { spec_text(new, "clusterIP").to_owned() };
    let family = if taken.ips.range().network().is_ipv4() { "IPv4" } else { "IPv6" };
    let chosen = match wanted.as_str() {
        "None" => "None".to_owned(),
        "" => {
            let ip = taken.ips.take_any(rand::random()).map_err(|e| refuse("spec.clusterIPs".into(), "[]".into(), e))?;
            took.push(ip);
            ip.to_string()
        }
        text => {
            // Validation has the words for what is no address at all.
            if let Ok(ip) = text.parse::<IpAddr>()
                && !had.contains(&ip)
            {
                let failed = |e| refuse("spec.clusterIPs".into(), format!("[{text:?}]: failed to allocate IP {text}"), e);
                taken.ips.take(ip).map_err(failed)?;
                took.push(ip);
            }
            text.to_owned()
        }
    };
    new["spec"]["clusterIP"] = json!(chosen);
    new["spec"]["clusterIPs"] = json!([chosen]);
    if new["spec"].get("ipFamilies").is_none_or(|f| f.as_array().is_none_or(Vec::is_empty)) {
        new["spec"]["ipFamilies"] = json!([family]);
    }
    if new["spec"].get("ipFamilyPolicy").is_none_or(Value::is_null) {
        new["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    }
    Ok(())
}

fn claim_ports(taken: &mut Taken, new: &mut Value, had: &[u16], took: &mut Vec<u16>) -> Result<(), Cause> {
    let checks = service_type(new) == "LoadBalancer" && spec_text(new, "externalTrafficPolicy") == "Local";
    let wanted_check = new.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0) as u16;
    if has_node_ports(new)
        && let Some(list) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut)
    {
        // What users named first, so that no automatic choice takes it; one number may serve two protocols of one Service.
        let mut mine: Vec<u16> = had.to_vec();
        for (i, port) in list.iter().enumerate() {
            let number = node_port(port);
            if number > 0 && !mine.contains(&number) {
                let failed = |e| refuse(format!("spec.ports[{i}].nodePort"), number.to_string(), e);
                taken.ports.take(number).map_err(failed)?;
                took.push(number);
                mine.push(number);
            }
        }
        let mut automatic: Vec<(Value, u16)> = Vec::new();
        for (i, port) in list.iter_mut().enumerate() {
            if node_port(port) > 0 || !port.is_object() {
                continue;
            }
            let same = automatic.iter().find(|(number, _)| Some(number) == port.get("port")).map(|(_, chosen)| *chosen);
            let chosen = match same {
                Some(chosen) => chosen,
                None => {
                    let failed = |e| refuse(format!("spec.ports[{i}].nodePort"), "0".into(), e);
                    let chosen = taken.ports.take_any(rand::random()).map_err(failed)?;
                    took.push(chosen);
                    automatic.push((port.get("port").cloned().unwrap_or_default(), chosen));
                    chosen
                }
            };
            port["nodePort"] = json!(chosen);
        }
    }
    if checks && wanted_check == 0 {
        let failed = |e| refuse("spec.healthCheckNodePort".into(), "0".into(), e);
        let chosen = taken.ports.take_any(rand::random()).map_err(failed)?;
        took.push(chosen);
        new["spec"]["healthCheckNodePort"] = json!(chosen);
    } else if checks && !had.contains(&wanted_check) {
        let failed = |e| refuse("spec.healthCheckNodePort".into(), wanted_check.to_string(), e);
        taken.ports.take(wanted_check).map_err(failed)?;
        took.push(wanted_check);
    }
    Ok(())
}
