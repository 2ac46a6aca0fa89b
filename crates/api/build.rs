//! The messages and the services of `proto/`, without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["proto/worker.proto", "proto/nodes.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    // Nodes speak of attempts as workers do.
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".kapell.nodes.v1")
        .boxed(".kapell.nodes.v1.Work.word.session")
        .extern_path(".kapell.worker.v1", "crate::worker::proto")
        .compile_fds(protox::compile(files, ["proto"])?)?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".kapell.worker.v1.Chunk")
        // What is big and often not there: most tasks and reports are small, and there are many.
        .boxed(".kapell.worker.v1.Task.process")
        .boxed(".kapell.worker.v1.Task.work.python")
        .boxed(".kapell.worker.v1.Task.work.http")
        .boxed(".kapell.worker.v1.Ended.outcome.failed")
        .compile_fds(protox::compile(["proto/worker.proto"], ["proto"])?)?;
    Ok(())
}
