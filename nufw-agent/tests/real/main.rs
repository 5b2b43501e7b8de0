//! The agent on the real kernel: namespaces of its own, real queues, real connection tables, real TLS.
//!
//! Where namespaces are not permitted each test says so and does nothing.

#[cfg(test)]
mod agent;
#[cfg(test)]
mod conntrack;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod fixed;
#[cfg(test)]
mod support;
