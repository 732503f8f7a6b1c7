use super::*;

#[test]
fn kubectl_gets_tables_and_protobuf_clients_json() {
    let kubectl =
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    assert_eq!(answer(Some(kubectl), &[View::Table]).unwrap().view, View::Table);
    assert_eq!(answer(Some(kubectl), &[]).unwrap().view, View::Plain);
    let client = "application/vnd.kubernetes.protobuf,application/json";
    assert_eq!(answer(Some(client), &[]).unwrap().encoding, Encoding::Json);
    assert_eq!(answer(Some("application/vnd.kubernetes.protobuf"), &[]).unwrap_err().code(), 406);
    assert_eq!(answer(Some("application/yaml"), &[]).unwrap().encoding, Encoding::Yaml);
    assert_eq!(answer(Some("application/json;q=0.1, application/yaml"), &[]).unwrap().encoding, Encoding::Yaml);
    for any in [None, Some(""), Some("*/*")] {
        assert_eq!(answer(any, &[]).unwrap(), Answer { encoding: Encoding::Json, view: View::Plain });
    }
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    assert_eq!(answer(Some(aggregated), &[View::Discovery]).unwrap().view, View::Discovery);
}
