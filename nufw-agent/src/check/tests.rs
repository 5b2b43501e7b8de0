//! Each need, met and not met, and what is told of it.

use super::*;
use std::path::Path;

fn view() -> AgentConfigView {
    AgentConfigView {
        queue: 7,
        rules: None,
        queue_buffer: 16 << 20,
        event_buffer: 64 << 20,
        relays_events: true,
        flags_queue: None,
        sandbox: Mode::Enforce,
        sets_marks: true,
        mask: 0x00ff_ffff,
        reject_bit: 0x0100_0000,
        kill_bit: 0x0200_0000,
        blind_bit: 0,
        on_loss: Choices::default(),
        files: vec![TlsFile {
            key: "tls.key",
            path: PathBuf::from("/etc/nufw/gw1.key"),
            content: TlsContent::Key,
        }],
    }
}

const RULES: &str = "\
*mangle
:FORWARD ACCEPT [0:0]
-A FORWARD -j NFQUEUE --queue-num 7
-A B -j CONNMARK --save-mark
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m connmark --mark 0x2000000/0x2000000 -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -m mark --mark 0x1000000/0x1000000 -j REJECT --reject-with icmp-admin-prohibited
COMMIT
*raw
-A C -j CT --ctevents new,reply,destroy
COMMIT
";

fn healthy() -> HostFacts {
    HostFacts {
        net_admin: true,
        queue_holder: None,
        acct: Some(1),
        timestamp: Some(1),
        events: Some(1),
        tcp_loose: Some(0),
        force_buffer: true,
        rmem_max: Some(212_992),
        rules_v4: Some(scan_iptables(RULES)),
        rules_v6: Some(scan_iptables(RULES)),
        listings: Listings::default(),
        helpers: Vec::new(),
        listeners: Vec::new(),
        files: vec![None],
    }
}

fn holder() -> Holder {
    Holder {
        port: 55,
        pid: Some(55),
        program: Some("nufw".to_owned()),
    }
}

/// The only finding that is not fine.
fn only(facts: &HostFacts) -> Finding {
    let bad: Vec<_> = judge(&view(), facts)
        .into_iter()
        .filter(|finding| finding.level != Level::Ok)
        .collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    bad.into_iter().next().unwrap()
}

#[test]
fn a_healthy_host_has_nothing_to_mend() {
    let findings = judge(&view(), &healthy());
    assert!(
        findings.iter().all(|finding| finding.level == Level::Ok),
        "{findings:#?}"
    );
    assert_eq!(exit_code(&findings), None);
}

#[test]
fn a_missing_capability_ends_with_77() {
    let finding = only(&HostFacts {
        net_admin: false,
        ..healthy()
    });
    assert_eq!(finding.exit, Some(Exit::NoPerm));
    assert!(
        finding
            .mend
            .unwrap()
            .contains("AmbientCapabilities=CAP_NET_ADMIN")
    );
}

#[test]
fn a_taken_queue_names_its_holder_and_ends_with_69() {
    let finding = only(&HostFacts {
        queue_holder: Some(holder()),
        ..healthy()
    });
    assert_eq!(finding.found, "taken by nufw (pid 55)");
    assert_eq!(finding.exit, Some(Exit::Unavailable));
}

#[test]
fn a_running_agent_is_no_intruder() {
    let agent = Holder {
        program: Some("nufw-agent".to_owned()),
        ..holder()
    };
    let facts = HostFacts {
        queue_holder: Some(agent.clone()),
        listeners: vec![agent],
        ..healthy()
    };
    assert!(
        judge(&view(), &facts)
            .iter()
            .all(|finding| finding.level == Level::Ok)
    );
}

#[test]
fn each_setting_is_mended_by_its_own_command() {
    for (facts, name) in [
        (
            HostFacts {
                acct: Some(0),
                ..healthy()
            },
            "acct",
        ),
        (
            HostFacts {
                timestamp: Some(0),
                ..healthy()
            },
            "timestamp",
        ),
        (
            HostFacts {
                events: Some(2),
                ..healthy()
            },
            "events",
        ),
    ] {
        let finding = only(&facts);
        let mend = finding.mend.unwrap();
        assert!(
            mend.starts_with(&format!("sysctl -w net.netfilter.nf_conntrack_{name}=1")),
            "{mend}"
        );
        assert_eq!(
            mend.contains("rules"),
            name == "events",
            "made again, or they have no mask: {mend}"
        );
        assert_eq!(finding.exit, Some(Exit::Config));
    }
    let finding = only(&HostFacts {
        acct: None,
        ..healthy()
    });
    assert!(finding.mend.unwrap().starts_with("modprobe nf_conntrack"));
}

#[test]
fn small_buffers_are_a_warning() {
    let finding = only(&HostFacts {
        force_buffer: false,
        ..healthy()
    });
    assert_eq!((finding.level, finding.exit), (Level::Warn, None));
    assert_eq!(
        finding.mend.as_deref(),
        Some("sysctl -w net.core.rmem_max=67108864    # on the host")
    );
    let enough = HostFacts {
        force_buffer: false,
        rmem_max: Some(64 << 20),
        ..healthy()
    };
    assert_eq!(exit_code(&judge(&view(), &enough)), None);
}

#[test]
fn without_a_queue_rule_the_agent_is_useless() {
    let none = Some(RuleFacts::default());
    let finding = only(&HostFacts {
        rules_v4: none.clone(),
        rules_v6: none.clone(),
        ..healthy()
    });
    assert_eq!(
        (finding.level, finding.exit),
        (Level::Missing, Some(Exit::Config))
    );
    let half = only(&HostFacts {
        rules_v6: none,
        ..healthy()
    });
    assert_eq!(half.level, Level::Warn);
    assert_eq!(half.found, "for IPv4 only, nothing asks about IPv6");
    let unseen = only(&HostFacts {
        rules_v4: None,
        rules_v6: None,
        ..healthy()
    });
    assert_eq!(unseen.level, Level::Warn);
}

#[test]
fn a_bypassing_rule_is_a_warning() {
    let bypass = scan_iptables(&RULES.replace("--queue-num 7", "--queue-num 7 --queue-bypass"));
    let finding = only(&HostFacts {
        rules_v4: Some(bypass),
        ..healthy()
    });
    assert!(finding.found.contains("everything passes unasked"));
}

#[test]
fn marks_and_mask_are_looked_for() {
    let without = |word: &str| {
        let rules: String = RULES
            .lines()
            .filter(|line| !line.contains(word))
            .flat_map(|line| [line, "\n"])
            .collect();
        HostFacts {
            rules_v4: Some(scan_iptables(&rules)),
            ..healthy()
        }
    };
    assert_eq!(only(&without("CONNMARK")).level, Level::Missing);
    assert_eq!(only(&without("-j CT")).level, Level::Warn);
}

#[test]
fn missing_reject_rules_are_a_line_of_their_own() {
    let none = scan_iptables(&RULES.replace("-j REJECT --reject-with icmp-admin-prohibited", "-j LOG"));
    let half = only(&HostFacts {
        rules_v6: Some(none.clone()),
        ..healthy()
    });
    assert_eq!((half.level, half.exit), (Level::Warn, None));
    assert_eq!(half.need, "rules that refuse what the server rejects");
    assert!(
        half.found.starts_with("none for IPv6 forward, "),
        "{}",
        half.found
    );
    assert!(half.found.contains("drops"));
    assert_eq!(
        half.mend.as_deref(),
        Some("nufw-agent rules --hook forward --apply    # then SIGHUP to the agent")
    );
    // Without a bit nothing needs to be there.
    let view = AgentConfigView {
        reject_bit: 0,
        ..view()
    };
    let facts = HostFacts {
        rules_v4: Some(none.clone()),
        rules_v6: Some(none),
        ..healthy()
    };
    assert!(
        judge(&view, &facts)
            .iter()
            .all(|finding| finding.level == Level::Ok)
    );
}

#[test]
fn missing_rules_for_ended_connections_are_a_line_of_their_own() {
    let none = scan_iptables(&RULES.replace("connmark", "mark"));
    let half = only(&HostFacts {
        rules_v4: Some(none.clone()),
        ..healthy()
    });
    assert_eq!((half.level, half.exit), (Level::Warn, None));
    assert_eq!(half.need, "rules that refuse connections that the server ends");
    assert!(
        half.found.starts_with("none for IPv4 forward, "),
        "{}",
        half.found
    );
    let facts = HostFacts {
        rules_v4: Some(none),
        ..healthy()
    };
    // Without a bit, or without events, nothing needs to be there.
    for view in [
        AgentConfigView {
            kill_bit: 0,
            ..view()
        },
        AgentConfigView {
            relays_events: false,
            ..view()
        },
    ] {
        let bad = judge(&view, &facts)
            .into_iter()
            .find(|finding| finding.level != Level::Ok);
        assert_eq!(bad, None);
    }
}

#[test]
fn picking_up_unknown_connections_is_told_with_its_remedy() {
    let loose = only(&HostFacts {
        tcp_loose: Some(1),
        ..healthy()
    });
    assert_eq!((loose.level, loose.exit), (Level::Warn, None));
    assert!(
        loose
            .mend
            .unwrap()
            .starts_with("sysctl -w net.netfilter.nf_conntrack_tcp_loose=0")
    );
}

#[test]
fn another_listener_would_starve() {
    let finding = only(&HostFacts {
        listeners: vec![Holder {
            program: Some("ulogd".to_owned()),
            ..holder()
        }],
        ..healthy()
    });
    assert_eq!(
        finding.found,
        "ulogd (pid 55): the event mask hides most events from it"
    );
}

#[test]
fn an_unreadable_file_is_named() {
    let finding = only(&HostFacts {
        files: vec![Some("Permission denied (os error 13)".to_owned())],
        ..healthy()
    });
    assert_eq!(finding.need, "tls.key");
    assert_eq!(
        finding.found,
        "/etc/nufw/gw1.key: Permission denied (os error 13)"
    );
}

#[test]
fn the_missing_permission_comes_first() {
    let findings = judge(
        &view(),
        &HostFacts {
            net_admin: false,
            queue_holder: Some(holder()),
            acct: Some(0),
            ..healthy()
        },
    );
    assert_eq!(exit_code(&findings), Some(Exit::NoPerm));
}

#[test]
fn both_forms_tell_the_same() {
    let findings = judge(
        &view(),
        &HostFacts {
            acct: Some(0),
            ..healthy()
        },
    );
    let mut table = Vec::new();
    write(&findings, false, &mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("MISSING  sysctl nf_conntrack_acct = 1"), "{table}");
    assert!(table.contains("-> sysctl -w net.netfilter.nf_conntrack_acct=1"));
    let mut json = Vec::new();
    write(&findings, true, &mut json).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["ok"], false);
    let missing: Vec<_> = json["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["level"] == "missing")
        .collect();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0]["need"], "sysctl nf_conntrack_acct = 1");
}

#[test]
fn files_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let signed = rcgen::generate_simple_self_signed(["gw1".to_owned()]).unwrap();
    let (cert, key, open, text) = (
        dir.path().join("gw1.crt"),
        dir.path().join("gw1.key"),
        dir.path().join("open.key"),
        dir.path().join("text"),
    );
    std::fs::write(&cert, signed.cert.pem()).unwrap();
    std::fs::write(&text, "not PEM").unwrap();
    for (path, mode) in [(&key, 0o600), (&open, 0o644)] {
        std::fs::write(path, signed.signing_key.serialize_pem()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    }
    let problem = |path: &Path, content| {
        let mut view = view();
        view.files = vec![TlsFile {
            key: "tls.x",
            path: path.to_owned(),
            content,
        }];
        collect(&view).files.remove(0).unwrap_or_default()
    };
    assert_eq!(problem(&cert, TlsContent::Certificates), "");
    assert_eq!(problem(&key, TlsContent::Key), "");
    assert_eq!(
        problem(&open, TlsContent::Key),
        "anybody can read it: chmod o-rwx"
    );
    assert_eq!(problem(&text, TlsContent::Key), "holds no PEM private key");
    assert_eq!(
        problem(&text, TlsContent::Certificates),
        "holds no PEM certificate"
    );
    assert_eq!(
        problem(&cert, TlsContent::RevocationList),
        "holds no PEM revocation list"
    );
    assert!(problem(&dir.path().join("none"), TlsContent::Key).contains("No such file"));
}

#[test]
fn a_sandbox_that_is_off_is_said() {
    let view = AgentConfigView {
        sandbox: Mode::Off,
        ..view()
    };
    let findings = judge(&view, &healthy());
    let finding = findings
        .iter()
        .find(|finding| finding.level != Level::Ok)
        .unwrap();
    assert_eq!((finding.need.as_str(), finding.level), ("sandbox", Level::Warn));
    assert!(finding.mend.as_ref().unwrap().contains("privileges.sandbox"));
}

#[test]
fn a_mask_that_hides_what_helpers_bring_is_said() {
    let masks = |mask: &str| Some(scan_iptables(&RULES.replace("new,reply,destroy", mask)));
    let facts = |mask: &str, helpers: &[&str]| HostFacts {
        rules_v4: masks(mask),
        helpers: helpers.iter().map(ToString::to_string).collect(),
        ..healthy()
    };
    let finding = only(&facts("new,reply,destroy", &["ftp", "sip"]));
    assert!(finding.found.contains("ftp, sip"), "{finding:?}");
    for fine in [
        facts("new,related,reply,destroy", &["ftp"]),
        facts("new,reply,destroy", &[]),
    ] {
        // The other family's mask has no related either, and is only complained of where a helper is.
        let fine = HostFacts {
            rules_v6: fine.rules_v4.clone(),
            ..fine
        };
        assert!(judge(&view(), &fine).iter().all(|f| f.level == Level::Ok));
    }
}

#[test]
fn tracking_by_flags_needs_its_own_rules_and_none_of_conntracks_settings() {
    let view = AgentConfigView {
        relays_events: false,
        flags_queue: Some(8),
        ..view()
    };
    let facts = |rules: &str| HostFacts {
        acct: Some(0),
        events: None,
        rules_v4: Some(scan_iptables(rules)),
        rules_v6: Some(scan_iptables(rules)),
        ..healthy()
    };
    let bad = |rules: &str| -> Vec<Finding> {
        let findings = judge(&view, &facts(rules)).into_iter();
        findings.filter(|finding| finding.level != Level::Ok).collect()
    };
    let missing = bad(RULES);
    assert_eq!(missing.len(), 1, "{missing:#?}");
    assert_eq!(missing[0].level, Level::Missing);
    let flags = "*mangle\n-A FORWARD -p tcp -m tcp --tcp-flags FIN FIN -j NFQUEUE --queue-num 8";
    let held = bad(&RULES.replace("*mangle", flags));
    assert!(held[0].found.contains("--queue-bypass"), "{held:#?}");
    assert_eq!(
        bad(&RULES.replace("*mangle", &format!("{flags} --queue-bypass"))),
        []
    );
}
