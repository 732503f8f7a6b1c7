//! Compiles the interface with protox, so that no `protoc` is needed on the building host. Client and server code
//! are both generated: the server side is what the fake runtime implements.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/cri.proto");
    let descriptors = protox::compile(["cri.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Maps in order: the same message gives the same bytes and the same text.
        .btree_map(".")
        // These carry secrets; their Debug is written by hand in `pb.rs`.
        .skip_debug(["runtime.v1.AuthConfig", "runtime.v1.KeyValue", "runtime.v1.ExecSyncResponse"])
        .compile_fds(descriptors)?;
    Ok(())
}
