use super::*;

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, bytes.len() as u8];
    out.extend_from_slice(bytes);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn an_object_as_go_clients_send_it() {
    let metadata = [field(1, b"cfg"), field(2, b""), field(3, b"default"), field(8, b"")].concat();
    let entry = [field(1, b"a"), field(2, b"b")].concat();
    let raw = [field(1, &metadata), field(2, &entry)].concat();
    let object = decode(&envelope("v1", "ConfigMap", &raw)).unwrap();
    assert_eq!(
        object,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cfg", "namespace": "default"}, "data": {"a": "b"}})
    );
}

#[test]
fn inline_parts_presence_and_special_types() {
    // A volume with an empty emptyDir, a port by name, a false that counts.
    let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
    let spec = [field(1, &volume), vec![21 << 3 & 0x7f | 0x80, 1, 0]].concat();
    let object = decode(&envelope("v1", "Pod", &field(2, &spec))).unwrap();
    assert_eq!(object["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    assert_eq!(object["spec"]["automountServiceAccountToken"], json!(false));
    assert_eq!(int_or_string(&[8, 1, 26, 2, b'u', b'p']).unwrap(), json!("up"));
    assert_eq!(int_or_string(&[8, 0, 16, 80]).unwrap(), json!(80));
}

#[test]
fn every_type_named_is_known() {
    for (name, message) in messages() {
        for field in message.values() {
            let special =
                ["meta.v1.Time", "meta.v1.MicroTime", "api.resource.Quantity", "util.intstr.IntOrString", "runtime.RawExtension"];
            let plain = ["string", "bytes", "bool", "int32", "int64", "uint32", "uint64", "double"];
            let known = special.contains(&field.ty) || plain.contains(&field.ty) || lookup(field.ty).is_some();
            assert!(known, "{name}.{}: {}", field.name, field.ty);
        }
    }
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(decode(b"{}").unwrap_err().code(), 400);
    assert_eq!(decode(&envelope("example.org/v1", "Thing", b"")).unwrap_err().code(), 415);
    let good = envelope("v1", "ConfigMap", &field(1, &field(1, b"cfg")));
    for len in 4..good.len() {
        let _ = decode(&good[..len]);
    }
    assert_eq!(decode(&envelope("v1", "ConfigMap", &[0x0a, 0xff])).unwrap_err().code(), 400);
}
