//! The queue and the rules on a real kernel, in network namespaces that each test makes for itself.
//!
//! Nothing here touches the namespace that the tests are started in. As an ordinary user: `unshare -Urnm cargo test -p
//! nufw-agent --test kernel`.

#[cfg(test)]
mod check;
#[cfg(test)]
mod ended;
#[cfg(test)]
mod interfaces;
#[cfg(test)]
mod load;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod support;
