//! A real LDAP server: who can log in, as whom, with which groups, and what becomes of them when it dies.

use crate::slapd::Slapd;
use crate::{by_ldap, groups, is_wrong, ldap_settings, log_in, unsaid};
use nuauth_server::directory::LdapSettings;

/// Searches as somebody who may.
fn reading(slapd: &Slapd, url: &str) -> LdapSettings {
    LdapSettings {
        start_tls: url.starts_with("ldap://"),
        ca: Some(slapd.ca.clone()),
        bind_dn: Some("cn=reader,dc=example,dc=org".to_owned()),
        bind_password: "reads".to_owned(),
        ..ldap_settings(url)
    }
}

#[tokio::test]
async fn users_of_a_directory_log_in_over_tls_and_have_its_groups() {
    let slapd = Slapd::start(0);
    for url in [slapd.ldap(), slapd.ldaps()] {
        // Found by a search, and by what their names look like in this directory.
        for user_dn in [None, Some("uid={name},ou=people,dc=example,dc=org".to_owned())] {
            let directory = by_ldap(LdapSettings {
                user_dn: user_dn.clone(),
                group_base: Some("ou=groups,dc=example,dc=org".to_owned()),
                ..reading(&slapd, &url)
            })
            .await;
            let alice = log_in(&directory, "alice", "wonderland").await.unwrap();
            assert_eq!(
                (alice.user.id, &*alice.user.name, alice.mark.0),
                (1001, "alice", 1001)
            );
            // memberOf and a search say the same of one of them.
            assert_eq!(groups(&alice), ["admins", "staff"], "{url} {user_dn:?}");
            let bob = log_in(&directory, "bob", "builder").await.unwrap();
            assert_eq!(groups(&bob), ["admins"]);
            for (name, password) in [
                ("alice", "Wonderland"),
                ("alice", "builder"),
                ("carol", "wonderland"),
                ("Alice", "wonderland"),
                ("ALICE", "wonderland"),
            ] {
                assert!(
                    is_wrong(&log_in(&directory, name, password).await),
                    "{name} {password}"
                );
            }
            let why = unsaid(log_in(&directory, "root", "toor").await);
            assert!(
                why.ends_with("its id is 0, which is root's on every system"),
                "{why}"
            );
        }
    }
}

#[tokio::test]
async fn what_has_a_meaning_to_ldap_is_a_letter_in_a_name() {
    let slapd = Slapd::start(0);
    for user_dn in [None, Some("uid={name},ou=people,dc=example,dc=org".to_owned())] {
        let directory = by_ldap(LdapSettings {
            user_dn,
            ..reading(&slapd, &slapd.ldaps())
        })
        .await;
        for name in [
            "*",
            "al*",
            "alice)(uid=*",
            "alice*)(|(uid=*",
            "alice\\2a",
            "alice\\",
            "alice,ou=people",
            "alice+cn=Alice",
            "alice\u{130}",
            "#alice",
            "\"alice\"",
            "(",
        ] {
            let result = log_in(&directory, name, "wonderland").await;
            assert!(is_wrong(&result), "{name:?}: {result:?}");
        }
    }
}

#[tokio::test]
async fn a_group_of_fifty_thousand_is_a_group_as_any_other() {
    let slapd = Slapd::start(50_000);
    let directory = by_ldap(LdapSettings {
        member_of: None,
        group_base: Some("ou=groups,dc=example,dc=org".to_owned()),
        ..reading(&slapd, &slapd.ldaps())
    })
    .await;
    let alice = log_in(&directory, "alice", "wonderland").await.unwrap();
    assert_eq!(groups(&alice), ["admins", "everybody", "staff"]);
}

#[tokio::test]
async fn mistakes_of_the_configuration_are_told_as_such() {
    let slapd = Slapd::start(0);
    let of = |settings: LdapSettings| async move {
        let directory = by_ldap(settings).await;
        unsaid(log_in(&directory, "alice", "wonderland").await)
    };
    let usual = || reading(&slapd, &slapd.ldaps());
    for (settings, expected) in [
        (
            LdapSettings {
                bind_password: "wrong".to_owned(),
                ..usual()
            },
            "the bind as users.ldap.bind-dn was refused with code 49, the name or the password is wrong",
        ),
        (
            LdapSettings {
                user_base: "ou=nowhere,dc=example,dc=org".to_owned(),
                ..usual()
            },
            "a search under \"ou=nowhere,dc=example,dc=org\" was refused with code 32, there is no such entry",
        ),
        (
            LdapSettings {
                user_filter: "(|(uid={name})(uid=bob))".to_owned(),
                ..usual()
            },
            "several entries under",
        ),
        (
            LdapSettings {
                user_filter: "(uid={name}".to_owned(),
                ..usual()
            },
            "is no filter of LDAP",
        ),
        (
            LdapSettings {
                id_attribute: "cn".to_owned(),
                ..usual()
            },
            "its entry has no usable cn, which is to be its id",
        ),
        (
            // slapd wants TLS before a password.
            LdapSettings {
                start_tls: false,
                ca: None,
                ..reading(&slapd, &slapd.ldap())
            },
            "which wants TLS: see users.ldap.url and users.ldap.start-tls",
        ),
        (
            // Another authority than that of its certificate.
            LdapSettings {
                ca: Some(Slapd::start(0).ca.clone()),
                ..usual()
            },
            "not from our certificate authority",
        ),
    ] {
        let why = of(settings).await;
        assert!(why.contains(expected), "{why}\nis not\n{expected}");
    }
}

#[tokio::test]
async fn a_dead_server_is_no_wrong_password_and_connections_are_made_anew() {
    let mut slapd = Slapd::start(0);
    let directory = by_ldap(reading(&slapd, &slapd.ldaps())).await;
    assert!(log_in(&directory, "alice", "wonderland").await.is_ok());
    slapd.kill();
    for _ in 0..2 {
        let why = unsaid(log_in(&directory, "alice", "wonderland").await);
        assert!(
            why.starts_with("login of \"alice\" cannot be checked: ldap: "),
            "{why}"
        );
    }
}
