use super::*;
use crate::config::Directories;
use crate::directory::{Directory, Hasher};
use crate::users::Users;
use crate::users::tests::{cheap_hash, load};
use nufw_proto::Addr;
use nufw_proto::Mark;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn users() -> Users {
    let text = format!(
        "[[user]]\nname = \"alice\"\nid = 1\npassword = '{}'\n[[user]]\nname = \"bob\"\nid = 2\n",
        cheap_hash("s\u{e9}cret")
    );
    load(&text).unwrap()
}

/// Takes a login apart and asks the users file.
fn authenticate(
    users: Users,
    mechanism: &str,
    response: &[u8],
    certificate: Option<&str>,
) -> Result<String, LoginError> {
    let login = Login::parse(mechanism, response, certificate)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let directory = Directory::new(
        Arc::new(users),
        Directories::file_only(),
        Mark(0x00ff_ffff),
        Hasher::start(1).unwrap(),
        None,
        Duration::from_mins(1),
    );
    let identity = runtime.block_on(directory.login(login, Arc::new(|| Ok(()))))?;
    Ok(identity.user.name.to_string())
}

fn plain(response: &str) -> Result<String, LoginError> {
    authenticate(users(), "PLAIN", response.as_bytes(), None)
}

fn external(authzid: &str, common_name: Option<&str>) -> Result<String, LoginError> {
    authenticate(users(), "EXTERNAL", authzid.as_bytes(), common_name)
}

#[test]
fn plain_logs_in_with_the_right_password_only() {
    assert_eq!(plain("\0alice\0s\u{e9}cret").unwrap(), "alice");
    assert_eq!(
        plain("alice\0alice\0s\u{e9}cret").unwrap(),
        "alice",
        "oneself may be named"
    );
    // SASLprep: a soft hyphen vanishes, a decomposed letter is composed.
    assert_eq!(plain("\0al\u{ad}ice\0se\u{301}cret").unwrap(), "alice");
    for (response, expected) in [
        ("\0alice\0secret", LoginError::WrongPassword("alice".into())),
        ("\0Alice\0s\u{e9}cret", LoginError::UnknownUser("Alice".into())),
        ("\0bob\0s\u{e9}cret", LoginError::NoPassword("bob".into())),
        (
            "bob\0alice\0s\u{e9}cret",
            LoginError::OtherIdentity { name: "alice".into() },
        ),
    ] {
        let error = plain(response).unwrap_err();
        assert_eq!(error, expected);
        assert_eq!(
            error.refusal(),
            Refusal::Credentials,
            "the client cannot tell them apart"
        );
    }
}

#[test]
fn malformed_plain_is_refused() {
    for response in [
        "",
        "\0",
        "alice",
        "\0alice",
        "\0alice\0",
        "\0\0x",
        "a\0b\0c\0d",
        "\0a\0\0b",
        "\0\0\0\0",
    ] {
        let error = plain(response).unwrap_err();
        assert!(
            matches!(
                error,
                LoginError::Malformed {
                    mechanism: "PLAIN",
                    ..
                }
            ),
            "{response:?}: {error}"
        );
    }
}

#[test]
fn external_logs_in_the_certificates_user() {
    assert_eq!(external("", Some("bob")).unwrap(), "bob");
    assert_eq!(external("bob", Some("bob")).unwrap(), "bob");
    assert_eq!(
        external("alice", Some("bob")).unwrap_err(),
        LoginError::OtherIdentity { name: "bob".into() }
    );
    assert_eq!(external("", None).unwrap_err(), LoginError::NoCertificate);
    assert_eq!(external("bob", None).unwrap_err(), LoginError::NoCertificate);
    assert_eq!(
        external("", Some("gw1")).unwrap_err(),
        LoginError::UnknownCertificate("gw1".into())
    );
    let bad = authenticate(users(), "EXTERNAL", b"\xff", Some("bob")).unwrap_err();
    assert!(
        matches!(
            bad,
            LoginError::Malformed {
                mechanism: "EXTERNAL",
                ..
            }
        ),
        "{bad}"
    );
}

#[test]
fn other_mechanisms_are_refused_whatever_they_say() {
    for mechanism in ["LOGIN", "plain", "ANONYMOUS", "SCRAM-SHA-512", ""] {
        let error = authenticate(users(), mechanism, b"\0alice\0s\xc3\xa9cret", Some("bob")).unwrap_err();
        assert_eq!(error, LoginError::Mechanism(mechanism.to_owned()));
        assert_eq!(error.refusal(), Refusal::Mechanism);
    }
    let forged = authenticate(users(), &"X\n".repeat(500), b"", None)
        .unwrap_err()
        .to_string();
    assert_eq!(forged, format!("mechanism \"{}\" is not offered", "X".repeat(20)));
}

#[test]
fn a_login_can_be_looked_at_before_it_is_verified() {
    let login = Login::parse("PLAIN", b"\0al\xc2\xadice\0wrong", None).unwrap();
    assert_eq!(
        login.name(),
        "alice",
        "the limiter must see the name that is compared"
    );
    assert_eq!(format!("{login:?}"), "Login(\"alice\")", "no password in a log");
}

#[test]
fn certificates_with_host_names_are_no_users() {
    let names = |dns: &[&str]| PeerNames {
        common_name: Some("bob".to_owned()),
        dns: dns.iter().map(|s| (*s).to_owned()).collect(),
        ..PeerNames::default()
    };
    let usual = [CertificateName::CommonName];
    assert_eq!(certificate_user(&names(&[]), &usual), Some("bob"));
    assert_eq!(certificate_user(&names(&["bob"]), &usual), None);
    // Where host names are said to be users', they are.
    let dns = [CertificateName::CommonName, CertificateName::Dns];
    assert_eq!(certificate_user(&names(&["laptop7"]), &dns), Some("laptop7"));
}

#[test]
fn the_first_wanted_name_of_which_a_certificate_has_one_is_the_users() {
    use CertificateName::{CommonName, Dns, Email, Upn};
    let names = PeerNames {
        common_name: Some("Alice Liddell".to_owned()),
        emails: vec!["alice@example.org".to_owned(), "al@example.org".to_owned()],
        principals: vec!["alice@EXAMPLE.ORG".to_owned()],
        ..PeerNames::default()
    };
    for (wanted, expected) in [
        (&[Upn, CommonName][..], Some("alice@EXAMPLE.ORG")),
        (&[Email, Upn], Some("alice@EXAMPLE.ORG")),
        (&[Email], None),
        (&[Dns, CommonName], Some("Alice Liddell")),
    ] {
        assert_eq!(certificate_user(&names, wanted), expected, "{wanted:?}");
    }
}

struct Clock(Instant);

impl Clock {
    fn at(&self, seconds: u64) -> Instant {
        self.0 + Duration::from_secs(seconds)
    }
}

fn clock() -> Clock {
    Clock(nufw_common::clock::mono())
}

fn source(text: &str) -> Addr {
    text.parse().unwrap()
}

#[test]
fn a_user_is_locked_ever_longer_after_five_failures() {
    let (clock, mut limiter) = (clock(), FailureLimiter::default());
    let mut now = clock.at(0);
    let from = |n: u32| source(&format!("10.0.0.{n}"));
    for n in 0..4 {
        limiter.failed(now, from(n), "alice");
        assert_eq!(limiter.check(now, from(9), "alice"), Ok(()));
    }
    for (n, expected) in (10..).zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]) {
        limiter.failed(now, from(n), "alice");
        let wait = Duration::from_secs(expected);
        assert_eq!(
            limiter.check(now, from(8), "alice"),
            Err(Locked { wait, user: true })
        );
        assert_eq!(
            limiter.check(now, from(8), "bob"),
            Ok(()),
            "others are not locked"
        );
        now += wait;
        assert_eq!(limiter.check(now, from(8), "alice"), Ok(()));
    }
    limiter.succeeded(from(8), "alice");
    limiter.failed(now, from(7), "alice");
    assert_eq!(
        limiter.check(now, from(7), "alice"),
        Ok(()),
        "success forgets the user's failures"
    );
}

#[test]
fn a_source_is_locked_after_twenty_failures_and_success_does_not_help_it() {
    let (clock, mut limiter) = (clock(), FailureLimiter::default());
    let attacker = source("192.0.2.1");
    for n in 0..20 {
        limiter.failed(clock.at(0), attacker, &format!("user{n}"));
        limiter.succeeded(attacker, "mallory");
    }
    let locked = limiter.check(clock.at(0), attacker, "fresh").unwrap_err();
    assert_eq!(
        locked,
        Locked {
            wait: Duration::from_secs(1),
            user: false
        }
    );
    assert_eq!(locked.to_string(), "too many failed logins; try again in 1 s");
    assert_eq!(limiter.check(clock.at(0), source("192.0.2.2"), "fresh"), Ok(()));
}

#[test]
fn ten_thousand_failures_from_one_address_lock_out_nobody_elsewhere() {
    let (clock, mut limiter) = (clock(), FailureLimiter::default());
    let attacker = source("192.0.2.1");
    let (mut looked_at, mut tried) = (0, 0);
    // One guess after the other, a hundred a second, over all names of a school.
    for n in 0..10_000_u64 {
        let now = clock.0 + Duration::from_millis(n * 10);
        let user = format!("user{}", n % 500);
        tried += 1;
        if limiter.check(now, attacker, &user).is_ok() {
            looked_at += 1;
            limiter.failed(now, attacker, &user);
        }
    }
    assert_eq!(tried, 10_000);
    // The free ones, then at 1, 2, 4 … 64 s.
    assert!(
        (20..=27).contains(&looked_at),
        "{looked_at} guesses were looked at"
    );
    let now = clock.0 + Duration::from_secs(100);
    assert!(limiter.check(now, attacker, "user7").is_err());
    for n in 0..500 {
        assert_eq!(
            limiter.check(now, source("192.0.2.2"), &format!("user{n}")),
            Ok(())
        );
    }
    assert!(limiter.len() < 100, "what was not looked at takes no room");
}

#[test]
fn one_address_that_guesses_one_users_password_does_not_keep_the_user_out() {
    let (clock, mut limiter) = (clock(), FailureLimiter::default());
    let [attacker, home] = ["192.0.2.1", "192.0.2.2"].map(source);
    let mut looked_at = 0;
    // For a day, as often as it may.
    for second in 0..86_400 {
        let now = clock.at(second);
        if limiter.check(now, attacker, "alice").is_ok() {
            looked_at += 1;
            limiter.failed(now, attacker, "alice");
        }
        assert_eq!(limiter.check(now, home, "alice"), Ok(()), "{second}");
    }
    assert!(looked_at < 310, "{looked_at} guesses were looked at");
    // Who gets it right there counts anew; the address itself has failed all the same.
    limiter.succeeded(attacker, "alice");
    let locked = limiter.check(clock.at(86_400), attacker, "alice");
    assert!(
        matches!(locked, Err(Locked { user: false, .. }) | Ok(())),
        "{locked:?}"
    );
}

#[test]
fn an_ipv6_network_counts_as_one_source() {
    let (clock, mut limiter) = (clock(), FailureLimiter::default());
    for n in 0..20 {
        limiter.failed(clock.at(0), source(&format!("2001:db8::{n:x}")), &format!("u{n}"));
    }
    assert!(limiter.check(clock.at(0), source("2001:db8::ffff"), "x").is_err());
    assert!(limiter.check(clock.at(0), source("2001:db8:0:1::1"), "x").is_ok());
}

#[test]
fn failures_are_forgotten_with_time() {
    let (clock, mut limiter) = (clock(), FailureLimiter::default());
    for _ in 0..4 {
        limiter.failed(clock.at(0), source("192.0.2.1"), "alice");
    }
    limiter.failed(clock.at(15 * 60), source("192.0.2.1"), "alice");
    assert_eq!(
        limiter.check(clock.at(15 * 60), source("192.0.2.1"), "alice"),
        Ok(())
    );
    limiter.failed(clock.at(40 * 60), source("192.0.2.9"), "bob");
    assert_eq!(limiter.len(), 3, "what is old takes no room");
}

#[test]
fn the_table_is_bounded_and_forgets_the_least_recent() {
    let (clock, mut limiter) = (clock(), FailureLimiter::with_capacity(10));
    for _ in 0..5 {
        limiter.failed(clock.at(0), source("10.0.0.1"), "alice");
    }
    for n in 0..1000 {
        limiter.failed(
            clock.at(1),
            source(&format!("10.1.{}.{}", n / 250, n % 250)),
            "alice",
        );
        assert!(limiter.len() <= 10);
    }
    assert!(
        limiter.check(clock.at(1), source("10.9.9.9"), "alice").is_err(),
        "still failing, still known"
    );
}

proptest! {
    #[test]
    fn any_response_is_an_answer_or_an_error(response in prop::collection::vec(any::<u8>(), 0..64)) {
        let result = authenticate(load("").unwrap(), "EXTERNAL", &response, None);
        prop_assert!(result.is_err());
        let login = Login::parse("PLAIN", &response, None);
        if let Ok(login) = login {
            prop_assert!(!login.name().is_empty());
        }
    }
}
