//! Session affinity, for each way into a service.

use super::ingress::vips;
use super::{Bed, WEB, answered_by, test};
use crate::shared::LIMIT;
use anyhow::{Context, Result, bail};
use ferrolet_tests::load;
use ferrolet_tests::sys::wait_for;
use libtest_mimic::Trial;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        test("services::session_affinity_of_every_frontend", affinity),
        test("services::session_affinity_ends_with_its_timeout", timeout),
    ]
}

/// A client and the address it uses.
struct Way {
    what: String,
    netns: String,
    address: SocketAddr,
}

impl Way {
    /// The one pod that answers.
    fn only(&self) -> Result<String> {
        let seen = load::spread(&self.netns, self.address, 16).with_context(|| self.what.clone())?;
        match seen.len() {
            1 => Ok(seen.into_keys().next().context("nobody")?),
            _ => bail!("{}: {} is answered by {seen:?}", self.what, self.address),
        }
    }

    fn stays(&self, wanted: &str) -> Result<()> {
        let now = self.only()?;
        if now == wanted { Ok(()) } else { bail!("{}: {wanted} became {now}", self.what) }
    }
}

fn affinity(bed: &mut Bed) -> Result<()> {
    let svc = bed.service("sticky", &format!("type: LoadBalancer, sessionAffinity: ClientIP, {WEB}"))?;
    let (vips, external) = (vips(&svc.ips()?, 50)?, vips(&svc.ips()?, 51)?);
    bed.patch("service", "sticky", &json!({"spec": {"externalIPs": external}}).to_string())?;
    bed.load_balancer("sticky", vips.iter().map(|ip| json!({"ip": ip.to_string()})).collect::<Vec<_>>().into())?;
    let (mut ways, mut routes) = (vec![], vec![]);
    for ((ip, vip), external) in svc.ips()?.into_iter().zip(vips).zip(external) {
        let mut way = |what: &str, netns: String, address: SocketAddr| ways.push(Way { what: what.into(), netns, address });
        for (who, netns) in bed.inside() {
            way(who, netns, (ip, 80).into());
        }
        way("the load balancer", bed.outside(), (vip, 80).into());
        way("an external IP", bed.outside(), (external, 80).into());
        way("a node port", bed.outside(), (bed.node(1, ip)?, svc.node_port()?).into());
        way("a pod by the load balancer", bed.pods.far.netns.clone(), (vip, 80).into());
        routes.push(bed.route(vip, 1)?);
        routes.push(bed.route(external, 2)?);
    }
    let mut chosen = vec![];
    for way in &ways {
        wait_for("an answer", LIMIT, || load::get(&way.netns, way.address, "/"))?;
        // The first answers may have come before the second endpoint was known: what holds from here on counts.
        chosen.push(wait_for("one endpoint", LIMIT, || way.only())?);
    }
    for index in 0..2 {
        bed.ns.lab.nodes[index].kill_agent()?;
        bed.ns.lab.start_agent(index)?;
    }
    bed.ns.lab.wait_ready()?;
    // Another service changes, and all is written anew for it.
    let other = bed.service("other", WEB)?;
    answered_by(&bed.netns(1), other.at(80)?[0], &["one", "two"])?;
    answered_by(&bed.netns(2), other.at(80)?[0], &["one", "two"])?;
    ways.iter().zip(&chosen).try_for_each(|(way, name)| way.stays(name)).context("after a restart of the agents")?;
    // An endpoint goes: its clients move, the others stay; when it comes back, all stay.
    bed.ns.kubectl(&["label", "pod", "one", "app-"])?;
    for way in &ways {
        wait_for(&format!("{} to move", way.what), LIMIT, || way.stays("two"))?;
    }
    bed.ns.kubectl(&["label", "pod", "one", "app=web"])?;
    for n in [1, 2] {
        answered_by(&bed.netns(n), other.at(80)?[0], &["one", "two"])?;
    }
    ways.iter().try_for_each(|way| way.stays("two")).context("after an endpoint came back")
}

fn timeout(bed: &mut Bed) -> Result<()> {
    let short = "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}";
    let svc = bed.service("short", &format!("{short}, {WEB}"))?;
    let way = Way { what: "a pod".into(), netns: bed.pods.near.netns.clone(), address: svc.at(80)?[0] };
    let first = wait_for("one endpoint", LIMIT, || way.only())?;
    let mut last = std::time::Instant::now();
    // Whoever waits longer than the timeout may be sent elsewhere: each time one chance of two.
    wait_for("another endpoint after the timeout", LIMIT, || {
        std::thread::sleep(Duration::from_millis(1100).saturating_sub(last.elapsed()));
        let now = way.only();
        last = std::time::Instant::now();
        let now = now?;
        if now == first { bail!("still {now}") } else { Ok(()) }
    })
}
