//! How work on the log is handed out: boxed, so that whoever waits for it compiles none of it.
//!
//! An `async fn` is compiled again in every crate that awaits it, with all that it awaits itself: three database drivers.

use std::pin::Pin;

/// Work on the log, done while it is awaited. Given up half-way it leaves the log as it was or as it should be.
pub type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
