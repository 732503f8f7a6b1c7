//! Compiles the health protocol without protoc: client for the check, server for its tests.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/health.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto/health.proto");
    Ok(())
}
