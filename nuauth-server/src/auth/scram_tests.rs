use super::*;
use crate::users::tests::load;
use proptest::prelude::*;
use rsasl::prelude::SASLClient;
use rsasl::property::Password;

struct File(crate::users::Users);

impl Keys for File {
    fn of(&self, name: &str) -> Option<ScramKeys> {
        self.0.by_name(name)?.scram().cloned()
    }

    fn secret(&self) -> &[u8; KEY] {
        &[7; KEY]
    }
}

fn keys() -> Arc<dyn Keys> {
    let keys = ScramKeys::derive(b"secret", b"some salt", 4096);
    let text = format!(
        "[[user]]\nname = \"alice\"\nid = 1\nscram = '{keys}'\n[[user]]\nname = \"a,b=c\"\nid = 2\nscram = '{keys}'\n\
         [[user]]\nname = \"bob\"\nid = 3\n"
    );
    Arc::new(File(load(&text).unwrap()))
}

struct Client {
    name: &'static str,
    password: &'static str,
    authzid: Option<&'static str>,
}

impl SessionCallback for Client {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request
            .satisfy::<AuthId>(self.name)?
            .satisfy::<Password>(self.password.as_bytes())?;
        if let Some(authzid) = self.authzid {
            request.satisfy::<AuthzId>(authzid)?;
        }
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        true
    }
}

/// A whole conversation with a client that takes `mechanism`; the name that was said, and how it ended.
fn converse(
    client: Client,
    mechanism: Mechanism,
    is_bound: bool,
    seen: Exported,
) -> (Option<String>, Result<Step, LoginError>) {
    let config = SASLConfig::builder()
        .with_registry(Registry::with_mechanisms(BOTH))
        .with_callback(client)
        .unwrap();
    let offered = [Mechname::parse(mechanism.name().as_bytes()).unwrap()];
    let mut client = SASLClient::with_cb(config, Binding(seen))
        .start_suggested_iter(offered)
        .unwrap();
    let mut server = Conversation::begin(mechanism, is_bound, [1; 32], keys()).unwrap();
    let mut said = None::<Vec<u8>>;
    for _ in 0..5 {
        let mut message = Vec::new();
        client.step(said.as_deref(), &mut message).unwrap();
        match server.step(&message) {
            Ok(Step::Challenge(challenge)) => said = Some(challenge),
            Ok(Step::Proven(last)) => {
                // The server has proven itself, too.
                client.step(Some(&last), &mut Vec::new()).unwrap();
                return (server.name(), Ok(Step::Proven(Vec::new())));
            }
            other => return (server.name(), other),
        }
    }
    panic!("it does not end")
}

fn client(name: &'static str, password: &'static str) -> Client {
    Client {
        name,
        password,
        authzid: None,
    }
}

#[test]
fn the_right_password_proves_who_it_is_and_no_other_does() {
    let proven = || Ok(Step::Proven(Vec::new()));
    for (mechanism, is_bound) in [(Mechanism::ScramPlus, true), (Mechanism::Scram, false)] {
        let try_it = |client| converse(client, mechanism, is_bound, [1; 32]);
        assert_eq!(
            try_it(client("alice", "secret")),
            (Some("alice".to_owned()), proven())
        );
        assert_eq!(
            try_it(client("a,b=c", "secret")),
            (Some("a,b=c".to_owned()), proven())
        );
        assert_eq!(
            try_it(client("alice", "Secret")),
            (Some("alice".to_owned()), Ok(Step::Wrong))
        );
        assert_eq!(
            try_it(client("bob", "secret")).1,
            Ok(Step::Wrong),
            "bob has no keys"
        );
        assert_eq!(
            try_it(client("carol", "secret")),
            (Some("carol".to_owned()), Ok(Step::Wrong))
        );
        let other = Client {
            authzid: Some("bob"),
            ..client("alice", "secret")
        };
        assert_eq!(try_it(other).1, Ok(Step::Wrong), "nobody acts as another user");
    }
}

#[test]
fn a_login_is_bound_to_its_connection() {
    let (_, ended) = converse(client("alice", "secret"), Mechanism::ScramPlus, true, [2; 32]);
    assert_eq!(
        ended,
        Ok(Step::Wrong),
        "what somebody in between relays is another connection's"
    );
    // A client that can bind, and that was told that the server cannot.
    let (_, ended) = converse(client("alice", "secret"), Mechanism::Scram, true, [1; 32]);
    assert!(matches!(ended, Err(LoginError::Malformed { .. })), "{ended:?}");
}

#[test]
fn an_unknown_user_is_answered_like_a_known_one() {
    let challenge = |name: &str| {
        let mut server = Conversation::begin(Mechanism::Scram, false, [1; 32], keys()).unwrap();
        let first = format!("n,,n={name},r=abcdefgh");
        let Ok(Step::Challenge(challenge)) = server.step(first.as_bytes()) else {
            panic!("no challenge")
        };
        let text = String::from_utf8(challenge).unwrap();
        let parts: Vec<String> = text.split(',').skip(1).map(str::to_owned).collect();
        parts
    };
    assert_eq!(
        challenge("carol"),
        challenge("carol"),
        "the same salt each time, as of a user"
    );
    assert_ne!(challenge("carol")[0], challenge("dave")[0]);
    assert!(challenge("carol")[0].starts_with("s="));
}

#[test]
fn malformed_messages_end_the_conversation() {
    for first in [
        "",
        "n",
        "n,,",
        "n,,n=alice",
        "p=tls-unique,,n=alice,r=x",
        "\u{ff}",
        "y,,n=alice,r=",
    ] {
        let mut server = Conversation::begin(Mechanism::Scram, false, [1; 32], keys()).unwrap();
        let ended = server.step(first.as_bytes());
        assert!(!matches!(ended, Ok(Step::Proven(_))), "{first:?}: {ended:?}");
        if let Ok(Step::Challenge(_)) = ended {
            let ended = server.step(b"c=biws,r=x,p=AAAA");
            assert!(
                !matches!(ended, Ok(Step::Proven(_) | Step::Challenge(_))),
                "{first:?}"
            );
        }
    }
    assert_eq!(unescaped("a=2Cb=3Dc").as_deref(), Some("a,b=c"));
    assert_eq!(unescaped("a=b"), None);
}

proptest! {
    /// A peer that nobody knows must not be able to end the server.
    #[test]
    fn any_messages_are_an_answer_or_an_error(
        messages in prop::collection::vec(prop::collection::vec(prop::sample::select(b"n,y,p,a=r=c=m\xff\x00,,bilcews=".to_vec()), 0..24), 1..4),
        begun in any::<bool>(),
    ) {
        let mut server = Conversation::begin(Mechanism::Scram, false, [1; 32], keys()).unwrap();
        if begun {
            prop_assert!(matches!(server.step(b"n,,n=alice,r=abc"), Ok(Step::Challenge(_))));
        }
        for message in messages {
            prop_assert!(!matches!(server.step(&message), Ok(Step::Proven(_))));
        }
    }
}
