//! Registry credentials in both of docker's formats: what fits an image best comes first.
#![no_main]

use ferrolet::images::auth::{DockerConfig, Own};
use ferrolet::images::keyring::Keyring;
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
    let own = Own::of(&secrets, DockerConfig::json(text).unwrap_or_default());
    assert_eq!(own.mark(), Own::of(&secrets, DockerConfig::json(text).unwrap_or_default()).mark());
    for credential in own.find(image, &Keyring::default()) {
        let password = &credential.config.password;
        // A shorter one may be a part of a hash or of a field's name.
        assert!(password.len() <= 64 || !format!("{credential:?} {:?}", own.problems).contains(password.as_str()));
    }
});
