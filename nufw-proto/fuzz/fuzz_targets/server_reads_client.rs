//! What the server reads from a user's client.
#![no_main]

#[path = "../src/bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::read_stream::<nufw_proto::client::ToServer>(data));
