use super::*;

#[test]
fn only_watches_are_answered() {
    let initial = "GET /api/v1/nodes?allowWatchBookmarks=true&sendInitialEvents=true&watch=true HTTP/1.1";
    assert_eq!(watched(initial), Some(("Node", true)));
    let slices = "GET /apis/discovery.k8s.io/v1/endpointslices?labelSelector=x&resourceVersion=1&watch=true HTTP/1.1";
    assert_eq!(watched(slices), Some(("EndpointSlice", false)));
    for other in [
        "GET /api/v1/nodes HTTP/1.1",
        "GET /api/v1/nodes?limit=500 HTTP/1.1",
        "POST /api/v1/nodes?watch=true HTTP/1.1",
        "GET /api/v1/pods?watch=true HTTP/1.1",
        "",
    ] {
        assert_eq!(watched(other), None, "{other}");
    }
}

#[test]
fn a_list_is_streamed_and_lines_follow() {
    let shape = Shape { services: 3, endpoints: 2, udp: false };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let target = "/apis/discovery.k8s.io/v1/endpointslices?sendInitialEvents=true&watch=true";
    write!(client, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let watches = Watches::default();
    answer(listener.accept().unwrap().0, shape, &watches).unwrap();
    let api = Api { address: listener.local_addr().unwrap(), watches, stop: Arc::default() };
    let line = objects::slice(shape, "MODIFIED", 1, &objects::endpoints(shape, 1), 2);
    api.send(&line).unwrap();
    drop(api);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let kinds: Vec<String> = body
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["ADDED", "ADDED", "ADDED", "BOOKMARK", "MODIFIED"]);
    assert!(body.ends_with(&line));
}
