//! Registry credentials in both of docker's formats: what fits an image best comes first.
#![no_main]

use ferrolet::images::auth::{find, mark};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use libfuzzer_sys::fuzz_target;

const FORMATS: [(&str, &str); 2] =
    [("kubernetes.io/dockercfg", ".dockercfg"), ("kubernetes.io/dockerconfigjson", ".dockerconfigjson")];

fuzz_target!(|input: (&str, &[u8])| {
    let (image, text) = input;
    let secrets = FORMATS.map(|(type_, key)| Secret {
        type_: Some(type_.to_owned()),
        data: Some([(key.to_owned(), ByteString(text.to_vec()))].into()),
        ..Secret::default()
    });
    assert_eq!(mark(&secrets), mark(&secrets.clone()));
    for credential in find(image, &secrets) {
        let config = credential.config;
        assert!(!format!("{:?}", credential.secret).contains(&config.password) || config.password.is_empty());
    }
});
