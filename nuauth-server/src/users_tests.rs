use super::*;

/// Cheap parameters: the tests are about who matches, not about cost.
pub(crate) fn cheap_hash(password: &str) -> String {
    use argon2::Argon2;
    use argon2::password_hash::PasswordHasher as _;
    use argon2::password_hash::phc::PasswordHash;
    let params = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash: PasswordHash = argon2.hash_password(password.as_bytes()).unwrap();
    hash.to_string()
}

pub(crate) fn load(text: &str) -> Result<Users, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    std::fs::write(&path, text).unwrap();
    Users::load(&path, Mark(0x00ff_ffff))
        .map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

fn error_of(text: &str) -> String {
    load(text).unwrap_err()
}

#[test]
fn users_are_found_by_name_and_by_certificate() {
    let text = format!(
        "[[user]]\nname = \"alice\"\nid = 7\ngroups = [\"staff\", \"admins\"]\npassword = '{}'\n\
         [[user]]\nname = \"bob\"\nid = 8\nmark = \"0x00ff0000\"\ncertificate = \"Bob B.\"\n",
        cheap_hash("secret")
    );
    let users = load(&text).unwrap();
    let alice = users.by_name("alice").unwrap();
    assert_eq!((alice.identity.user.id, alice.identity.mark), (7, Mark(7)));
    assert_eq!(alice.identity.groups[1].as_ref(), "admins");
    assert!(alice.has_password());
    assert_eq!(users.by_certificate("alice").unwrap().name().as_ref(), "alice");
    let bob = users.by_certificate("Bob B.").unwrap();
    assert_eq!(
        (bob.name().as_ref(), bob.identity.mark),
        ("bob", Mark(0x00ff_0000))
    );
    assert!(
        users.by_certificate("bob").is_none(),
        "only the stated common name counts"
    );
    assert!(users.by_name("Alice").is_none(), "names are exact");
    assert_eq!(
        users.groups().into_iter().collect::<Vec<_>>(),
        ["admins", "staff"]
    );
    assert_eq!(users.identities().len(), 2);
    assert!(load("").unwrap().is_empty());
}

#[test]
fn passwords_are_checked() {
    let text = format!(
        "[[user]]\nname = \"alice\"\nid = 7\npassword = '{}'\n[[user]]\nname = \"bob\"\nid = 8\n",
        cheap_hash("secret")
    );
    let users = load(&text).unwrap();
    let check = |name, password: &str| users.check_password(name, password.as_bytes());
    assert!(matches!(check("alice", "secret"), PasswordCheck::Right(user) if &**user.name() == "alice"));
    assert!(matches!(check("alice", "Secret"), PasswordCheck::Wrong));
    assert!(matches!(check("bob", "secret"), PasswordCheck::NoPassword));
    assert!(matches!(check("carol", "secret"), PasswordCheck::Unknown));
}

#[test]
fn an_unknown_user_costs_what_the_costliest_user_costs() {
    let params = |users: &Users| {
        let params = users.nobody.as_ref().unwrap().argon2_params().unwrap();
        (params.m_cost(), params.t_cost(), params.p_cost())
    };
    assert_eq!(
        params(&load("").unwrap()),
        (19_456, 2, 1),
        "the default is what hash-password makes"
    );
    let text = format!(
        "[[user]]\nname = \"a\"\nid = 1\npassword = '{}'\n",
        cheap_hash("x")
    );
    let users = load(&text).unwrap();
    assert_eq!(params(&users), (8, 1, 1));
    // The stand-in is a hash that can be computed and compared, not one that is refused early.
    let stand_in = users.nobody.as_ref().unwrap();
    assert!(!stand_in.verify(b"x"));
    let Hash::Argon2(stand_in) = stand_in else {
        panic!("not argon2id")
    };
    assert_eq!(stand_in.hash.as_ref().unwrap().as_bytes().len(), 32);
}

#[test]
fn each_mistake_has_its_sentence() {
    let two = |second: &str| format!("[[user]]\nname = \"alice\"\nid = 7\n\n[[user]]\n{second}\n");
    for (text, expected) in [
        (
            two("name = \"alice\"\nid = 8\ncertificate = \"x\""),
            "users.toml:6: key user[1].name: found \"alice\" again, expected each name once",
        ),
        (
            two("name = \"bob\"\nid = 7\nmark = 9"),
            "users.toml:7: key user[1].id: found 7, the id of user alice, expected an id of its own",
        ),
        (
            two("name = \"bob\"\nid = 8\nmark = 7"),
            "users.toml:8: key user[1].mark: found 7, the mark of user alice, expected a mark of its own",
        ),
        (
            two("name = \"bob\"\nid = 8\ncertificate = \"alice\""),
            "users.toml:8: key user[1].certificate: found \"alice\", the certificate of user alice, expected a common name of its own",
        ),
        (
            two("name = \"bob\"\nid = 16777216"),
            "users.toml:7: key user[1].id: found 16777216, which is also the mark, expected a mark within mark-mask 0x00ffffff; give the user a mark of its own",
        ),
        (
            two("name = \"bob\"\nid = 8\nmark = \"0x01000000\""),
            "users.toml:8: key user[1].mark: found 16777216, expected a mark within mark-mask 0x00ffffff; give the user a mark of its own",
        ),
        (
            two("name = \"bob\"\nid = 0"),
            "users.toml:7: key user[1].id: found 0, expected an id other than 0, which is root's on every system\nusers.toml:7: key user[1].id: found 0, which is also the mark, expected a mark other than 0, which stands for packets of nobody",
        ),
        (
            two("name = \"bob\"\nid = 0\nmark = 3"),
            "users.toml:7: key user[1].id: found 0, expected an id other than 0, which is root's on every system",
        ),
        (
            two("name = \"b\\u043eb\"\nid = 8"),
            "users.toml:6: key user[1].name: found string \"b\u{43e}b\": it mixes scripts, as a look-alike of another name would, expected a name that somebody can log in with",
        ),
        (
            "[[user]]\nname = \"cape\"\nid = 7\n\n[[user]]\nname = \"\\u0441\\u0430\\u0440\\u0435\"\nid = 8\n".to_owned(),
            "users.toml:6: key user[1].name: found \"\u{441}\u{430}\u{440}\u{435}\", which people take for \"cape\", expected a name that looks like no other",
        ),
        (
            two("name = \"bob\"\nid = 8\nscram = \"hunter22\""),
            "users.toml:8: key user[1].scram: found something that is no SCRAM-SHA-256 keys (not shown), expected keys as nuauth-server hash-password --scram prints them (SCRAM-SHA-256$…)",
        ),
        (
            two("name = \"\"\nid = 8"),
            "users.toml:6: key user[1].name: found string \"\", expected a name of 1 to 255 bytes without control characters",
        ),
        (
            two("name = \"bo\\u00adb\"\nid = 8"),
            "users.toml:6: key user[1].name: found string \"bo\u{ad}b\", expected a name that SASLprep (RFC 4013) leaves as it is; no login could match this one",
        ),
        (
            two("name = \"bob\"\nid = 8\ngroups = [\"a\", \"a\"]"),
            "users.toml:8: key user[1].groups[1]: found \"a\" again, expected each group once",
        ),
        (
            two("name = \"bob\"\nid = -1"),
            "users.toml:7: key user[1].id: found integer -1, expected an integer from 0 to 18446744073709551615",
        ),
        (
            two("name = \"bob\"\nid = 8\npasword = \"x\""),
            "users.toml:8: unknown key user[1].pasword; did you mean password?",
        ),
        (two("name = \"bob\""), "users.toml:5: key user[1].id is missing"),
    ] {
        assert_eq!(error_of(&text), expected);
    }
}

#[test]
fn every_mistake_is_reported_at_once() {
    let text = "[[user]]\nname = 1\n[[user]]\nname = \"b\"\nid = 0\npassword = \"x\"\n[[user]]\nname = \"b\"\nid = 3\n";
    let error = error_of(text);
    let lines: Vec<&str> = error
        .lines()
        .map(|line| line.split(": found").next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "users.toml:2: key user[0].name",
            "users.toml:5: key user[1].id",
            "users.toml:5: key user[1].id",
            "users.toml:6: key user[1].password",
            "users.toml:8: key user[2].name",
            "users.toml:7: key user[2].certificate",
        ]
    );
}

#[test]
fn a_password_in_the_clear_is_never_repeated() {
    let user = |password: &str| format!("[[user]]\nname = \"a\"\nid = 1\npassword = {password}\n");
    let expected = "expected a hash as nuauth-server hash-password prints it ($argon2id$…)";
    for clear in ["\"hunter22\"", "123456", "1234.5"] {
        let error = error_of(&user(clear));
        assert!(
            error.starts_with("users.toml:4: key user[0].password: found "),
            "{error}"
        );
        assert!(error.ends_with(expected), "{error}");
        for secret in ["hunter22", "123456", "1234.5"] {
            assert!(!error.contains(secret), "{error}");
        }
    }
    let weak = cheap_hash("x").replace("argon2id", "argon2i");
    assert!(error_of(&user(&format!("'{weak}'"))).contains("found a hash of argon2i, "));
    assert!(error_of(&user("'$argon2id$v=19$m=8,t=1,p=1'")).contains("found an incomplete argon2id hash, "));
}

#[test]
fn users_with_weak_hashes_log_in_and_are_named() {
    let user = |name: &str, id: u32, hash: &str| {
        format!("[[user]]\nname = \"{name}\"\nid = {id}\npassword = '{hash}'\n")
    };
    let text = user("dora", 3, "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=")
        + &user("alice", 1, &cheap_hash("secret"))
        + &user("carol", 2, "{SMD5}VAfQ6nCkaw9o3u+x706wnXNhbHRzYWx0");
    let users = load(&text).unwrap();
    for name in ["alice", "carol", "dora"] {
        assert!(
            matches!(users.check_password(name, b"secret"), PasswordCheck::Right(_)),
            "{name}"
        );
        assert!(
            matches!(users.check_password(name, b"Secret"), PasswordCheck::Wrong),
            "{name}"
        );
    }
    let weak: Vec<_> = users
        .weak()
        .into_iter()
        .map(|(name, kind)| (&**name, kind))
        .collect();
    assert_eq!(weak, [("carol", "{SMD5}"), ("dora", "{SHA}")]);
}

#[test]
fn ids_up_to_the_largest_are_users_with_a_mark_of_their_own() {
    let largest = i64::MAX;
    let users = load(&format!("[[user]]\nname = \"a\"\nid = {largest}\nmark = 5\n")).unwrap();
    assert_eq!(
        users.by_name("a").unwrap().identity.user.id,
        i64::MAX.unsigned_abs()
    );
}

#[test]
fn names_are_as_the_rules_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    std::fs::write(&path, "[[user]]\nname = \"Alice\"\nid = 1\n").unwrap();
    let rules = NameRules {
        case: name::Case::Fold,
        realm: None,
    };
    let error = Users::load_with(&path, Mark(0xff), &rules)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("found string \"Alice\", expected \"alice\", as it is known here"),
        "{error}"
    );
}

#[test]
fn the_sample_is_valid() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/users.toml");
    let users = Users::load(&sample, Mark(0x00ff_ffff)).unwrap();
    assert_eq!(users.len(), 2);
    assert!(
        users.iter().all(|user| !user.has_password()),
        "no default password may be shipped"
    );
}
