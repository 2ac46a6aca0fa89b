//! The messages of `proto/nodes.proto`, as they are generated.
#![expect(missing_docs, reason = "the file they come from says what they are")]
#![allow(clippy::pedantic, reason = "generated")]

tonic::include_proto!("kapell.nodes.v1");
