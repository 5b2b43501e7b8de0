//! What the server reads from a gateway.
#![no_main]

#[path = "../src/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::read_stream::<nufw_proto::gateway::ToServer>(data));
