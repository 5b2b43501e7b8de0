//! Asking again about everybody who has logged in: after a reload, from time to time, and when an administrator wants it.
//!
//! Of whom nobody can say anything, nothing changes.

use super::{Answer, Directory};
use crate::engine::Identity;
use crate::hub::{Asked, Event};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Users that back-ends are asked about at one time.
const AT_ONCE: usize = 8;

/// How often it is looked whether somebody wants it at all.
const NEVER: Duration = Duration::from_mins(1);

/// What came of it, in numbers of users.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AskedAgain {
    /// They were asked about.
    pub(crate) asked: usize,
    /// They are no users any more.
    pub(crate) gone: usize,
    /// Nobody could say.
    pub(crate) unsaid: usize,
}

/// Asks back-ends about everybody whom the users file does not say everything about, and tells the hub who is gone and who has
/// other groups.
pub(crate) async fn ask_again(directory: &Arc<Directory>, hub: &mpsc::Sender<Event>) -> AskedAgain {
    let (answer, answered) = oneshot::channel();
    let mut counts = AskedAgain::default();
    if hub.send(Event::Remembered { answer }).await.is_err() {
        return counts;
    }
    let remembered = answered.await.unwrap_or_default();
    for few in remembered.chunks(AT_ONCE) {
        let mut asking = tokio::task::JoinSet::new();
        for identity in few {
            let (directory, identity) = (Arc::clone(directory), Arc::clone(identity));
            asking.spawn(async move { ask(&directory, &identity).await });
        }
        let answers = asking.join_all().await;
        counts.asked += answers.len();
        counts.unsaid += answers.iter().filter(|answer| answer.is_none()).count();
        let answers: Vec<Asked> = answers.into_iter().flatten().collect();
        counts.gone += answers
            .iter()
            .filter(|answer| matches!(answer, Asked::Gone(_)))
            .count();
        if !answers.is_empty() && hub.send(Event::Asked(answers)).await.is_err() {
            return counts;
        }
    }
    if counts.unsaid > 0 {
        tracing::warn!(
            users = counts.unsaid,
            "directories could not say of these users whether they are still there; they stay as they are"
        );
    }
    counts
}

/// Asks again whenever `users.ask-again` has passed; for as long as the server runs.
pub(crate) async fn keep_asking(
    directory: impl Fn() -> Arc<Directory> + Send + 'static,
    hub: mpsc::Sender<Event>,
) {
    loop {
        match directory().ask_again_after() {
            // A reload may set it.
            None => tokio::time::sleep(NEVER).await,
            Some(time) => {
                tokio::time::sleep(time).await;
                ask_again(&directory(), &hub).await;
            }
        }
    }
}

async fn ask(directory: &Directory, identity: &Arc<Identity>) -> Option<Asked> {
    let name = &identity.user.name;
    match directory.identify(name, false).await {
        // Another id is another user of that name.
        Answer::Known(now) if now.user.id == identity.user.id => Some(Asked::Known(now)),
        Answer::Known(_) | Answer::Unknown => Some(Asked::Gone(Arc::clone(name))),
        Answer::CannotSay(why) => {
            tracing::debug!(user = &**name, why, "not known whether the user is still there");
            None
        }
    }
}
