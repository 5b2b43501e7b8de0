//! A client, a gateway and a server, each in a network namespace of its own, and a peer that speaks the protocol.
//!
//! Nothing outside of the namespaces is touched; they vanish with their threads.

pub(crate) mod netns;
pub(crate) mod peer;
pub(crate) mod process;

/// Says loudly that a test did nothing, and why.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        eprintln!("SKIPPED {}: {}", std::thread::current().name().unwrap_or("?"), format_args!($($why)*));
        eprintln!("    run it as root, or: unshare -Urnm cargo test -p nufw-agent");
        return;
    }};
}
