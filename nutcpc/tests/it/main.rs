//! The client on real sockets, real TLS and the real kernel. One module a claim's subject; `peer` and `support` serve
//! the others.

#[cfg(test)]
mod command;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod pam;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod session;
#[cfg(test)]
mod several;
#[cfg(test)]
mod support;
