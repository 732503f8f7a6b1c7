//! ClusterIPs and node ports of Services. Owns which are taken: rebuilt from the store at start, changed under one lock that is
//! held for moments and never over an await. The choosing itself is `controllers::allocate`.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::{Config, meta};
use crate::controllers::allocate::{AllocateError, IpAllocator, PortAllocator};
use crate::kinds::core::service::families;
use crate::kinds::{self, Kind};
use crate::ranges::Family;
use crate::status::{ApiError, Cause};
use crate::store::Store;

#[cfg(test)]
mod tests;

struct Taken {
    /// One for each family of the cluster, the primary one first.
    ips: Vec<(Family, IpAllocator)>,
    ports: PortAllocator,
}

impl Taken {
    fn new(config: &Config) -> Taken {
        let ips = config.service_cidr.iter().map(|net| (Family::of(net.addr()), IpAllocator::new(net))).collect();
        Taken { ips, ports: PortAllocator::new(config.node_ports.clone()) }
    }

    fn families(&self) -> Vec<Family> {
        self.ips.iter().map(|(family, _)| *family).collect()
    }

    fn ips(&mut self, family: Family) -> Option<&mut IpAllocator> {
        self.ips.iter_mut().find(|(f, _)| *f == family).map(|(_, ips)| ips)
    }
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
        let mut taken = Taken::new(config);
        for item in store.list(&super::prefix(&kinds::SERVICE, None), None, 0).items {
            let (ips, ports) = held(&item.object);
            let mut problems: Vec<AllocateError> = Vec::new();
            for ip in ips {
                match taken.ips(Family::of(ip)) {
                    Some(allocator) => problems.extend(allocator.take(ip).err()),
                    None => problems.push(AllocateError::NoFamily { ip }),
                }
            }
            problems.extend(ports.iter().filter_map(|p| taken.ports.take(*p).err()));
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
            if let Some(allocator) = taken.ips(Family::of(*ip)) {
                allocator.release(*ip);
            }
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

    /// Takes what a Service asks for or needs, and writes it into the object.
    pub(super) fn claim(&self, kind: &Kind, new: &mut Value, old: Option<&Value>) -> Result<Claim, ApiError> {
        let nothing = (Vec::new(), Vec::new());
        let mut claim =
            Claim { services: self.clone(), took_ips: Vec::new(), took_ports: Vec::new(), obsolete: (Vec::new(), Vec::new()) };
        if !is_service(kind) || !new.get("spec").is_some_and(Value::is_object) {
            return Ok(claim);
        }
        // A write of the status or the metadata asks for nothing.
        if old.is_some_and(|old| old.get("spec") == new.get("spec")) {
            return Ok(claim);
        }
        let had = old.map_or(nothing, held);
        // The claim gives back on drop, which locks again: the guard must be gone before an error leaves this function.
        let mut taken = self.lock();
        let errors = families::settle(new, old, &taken.families());
        let result = if errors.is_empty() {
            claim_ips(&mut taken, new, &had.0, &mut claim.took_ips)
                .and_then(|()| claim_ports(&mut taken, new, &had.1, old.is_none(), &mut claim.took_ports))
                .map_err(|cause| ApiError::invalid("", "Service", meta::name(new), vec![cause]))
        } else {
            Err(super::write::invalid(kind, meta::name(new), errors))
        };
        drop(taken);
        result?;
        let now = held(new);
        claim.obsolete.0 = had.0.into_iter().filter(|ip| !now.0.contains(ip)).collect();
        claim.obsolete.1 = had.1.into_iter().filter(|p| !now.1.contains(p)).collect();
        Ok(claim)
    }
}

fn refuse(field: String, value: String, error: AllocateError) -> Cause {
    Cause { reason: "FieldValueInvalid".to_owned(), message: format!("Invalid value: {value}: {error}"), field }
}

/// An address of each of the Service's families: the one it names or has, or else any free one.
fn claim_ips(taken: &mut Taken, new: &mut Value, had: &[IpAddr], took: &mut Vec<IpAddr>) -> Result<(), Cause> {
    if service_type(new) == "ExternalName" || spec_text(new, "clusterIP") == "None" {
        return Ok(());
    }
    let texts = |field: &str| -> Vec<String> {
        let items = new["spec"].get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        items.iter().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut ips = texts("clusterIPs");
    let families = texts("ipFamilies");
    for (i, family) in families.iter().filter_map(|f| Family::parse(f)).enumerate() {
        let named = ips.get(i).filter(|ip| !ip.is_empty()).cloned();
        // Validation had the words for what is no address at all.
        let wanted = named.as_ref().and_then(|text| text.parse::<IpAddr>().ok());
        if wanted.is_some_and(|ip| had.contains(&ip)) {
            continue;
        }
        // A family that was taken away from the cluster: what is there stays as it is.
        let Some(allocator) = taken.ips(family) else { continue };
        let ip = match wanted {
            Some(ip) => {
                let value = json!(ips).to_string();
                let failed = |e| refuse("spec.clusterIPs".into(), format!("{value}: failed to allocate IP {ip}"), e);
                allocator.take(ip).map(|()| ip).map_err(failed)?
            }
            None => {
                let failed = |e| refuse("spec.clusterIPs".into(), json!(ips).to_string(), e);
                allocator.take_any(rand::random()).map_err(failed)?
            }
        };
        took.push(ip);
        if wanted.is_none() {
            ips.truncate(i);
            ips.push(ip.to_string());
        }
    }
    if let Some(first) = ips.first() {
        new["spec"]["clusterIP"] = json!(first);
        new["spec"]["clusterIPs"] = json!(ips);
    }
    Ok(())
}

fn claim_ports(taken: &mut Taken, new: &mut Value, had: &[u16], fresh: bool, took: &mut Vec<u16>) -> Result<(), Cause> {
    let checks = service_type(new) == "LoadBalancer" && spec_text(new, "externalTrafficPolicy") == "Local";
    let wanted_check = new.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64).unwrap_or(0) as u16;
    let (may, automatically) = (["NodePort", "LoadBalancer"].contains(&service_type(new)), has_node_ports(new));
    if may && let Some(list) = new.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
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
        // One port on two protocols of a new Service gets one number.
        let numbered = list.iter().filter(|p| fresh && node_port(p) > 0);
        let mut automatic: Vec<(Value, u16)> =
            numbered.map(|p| (p.get("port").cloned().unwrap_or_default(), node_port(p))).collect();
        for (i, port) in list.iter_mut().enumerate() {
            if node_port(port) > 0 || !port.is_object() || !automatically {
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
