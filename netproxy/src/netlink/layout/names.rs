//! Names of our sets and maps.

use crate::ruleset::PickKind;

pub const TABLE: &str = "ferrolet";
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
