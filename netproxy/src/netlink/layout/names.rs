//! Names of our sets and maps.

use crate::diff::{Pick, Place};
use crate::model::{Family, Proto};
use crate::ruleset::{Mark, PickKind};
use std::net::IpAddr;

pub const TABLE: &str = "ferrolet";
/// Serves while a table of another layout is replaced.
pub const SPARE: &str = "ferrolet-next";
pub const CLUSTER_IPS: &str = "cluster-ips";
pub const LOCAL_ONLY: &str = "local-only-nodeports";
pub const UNSERVED: &str = "unserved-nodeports";
pub const HAIRPINS: &str = "hairpins";
pub const NO_LOCAL: &str = "no-local-endpoint";
pub const EXTERNAL: &str = "external-fronts";
pub const LOCAL_ONLY_IPS: &str = "local-only-externals";
pub const RANGED: &str = "restricted-fronts";
pub const SOURCES: &str = "allowed-sources";

/// The map of counts of a kind.
pub fn counts(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "services",
        PickKind::External => "externals",
        PickKind::LocalExternal => "local-externals",
        PickKind::NodePort => "nodeports",
        PickKind::LocalNodePort => "local-nodeports",
    }
}

/// The map of endpoints of a kind.
pub fn slots(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-slots",
        PickKind::External => "external-slots",
        PickKind::LocalExternal => "local-external-slots",
        PickKind::NodePort => "nodeport-slots",
        PickKind::LocalNodePort => "local-nodeport-slots",
    }
}

/// The verdict map from a count to its chain.
pub fn picks(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-picks",
        PickKind::External => "external-picks",
        PickKind::LocalExternal => "local-external-picks",
        PickKind::NodePort => "nodeport-picks",
        PickKind::LocalNodePort => "local-nodeport-picks",
    }
}

/// With affinity: from a slot to an endpoint's id.
pub fn slot_ids(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-slot-ids",
        PickKind::External => "external-slot-ids",
        PickKind::LocalExternal => "local-external-slot-ids",
        PickKind::NodePort => "nodeport-slot-ids",
        PickKind::LocalNodePort => "local-nodeport-slot-ids",
    }
}

/// With affinity: from an id to the endpoint.
pub fn ids(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service => "service-ids",
        PickKind::External => "external-ids",
        PickKind::LocalExternal => "local-external-ids",
        PickKind::NodePort => "nodeport-ids",
        PickKind::LocalNodePort => "local-nodeport-ids",
    }
}

/// Which endpoint, by id, a client had last. Filled by packets, kept when everything else is written anew.
pub fn clients(kind: PickKind) -> &'static str {
    match kind {
        PickKind::Service | PickKind::External | PickKind::LocalExternal => "clients",
        PickKind::NodePort | PickKind::LocalNodePort => "nodeport-clients",
    }
}

pub fn table(place: Place) -> &'static str {
    match place {
        Place::Main => TABLE,
        Place::Spare => SPARE,
    }
}

pub fn pick_chain(pick: &Pick) -> String {
    let kind = match pick.kind {
        PickKind::Service => "service",
        PickKind::External => "external",
        PickKind::LocalExternal => "local-external",
        PickKind::NodePort => "nodeport",
        PickKind::LocalNodePort => "local-nodeport",
    };
    match pick.affinity {
        None => format!("{kind}-pick-{}", pick.count),
        Some(seconds) => format!("{kind}-pick-{}-for-{seconds}s", pick.count),
    }
}

/// What the elements of a set mean.
#[derive(Clone, Copy)]
pub enum Keyed {
    Counts(PickKind),
    Slots(PickKind),
    SlotIds(PickKind),
    Ids(PickKind),
    Picks(PickKind),
    Addresses(fn(IpAddr) -> Mark),
    Ports(fn(Family, Proto, u16) -> Mark),
    Fronts(fn(IpAddr, Proto, u16) -> Mark),
    Ranges,
    Hairpins,
}

/// All sets but those that packets fill.
pub fn keyed() -> Vec<(&'static str, Keyed)> {
    let mut all: Vec<(&'static str, Keyed)> = vec![
        (CLUSTER_IPS, Keyed::Addresses(Mark::ClusterIp)),
        (NO_LOCAL, Keyed::Fronts(|ip, proto, port| Mark::NoLocal { ip, proto, port })),
        (EXTERNAL, Keyed::Fronts(|ip, proto, port| Mark::External { ip, proto, port })),
        (LOCAL_ONLY_IPS, Keyed::Fronts(|ip, proto, port| Mark::LocalOnlyIp { ip, proto, port })),
        (RANGED, Keyed::Fronts(|ip, proto, port| Mark::Ranged { ip, proto, port })),
        (SOURCES, Keyed::Ranges),
        (LOCAL_ONLY, Keyed::Ports(|family, proto, port| Mark::LocalOnly { family, proto, port })),
        (UNSERVED, Keyed::Ports(|family, proto, port| Mark::Unserved { family, proto, port })),
        (HAIRPINS, Keyed::Hairpins),
    ];
    for kind in PickKind::ALL {
        all.extend([
            (counts(kind), Keyed::Counts(kind)),
            (slots(kind), Keyed::Slots(kind)),
            (slot_ids(kind), Keyed::SlotIds(kind)),
            (ids(kind), Keyed::Ids(kind)),
            (picks(kind), Keyed::Picks(kind)),
        ]);
    }
    all
}
