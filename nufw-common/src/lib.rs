//! What the programs share: clock, configuration with origins, TLS set-up, framed links, the server's socket, lifecycle.
//!
//! Nothing here knows what a packet, a user or a row is: that is each program's own business.

pub mod backoff;
pub mod clock;
pub mod config;
pub mod control;
pub mod exit;
pub mod gs2;
#[cfg(feature = "http")]
pub mod http;
pub mod lifecycle;
pub mod link;
pub mod listen;
pub mod logging;
#[cfg(feature = "observe")]
pub mod observe;
pub mod privileges;
pub mod sandbox;
pub mod tls;
pub mod waits;
pub mod watchdog;
