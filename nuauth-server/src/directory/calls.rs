//! Questions to another process and their answers, many at one time over one stream.
//!
//! Knows neither what is asked nor who answers. When the stream ends every question that waits is answered with that.

use super::wire::{self, Answered, Ask, Call, Reply, Settings, ToHelper};
use super::worker::Kind;
use nufw_proto::LoginBytes;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// Questions that wait for their answers; a further one is answered at once that nobody can say.
const WAITING: usize = 1024;

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

enum Item {
    Settings(Box<Settings>),
    Call(Kind, Ask, Option<LoginBytes>, oneshot::Sender<Reply>),
}

/// The asking side of the stream.
#[derive(Clone)]
pub struct Calls(mpsc::Sender<Item>);

impl Calls {
    /// Drives a stream until it ends, in a task of its own.
    pub(super) fn over<R, W>(reader: R, writer: W) -> (Self, tokio::task::JoinHandle<String>)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (items, queue) = mpsc::channel(WAITING);
        (Self(items), tokio::spawn(drive(reader, writer, queue)))
    }

    /// Tells how to ask from here on.
    pub(crate) async fn set(&self, settings: Settings) {
        let _ = self.0.send(Item::Settings(Box::new(settings))).await;
    }

    /// Asks.
    pub(super) async fn ask(&self, of: Kind, ask: Ask, secret: Option<LoginBytes>) -> Reply {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Item::Call(of, ask, secret, answer)) {
            Ok(()) => answered
                .await
                .unwrap_or_else(|_| Reply::CannotSay("the process that asks it has ended".to_owned())),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Reply::CannotSay(format!("{WAITING} logins wait for it, which is the most"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                Reply::CannotSay("the process that asks it does not run".to_owned())
            }
        }
    }
}

async fn drive<R, W>(mut reader: R, mut writer: W, mut queue: mpsc::Receiver<Item>) -> String
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let waiting = Waiting::default();
    let answers = Arc::clone(&waiting);
    let hears = async move {
        loop {
            match wire::read::<Answered>(&mut reader).await {
                Ok(Some(Answered { id, reply })) => {
                    let answer = answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    if let Some(answer) = answer {
                        let _ = answer.send(reply);
                    }
                }
                Ok(None) => return "it ended".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    };
    let says = async {
        let mut id = 0;
        while let Some(item) = queue.recv().await {
            let message = match item {
                Item::Settings(settings) => ToHelper::Settings(settings),
                Item::Call(of, ask, secret, answer) => {
                    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    // Whoever waited may have gone.
                    waiting.retain(|_, answer| !answer.is_closed());
                    if waiting.len() >= WAITING {
                        let _ = answer.send(Reply::CannotSay(format!(
                            "{WAITING} logins wait for it, which is the most"
                        )));
                        continue;
                    }
                    id += 1;
                    waiting.insert(id, answer);
                    ToHelper::Call(Call { id, of, ask, secret })
                }
            };
            wire::write(&mut writer, &message).await?;
        }
        Ok::<(), io::Error>(())
    };
    let why = tokio::select! {
        why = hears => why,
        said = says => said.map_or_else(|error| error.to_string(), |()| "nobody asks any more".to_owned()),
    };
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Calls, tokio::task::JoinHandle<String>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (reader, writer) = tokio::io::split(ours);
        let (calls, task) = Calls::over(reader, writer);
        (calls, task, theirs)
    }

    async fn next(from: &mut tokio::io::DuplexStream) -> Call {
        match wire::read(from).await.unwrap() {
            Some(ToHelper::Call(call)) => call,
            other => panic!("{other:?}"),
        }
    }

    fn identity(name: &str) -> Ask {
        Ask::Identity(name.to_owned())
    }

    #[tokio::test]
    async fn answers_come_in_any_order_to_those_who_asked() {
        let (calls, task, mut other) = pair();
        let (one, two) = (calls.clone(), calls.clone());
        let one = tokio::spawn(async move { one.ask(Kind::Ldap, identity("one"), None).await });
        let first = next(&mut other).await;
        let two = tokio::spawn(async move { two.ask(Kind::System, identity("two"), None).await });
        let second = next(&mut other).await;
        for (id, reply) in [
            (99, Reply::Right),
            (second.id, Reply::Wrong),
            (first.id, Reply::Unknown),
        ] {
            wire::write(&mut other, &Answered { id, reply }).await.unwrap();
        }
        assert_eq!(one.await.unwrap(), Reply::Unknown);
        assert_eq!(two.await.unwrap(), Reply::Wrong);
        drop(other);
        assert_eq!(task.await.unwrap(), "it ended");
        let reply = calls.ask(Kind::Ldap, identity("late"), None).await;
        assert!(matches!(reply, Reply::CannotSay(_)), "{reply:?}");
    }

    #[tokio::test]
    async fn when_the_process_ends_those_who_wait_hear_of_it() {
        let (calls, _task, mut other) = pair();
        let asking = tokio::spawn(async move { calls.ask(Kind::Ldap, identity("one"), None).await });
        next(&mut other).await;
        drop(other);
        assert!(matches!(asking.await.unwrap(), Reply::CannotSay(_)));
    }

    #[tokio::test]
    async fn as_many_wait_as_may_and_not_one_more() {
        let (calls, _task, mut other) = pair();
        let mut asking = Vec::new();
        for n in 0..WAITING {
            let calls = calls.clone();
            asking.push(tokio::spawn(async move {
                calls.ask(Kind::Ldap, identity(&n.to_string()), None).await
            }));
            next(&mut other).await;
        }
        let reply = calls.ask(Kind::Ldap, identity("more"), None).await;
        assert_eq!(
            reply,
            Reply::CannotSay(format!("{WAITING} logins wait for it, which is the most"))
        );
        // Those who give up leave their places.
        asking.pop().unwrap().abort();
        tokio::task::yield_now().await;
        let more = tokio::spawn(async move { calls.ask(Kind::Ldap, identity("more"), None).await });
        assert_eq!(next(&mut other).await.ask, identity("more"));
        more.abort();
    }
}
