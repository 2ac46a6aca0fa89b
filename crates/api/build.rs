//! The messages and the services of `proto/`, without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["proto/worker.proto", "proto/nodes.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".kapell.worker.v1.Chunk")
        .bytes(".kapell.nodes.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
