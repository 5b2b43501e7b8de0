//! The wire held to its word: every message of every direction goes there and back, and nothing else is taken for one.
//!
//! `samples` lists every message and fails to compile when one is missing; the other modules are claims about them.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod protocol_page;
#[cfg(test)]
mod random_bytes;
#[cfg(test)]
mod random_messages;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod texts;
#[cfg(test)]
mod truncation;
#[cfg(test)]
mod vectors;

#[cfg(test)]
#[path = "../../fuzz/src/bodies.rs"]
mod bodies;
