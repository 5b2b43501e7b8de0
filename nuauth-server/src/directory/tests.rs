use super::*;
use crate::users::tests::{cheap_hash, load};
use tokio::io::DuplexStream;
use wire::{Answered, Call, ToHelper};

/// A directory whose back-ends but the file are answered by the test.
struct Lab {
    directory: Arc<Directory>,
    other: DuplexStream,
}

/// Nobody has failed too often.
fn free() -> MayTry {
    Arc::new(|| Ok(()))
}

fn settings(orders: [&[Backend]; 3]) -> Directories {
    let [password, identity, groups] = orders.map(<[Backend]>::to_vec);
    Directories {
        password,
        identity,
        groups,
        ..Directories::file_only()
    }
}

fn lab_of(settings: Directories) -> Lab {
    let text = format!(
        "[[user]]\nname = \"alice\"\nid = 1\nmark = 9\ngroups = [\"file\"]\npassword = '{}'\n\
         [[user]]\nname = \"bob\"\nid = 2\ncertificate = \"Bob B.\"\n",
        cheap_hash("secret")
    );
    let (ours, other) = tokio::io::duplex(1 << 16);
    let (reader, writer) = tokio::io::split(ours);
    let (calls, _) = Calls::over(reader, writer);
    let directory = Directory::new(
        Arc::new(load(&text).unwrap()),
        settings,
        Mark(0x00ff_ffff),
        Hasher::start(1).unwrap(),
        Some(calls),
        Duration::from_secs(20),
    );
    Lab {
        directory: Arc::new(directory),
        other,
    }
}

const LDAP_THEN_FILE: &[Backend] = &[Backend::Ldap, Backend::File];
const FILE_THEN_LDAP: &[Backend] = &[Backend::File, Backend::Ldap];
const LDAP: &[Backend] = &[Backend::Ldap];
const FILE: &[Backend] = &[Backend::File];

impl Lab {
    async fn asked(&mut self) -> Call {
        match wire::read(&mut self.other).await.unwrap() {
            Some(ToHelper::Call(call)) => call,
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self, expected: Ask, reply: Reply) {
        let call = self.asked().await;
        assert_eq!(call.ask, expected);
        wire::write(&mut self.other, &Answered { id: call.id, reply })
            .await
            .unwrap();
    }

    fn log_in(
        &self,
        name: &str,
        password: &str,
    ) -> tokio::task::JoinHandle<Result<Arc<Identity>, LoginError>> {
        let response = format!("\0{name}\0{password}");
        let login = Login::parse("PLAIN", response.as_bytes(), None).unwrap();
        let directory = Arc::clone(&self.directory);
        tokio::spawn(async move { directory.login(login, free()).await })
    }

    fn certificate(&self, name: &str) -> tokio::task::JoinHandle<Result<Arc<Identity>, LoginError>> {
        let login = Login::parse("EXTERNAL", b"", Some(name)).unwrap();
        let directory = Arc::clone(&self.directory);
        tokio::spawn(async move { directory.login(login, free()).await })
    }
}

fn found(id: u64, name: &str) -> Reply {
    Reply::Found(Found {
        id,
        mark: None,
        names: vec![name.to_owned()],
    })
}

fn password(name: &str) -> Ask {
    Ask::Password(name.to_owned())
}

fn identity(name: &str) -> Ask {
    Ask::Identity(name.to_owned())
}

fn groups(name: &str) -> Ask {
    Ask::Groups(name.to_owned())
}

fn cannot() -> Reply {
    Reply::CannotSay("it is away".to_owned())
}

#[tokio::test]
async fn the_first_back_end_that_has_a_password_decides() {
    let mut lab = lab_of(settings([FILE_THEN_LDAP, FILE_THEN_LDAP, FILE]));
    let alice = lab.log_in("alice", "secret").await.unwrap().unwrap();
    assert_eq!((alice.user.id, alice.mark), (1, Mark(9)));
    let error = lab.log_in("alice", "other").await.unwrap().unwrap_err();
    assert_eq!(
        error,
        LoginError::WrongPassword("alice".to_owned()),
        "nobody else is asked"
    );
    // Whoever has none in the file may have one elsewhere.
    let bob = lab.log_in("bob", "x");
    lab.answer(password("bob"), Reply::Right).await;
    assert_eq!(bob.await.unwrap().unwrap().user.id, 2);
    let carol = lab.log_in("carol", "x");
    lab.answer(password("carol"), Reply::Unknown).await;
    assert_eq!(
        carol.await.unwrap().unwrap_err(),
        LoginError::UnknownUser("carol".to_owned())
    );
}

#[tokio::test]
async fn a_back_end_that_cannot_say_lets_nobody_in_by_the_next_one() {
    let mut lab = lab_of(settings([LDAP_THEN_FILE, FILE, FILE]));
    let alice = lab.log_in("alice", "secret");
    lab.answer(password("alice"), cannot()).await;
    let error = alice.await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "login of \"alice\" cannot be checked: ldap: it is away"
    );
    assert_eq!(
        error.refusal(),
        nufw_proto::client::Refusal::Unavailable,
        "no wrong credentials"
    );
    let alice = lab.log_in("alice", "secret");
    lab.answer(password("alice"), Reply::Unknown).await;
    assert!(alice.await.unwrap().is_ok());
}

#[tokio::test]
async fn groups_of_all_back_ends_count_and_all_must_answer() {
    let mut lab = lab_of(settings([FILE, FILE, FILE_THEN_LDAP]));
    let alice = lab.log_in("alice", "secret");
    lab.answer(
        groups("alice"),
        Reply::Groups(vec!["staff".to_owned(), "file".to_owned()]),
    )
    .await;
    let alice = alice.await.unwrap().unwrap();
    assert_eq!(
        alice.groups.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["file", "staff"]
    );

    for (reply, why) in [
        (cannot(), "ldap: it is away"),
        (
            Reply::Right,
            "ldap: it answers another question than it was asked",
        ),
        (
            Reply::Groups(vec!["a\nb".to_owned()]),
            "ldap: a group's name is empty, too long or has control characters",
        ),
        (
            Reply::Groups((0..=MAX_GROUPS).map(|n| n.to_string()).collect()),
            "ldap: it is in more than 4096 groups",
        ),
    ] {
        let mut lab = lab_of(settings([FILE, FILE, FILE_THEN_LDAP]));
        let alice = lab.log_in("alice", "secret");
        lab.answer(groups("alice"), reply).await;
        let error = alice.await.unwrap().unwrap_err().to_string();
        assert_eq!(error, format!("login of \"alice\" cannot be checked: {why}"));
    }
    let most = Reply::Groups((1..MAX_GROUPS).map(|n| n.to_string()).collect());
    let mut lab = lab_of(settings([FILE, FILE, FILE_THEN_LDAP]));
    let alice = lab.log_in("alice", "secret");
    lab.answer(groups("alice"), most).await;
    assert_eq!(alice.await.unwrap().unwrap().groups.len(), MAX_GROUPS);
}

#[tokio::test]
async fn what_a_directory_says_of_an_id_is_not_believed_blindly() {
    for (name, reply, why) in [
        (
            "dave",
            found(0, "dave"),
            "its id is 0, which is root's on every system",
        ),
        (
            "dave",
            found(1 << 63, "dave"),
            "its id 9223372036854775808 is not below 2^63",
        ),
        (
            "dave",
            found(1 << 31, "dave"),
            "its mark 2147483648 (id 2147483648) is 0 or not within mark-mask 0x00ffffff: see users.mark-base and users.ldap.mark",
        ),
        (
            "dave",
            found(1, "dave"),
            "its id 1 or mark 1 is that of user \"alice\" of the users file",
        ),
        (
            "dave",
            found(9, "dave"),
            "its id 9 or mark 9 is that of user \"alice\" of the users file",
        ),
        ("dave", cannot(), "ldap: it is away"),
    ] {
        let mut lab = lab_of(settings([FILE, FILE_THEN_LDAP, FILE]));
        let login = lab.certificate(name);
        lab.answer(identity(name), reply).await;
        let error = login.await.unwrap().unwrap_err().to_string();
        assert_eq!(error, format!("login of \"dave\" cannot be checked: {why}"));
    }
    // A directory that knows no case, or ignores blanks, finds somebody else.
    let mut lab = lab_of(settings([FILE, LDAP, FILE]));
    let login = lab.certificate("DAVE");
    lab.answer(identity("DAVE"), found(7, "dave")).await;
    assert_eq!(
        login.await.unwrap().unwrap_err(),
        LoginError::UnknownCertificate("DAVE".to_owned())
    );
}

#[tokio::test]
async fn large_ids_are_users_where_marks_are_made_to_fit() {
    let largest = i64::MAX.unsigned_abs();
    let mut lab = lab_of(Directories {
        mark_base: largest - 7,
        ..settings([FILE, LDAP, FILE])
    });
    let login = lab.certificate("dave");
    lab.answer(identity("dave"), found(largest, "dave")).await;
    let dave = login.await.unwrap().unwrap();
    assert_eq!((dave.user.id, dave.mark), (largest, Mark(7)));
    let login = lab.certificate("erin");
    let with_mark = Found {
        id: largest - 1,
        mark: Some(42),
        names: vec!["erin".to_owned()],
    };
    lab.answer(identity("erin"), Reply::Found(with_mark)).await;
    assert_eq!(login.await.unwrap().unwrap().mark, Mark(42));
}

#[tokio::test]
async fn what_was_said_of_late_is_not_asked_again_and_two_names_never_share_an_id() {
    let mut lab = lab_of(settings([FILE, LDAP, FILE]));
    let first = lab.certificate("dave");
    lab.answer(identity("dave"), found(7, "dave")).await;
    let first = first.await.unwrap().unwrap();
    // The directory is away: whoever was known of late and proves it by a certificate can log in.
    assert_eq!(lab.certificate("dave").await.unwrap().unwrap(), first);
    let mallory = lab.certificate("mallory");
    lab.answer(identity("mallory"), found(7, "mallory")).await;
    let error = mallory.await.unwrap().unwrap_err().to_string();
    assert!(
        error.ends_with("it has the id 7 of user \"dave\": give each user an id of its own"),
        "{error}"
    );
    // A reload asks.
    let directory = Arc::clone(&lab.directory);
    let asked = tokio::spawn(async move { directory.identify("dave", false).await });
    lab.answer(identity("dave"), Reply::Unknown).await;
    assert_eq!(asked.await.unwrap(), Answer::Unknown);
}

#[tokio::test]
async fn a_name_is_known_by_one_spelling_and_certificates_by_what_the_file_says() {
    let rules = crate::users::name::NameRules {
        case: crate::users::name::Case::Fold,
        realm: Some("example.org".to_owned()),
    };
    let lab = lab_of(Directories {
        names: rules,
        ..settings([FILE, FILE, FILE])
    });
    let alice = lab.log_in("ALICE@example.org", "secret").await.unwrap().unwrap();
    assert_eq!(&*alice.user.name, "alice");
    let error = lab
        .log_in("alice@example.com", "secret")
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.refusal(), nufw_proto::client::Refusal::Credentials);
    let error = lab.log_in("\u{430}lice", "secret").await.unwrap().unwrap_err();
    assert!(error.to_string().contains("mixes scripts"), "{error}");
    assert_eq!(
        &*lab.certificate("Bob B.").await.unwrap().unwrap().user.name,
        "bob"
    );
    assert_eq!(
        &*lab
            .certificate("Alice@EXAMPLE.org")
            .await
            .unwrap()
            .unwrap()
            .user
            .name,
        "alice"
    );
    let error = lab.certificate("bob").await.unwrap().unwrap_err();
    assert_eq!(
        error,
        LoginError::UnknownCertificate("bob".to_owned()),
        "only the stated one counts"
    );
}

#[tokio::test(start_paused = true)]
async fn a_back_end_that_never_answers_costs_its_own_login_and_no_other() {
    let mut lab = lab_of(settings([LDAP, FILE, FILE]));
    let bob = lab.log_in("bob", "x");
    let call = lab.asked().await;
    assert_eq!(call.secret.unwrap().expose(), b"x");
    let alice = lab.certificate("alice").await.unwrap();
    assert!(alice.is_ok(), "others go on meanwhile");
    let error = bob.await.unwrap().unwrap_err().to_string();
    assert_eq!(
        error,
        "login of \"bob\" cannot be checked: the back-ends took too long"
    );
}

#[tokio::test(start_paused = true)]
async fn of_a_storm_those_who_would_wait_in_vain_are_sent_away_to_come_again() {
    let mut lab = lab_of(settings([LDAP, FILE, FILE]));
    let logins: Vec<_> = (0..500).map(|_| lab.log_in("bob", "x")).collect();
    // One is asked about, and nobody answers.
    let _asked = lab.asked().await;
    let sent_away = logins.iter().filter(|login| login.is_finished()).count();
    assert!((250..=300).contains(&sent_away), "{sent_away} at once");
    let (mut busy, mut unanswered) = (0, 0);
    for login in logins {
        let error = login.await.unwrap().unwrap_err();
        assert_eq!(error.refusal(), nufw_proto::client::Refusal::Unavailable);
        match error {
            LoginError::Busy(_) => busy += 1,
            _ => unanswered += 1,
        }
    }
    assert_eq!(
        (busy, unanswered),
        (499, 1),
        "the others in time, while they can still be told"
    );
}

#[tokio::test]
async fn whoever_fails_too_often_while_waiting_for_a_turn_is_not_looked_at() {
    let mut lab = lab_of(settings([LDAP, FILE, FILE]));
    let locked = Locked {
        wait: Duration::from_secs(9),
        user: true,
    };
    let failures = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let guess = |password: &str| {
        let failures = Arc::clone(&failures);
        let may_try: MayTry = Arc::new(move || {
            let before = failures.load(std::sync::atomic::Ordering::SeqCst);
            if before < 2 { Ok(()) } else { Err(locked) }
        });
        let response = format!("\0bob\0{password}");
        let login = Login::parse("PLAIN", response.as_bytes(), None).unwrap();
        let directory = Arc::clone(&lab.directory);
        tokio::spawn(async move { directory.login(login, may_try).await })
    };
    // All are there before the first is answered.
    let guesses: Vec<_> = (0..20).map(|n| guess(&n.to_string())).collect();
    for _ in 0..2 {
        lab.answer(password("bob"), Reply::Wrong).await;
        failures.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
    let mut looked_at = 0;
    for guess in guesses {
        match guess.await.unwrap().unwrap_err() {
            LoginError::WrongPassword(_) => looked_at += 1,
            error => {
                assert_eq!(error.refusal(), nufw_proto::client::Refusal::TooManyFailures);
                assert!(matches!(error, LoginError::Locked { .. }), "{error}");
            }
        }
    }
    assert_eq!(looked_at, 2);
}

#[tokio::test]
async fn what_tickets_are_bound_to_is_whatever_the_password_is_compared_with() {
    let mut lab = lab_of(settings([FILE_THEN_LDAP, FILE_THEN_LDAP, FILE]));
    let of_alice = lab.directory.credential("alice").await;
    assert!(
        matches!(of_alice, Answer::Known(_)),
        "of the file, and nobody is asked"
    );
    let ask = |lab: &Lab, name: &'static str| {
        let directory = Arc::clone(&lab.directory);
        tokio::spawn(async move { directory.credential(name).await })
    };
    let credential = || Ask::Credential("dora".to_owned());
    let said = |text: &str| Reply::Credential(Some(text.to_owned()));
    let mut known = Vec::new();
    for version in ["entryCSN=1", "entryCSN=2", "entryCSN=1"] {
        let asked = ask(&lab, "dora");
        lab.answer(credential(), said(version)).await;
        known.push(asked.await.unwrap());
    }
    assert_eq!(known[0], known[2]);
    assert_ne!(
        known[0], known[1],
        "another password is another one, and nothing is remembered"
    );
    for (reply, expected) in [
        (Reply::Credential(None), Answer::Unknown),
        (Reply::Unknown, Answer::Unknown),
        (cannot(), Answer::CannotSay("ldap: it is away".to_owned())),
    ] {
        let asked = ask(&lab, "dora");
        lab.answer(credential(), reply).await;
        assert_eq!(asked.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn what_was_remembered_can_be_forgotten_at_once() {
    let mut lab = lab_of(settings([FILE, LDAP, FILE]));
    let first = lab.certificate("dave");
    lab.answer(identity("dave"), found(7, "dave")).await;
    assert!(first.await.unwrap().is_ok());
    assert_eq!(lab.directory.forget(), 1);
    let again = lab.certificate("dave");
    lab.answer(identity("dave"), Reply::Unknown).await;
    assert!(again.await.unwrap().is_err());
}
