mod changes;
mod own_pods;

use super::*;
use crate::conntrack::Flow;
use crate::diff::{Element, Held, Place, Transaction};
use crate::model::Family;
use crate::ruleset::Front;
use crate::testing::Model;
use serde_json::json;
use std::io;
use std::sync::Mutex;

/// The kernel's state, shared with the test, and what it is to refuse.
#[derive(Default)]
struct State {
    model: Model,
    commits: usize,
    /// Any transaction that names this address fails, as if the kernel did not like it.
    poison: Option<IpAddr>,
    fail_next: bool,
    /// So many times flows cannot be listed.
    no_flows: usize,
    flows_listed: usize,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn judge(state: &State, tx: &Transaction) -> Result<Model, Error> {
        let bad =
            |e: &Element| matches!(e, Element::Count { front: Front::ClusterIp { ip, .. }, .. } if Some(*ip) == state.poison);
        let refused = |errno| Error::Refused {
            what: "an element".into(),
            message: String::new(),
            source: io::Error::from_raw_os_error(errno),
        };
        if tx.add.iter().any(bad) {
            return Err(refused(nix::libc::EINVAL));
        }
        let mut next = state.model.clone();
        next.commit(tx).map_err(|_| refused(nix::libc::ENOENT))?;
        Ok(next)
    }
}

impl Kernel for Fake {
    fn commit(&mut self, tx: &Transaction) -> Result<(), Error> {
        let mut state = self.0.lock().unwrap();
        if std::mem::take(&mut state.fail_next) {
            return Err(Error::NoAnswer { bytes: 0 });
        }
        state.model = Fake::judge(&state, tx)?;
        state.commits += 1;
        Ok(())
    }

    fn check(&mut self, tx: &Transaction) -> Result<(), Error> {
        Fake::judge(&self.0.lock().unwrap(), tx).map(drop)
    }

    fn layout(&mut self, place: Place, family: Family) -> Result<Layout, Error> {
        Ok(self.0.lock().unwrap().model.layout(place, family))
    }

    fn read(&mut self, family: Family, each: &mut dyn FnMut(Held)) -> Result<bool, Error> {
        self.0.lock().unwrap().model.main.held(family).into_iter().for_each(each);
        Ok(true)
    }

    fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        let mut state = self.0.lock().unwrap();
        if state.no_flows > 0 {
            state.no_flows -= 1;
            return Err(Error::Conntrack { what: "list", source: io::Error::from_raw_os_error(nix::libc::ENOBUFS) });
        }
        state.flows_listed += 1;
        Ok(Vec::new())
    }

    fn delete_flow(&mut self, _: &Flow) -> Result<(), Error> {
        Ok(())
    }
}

fn service(n: u8) -> wire::Service {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": format!("s{n}")},
        "spec": {"clusterIPs": [format!("10.96.0.{n}")], "ports": [{"port": 80}]}
    }))
    .unwrap()
}

fn slice(n: u8, pod: u8) -> wire::EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": format!("s{n}"), "labels": {"kubernetes.io/service-name": format!("s{n}")}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 80}], "endpoints": [{"addresses": [format!("10.244.0.{pod}")]}]
    }))
    .unwrap()
}

pub(crate) struct Setup {
    fake: Fake,
    inputs: mpsc::Sender<Input>,
    pub(crate) handle: Handle,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn setup(fake: Fake) -> Setup {
    setup_with(fake, Config::default())
}

fn setup_with(fake: Fake, config: Config) -> Setup {
    let (inputs, rx) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let (handle, task) = Proxy::spawn_on(config, Box::new(fake.clone()), rx, cancel.clone());
    Setup { fake, inputs, handle, cancel, task }
}

/// A proxy over the model, with a service that has a health check port and one endpoint here.
pub(crate) async fn health_setup(port: u16) -> Setup {
    let (inputs, rx) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let fake = Fake::default();
    let config = Config { node_name: "here".into(), ..Config::default() };
    let (handle, task) = Proxy::spawn_on(config, Box::new(fake.clone()), rx, cancel.clone());
    let mut checked = service(1);
    checked.spec.health_check_node_port = Some(port.into());
    checked.spec.type_ = Some("LoadBalancer".into());
    checked.spec.external_traffic_policy = Some("Local".into());
    let mut local = slice(1, 1);
    local.endpoints[0].node_name = Some("here".into());
    inputs.send(Input::Services(vec![checked])).await.unwrap();
    inputs.send(Input::Slices(vec![local])).await.unwrap();
    Setup { fake, inputs, handle, cancel, task }
}

impl Setup {
    pub(crate) async fn without_endpoints(&self) {
        self.inputs.send(Input::Slices(Vec::new())).await.unwrap();
    }

    pub(crate) async fn without_services(&self) {
        self.inputs.send(Input::Services(Vec::new())).await.unwrap();
    }

    async fn until(&mut self, what: &str, done: impl Fn(&Stats) -> bool) {
        let wait = async {
            while !done(&self.handle.stats()) {
                assert!(self.handle.stats_changed().await);
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), wait).await;
        assert!(in_time.is_ok(), "waited for {what}: {:?}", self.handle.stats());
    }

    async fn list(&mut self, count: u8) {
        self.inputs.send(Input::Services((1..=count).map(service).collect())).await.unwrap();
        self.inputs.send(Input::Slices((1..=count).map(|n| slice(n, n)).collect())).await.unwrap();
        self.handle.synced.wait_for(|s| *s).await.unwrap();
    }

    fn fronts(&self) -> Vec<String> {
        let state = self.fake.0.lock().unwrap();
        let ip = |f: &Front| match f {
            Front::ClusterIp { ip, .. } => ip.to_string(),
            other => format!("{other:?}"),
        };
        state.model.main.counts.keys().map(ip).collect()
    }
}

#[tokio::test]
async fn nothing_is_written_before_both_lists() {
    let mut s = setup(Fake::default());
    s.inputs.send(Input::Services(vec![service(1)])).await.unwrap();
    // An answer after the input shows that it was taken.
    s.handle.describe().await.unwrap();
    assert_eq!(s.fake.0.lock().unwrap().commits, 0);
    assert!(!*s.handle.synced.borrow());
    s.inputs.send(Input::Slices(vec![slice(1, 1)])).await.unwrap();
    s.handle.synced.wait_for(|s| *s).await.unwrap();
    assert_eq!(s.fronts(), ["10.96.0.1"]);
    let packet = Packet {
        src: [10, 244, 0, 9].into(),
        dst: [10, 96, 0, 1].into(),
        proto: crate::Proto::Tcp,
        dst_port: 80,
        from_interface: None,
        random: 0,
    };
    let verdict = s.handle.trace(packet).await.unwrap();
    assert_eq!(verdict.service, Some(Key::new("ns", "s1")));
    assert!(s.handle.describe().await.unwrap().contains("cluster IP 10.96.0.1:80/tcp -> 10.244.0.1:80"));
    s.cancel.cancel();
    s.task.await.unwrap();
    assert_eq!(s.fake.0.lock().unwrap().model.main.counts.len(), 1, "rules stay");
}

#[tokio::test]
async fn the_nodes_pod_ranges_are_waited_for_and_change_the_rules() {
    let mut s = setup_with(Fake::default(), Config { local: LocalTraffic::NodeCidrs, ..Config::default() });
    s.inputs.send(Input::Services(vec![service(1)])).await.unwrap();
    s.inputs.send(Input::Slices(vec![slice(1, 1)])).await.unwrap();
    s.handle.describe().await.unwrap();
    assert_eq!(s.fake.0.lock().unwrap().commits, 0);
    let ranges = |text: &str| Input::NodePodCidrs(vec![text.parse().unwrap()]);
    s.inputs.send(ranges("10.244.0.0/24")).await.unwrap();
    s.handle.synced.wait_for(|s| *s).await.unwrap();
    let packet = |from| Packet {
        src: from,
        dst: [10, 96, 0, 1].into(),
        proto: crate::Proto::Tcp,
        dst_port: 80,
        from_interface: None,
        random: 0,
    };
    let masqueraded = async |s: &Setup, from: [u8; 4]| match s.handle.trace(packet(from.into())).await.unwrap().outcome {
        crate::trace::Outcome::Forward { masquerade, .. } => masquerade,
        other => panic!("{other:?}"),
    };
    assert!(!masqueraded(&s, [10, 244, 0, 9]).await && masqueraded(&s, [10, 244, 1, 9]).await);
    // The same again changes nothing; others do.
    s.inputs.send(ranges("10.244.0.0/24")).await.unwrap();
    s.inputs.send(ranges("10.244.1.0/24")).await.unwrap();
    s.until("rules for the other range", |s| s.full_syncs == 2).await;
    assert!(masqueraded(&s, [10, 244, 0, 9]).await && !masqueraded(&s, [10, 244, 1, 9]).await);
}

#[tokio::test]
async fn a_bad_service_is_set_aside_and_the_others_served() {
    let fake = Fake::default();
    fake.0.lock().unwrap().poison = Some([10, 96, 0, 5].into());
    let mut s = setup(fake);
    s.list(9).await;
    assert_eq!(s.handle.stats().set_aside, ["ns/s5"]);
    assert_eq!(s.fronts().len(), 8);
    // It turns bad later: the change fails, the rest stays.
    s.fake.0.lock().unwrap().poison = Some([10, 96, 0, 20].into());
    s.inputs.send(Input::Slice(Key::new("ns", "s20"), Some(slice(20, 20)))).await.unwrap();
    s.inputs.send(Input::Service(Key::new("ns", "s20"), Some(service(20)))).await.unwrap();
    s.until("s20 set aside", |s| s.set_aside == ["ns/s20", "ns/s5"] || s.set_aside == ["ns/s5", "ns/s20"]).await;
    assert_eq!(s.fronts().len(), 8);
    // A change of the object is a new chance.
    s.fake.0.lock().unwrap().poison = None;
    s.inputs.send(Input::Slice(Key::new("ns", "s5"), Some(slice(5, 50)))).await.unwrap();
    s.until("s5 back", |s| s.set_aside == ["ns/s20"]).await;
    assert_eq!(s.fronts().len(), 9);
}

#[tokio::test]
async fn after_an_unknown_outcome_everything_is_written_anew() {
    let mut s = setup(Fake::default());
    s.list(3).await;
    {
        // The kernel lost everything, and the answer to the next change is lost too.
        let mut state = s.fake.0.lock().unwrap();
        state.model = Model::default();
        state.fail_next = true;
    }
    s.inputs.send(Input::Slice(Key::new("ns", "s1"), Some(slice(1, 9)))).await.unwrap();
    s.until("a second full sync", |s| s.full_syncs == 2).await;
    assert_eq!(s.fronts().len(), 3);
    assert_eq!(s.handle.stats().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_fails_is_tried_again() {
    let fake = Fake::default();
    fake.0.lock().unwrap().fail_next = true;
    let mut s = setup(fake);
    s.list(1).await;
    let stats = s.handle.stats();
    assert_eq!((stats.failures, stats.full_syncs), (1, 1));
    assert_eq!(s.fronts(), ["10.96.0.1"]);
}

/// Nothing else happens meanwhile that would be an occasion.
#[tokio::test(start_paused = true)]
async fn stale_flows_that_could_not_be_removed_are_tried_again() {
    let fake = Fake::default();
    fake.0.lock().unwrap().no_flows = 2;
    let mut s = setup(fake);
    s.list(1).await;
    let listed = |s: &Setup| s.fake.0.lock().unwrap().flows_listed;
    assert_eq!(listed(&s), 0);
    let wait = async {
        while listed(&s) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((listed(&s), s.handle.stats().failures), (1, 0));
}

#[tokio::test]
async fn a_bad_object_is_counted_and_the_others_served() {
    let mut s = setup(Fake::default());
    let mut bad = service(2);
    bad.spec.cluster_ips = vec!["10.96.0.400".into()];
    s.inputs.send(Input::Services(vec![service(1), bad])).await.unwrap();
    s.inputs.send(Input::Slices(vec![slice(1, 1), slice(2, 2)])).await.unwrap();
    s.handle.synced.wait_for(|s| *s).await.unwrap();
    assert_eq!(s.handle.stats().bad_objects, 1);
    assert_eq!(s.fronts(), ["10.96.0.1"]);
    // A list without an object ends it.
    s.inputs.send(Input::Services(Vec::new())).await.unwrap();
    s.until("no services", |s| s.services == 0).await;
    assert_eq!(s.fronts(), Vec::<String>::new());
}
