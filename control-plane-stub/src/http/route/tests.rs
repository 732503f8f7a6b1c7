use super::*;

fn resource(path: &str) -> ResourceTarget {
    match parse(path) {
        Target::Resource(r) => r,
        Target::Other(p) => panic!("{p} is no resource"),
    }
}

#[test]
fn paths() {
    let r = resource("/api/v1/namespaces/default/pods/a/log");
    assert_eq!(
        (r.group.as_str(), r.namespace.as_str(), r.plural.as_str(), r.name.as_str(), r.sub.as_str()),
        ("", "default", "pods", "a", "log")
    );
    let r = resource("/api/v1/namespaces/default");
    assert_eq!((r.namespace.as_str(), r.plural.as_str(), r.name.as_str()), ("", "namespaces", "default"));
    let r = resource("/api/v1/namespaces/default/finalize");
    assert_eq!((r.plural.as_str(), r.name.as_str(), r.sub.as_str()), ("namespaces", "default", "finalize"));
    let r = resource("/apis/apps/v1/deployments");
    assert_eq!((r.group.as_str(), r.version.as_str(), r.plural.as_str()), ("apps", "v1", "deployments"));
    let r = resource("/api/v1/nodes/n/proxy/stats/summary");
    assert_eq!((r.sub.as_str(), r.rest.as_str()), ("proxy", "stats/summary"));
    assert_eq!(resource("/api/v1/nodes/a%3Ab").name, "a:b");
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/apis/apps/v1",
        "/healthz",
        "/openapi/v3/apis/apps/v1",
        "/api/v1//pods",
        "/api/v1/pods/a/b/c",
    ] {
        assert_eq!(parse(path), Target::Other(path.to_owned()), "{path}");
    }
}

#[test]
fn verbs() {
    let get = |path: &str, query: &str| verb(&http::Method::GET, &parse(path), &Query::parse(Some(query)));
    assert_eq!(get("/api/v1/pods", ""), "list");
    assert_eq!(get("/api/v1/pods", "watch=1"), "watch");
    assert_eq!(get("/api/v1/nodes/a", ""), "get");
    assert_eq!(get("/api/v1/namespaces/d/pods/a/exec", "command=x"), "create");
    assert_eq!(verb(&http::Method::DELETE, &parse("/api/v1/pods"), &Query::default()), "deletecollection");
}
