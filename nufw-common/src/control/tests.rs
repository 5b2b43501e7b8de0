use super::*;

#[test]
fn requests_are_spelled_as_documented() {
    let spelled = |request: &Request| serde_json::to_string(request).unwrap();
    assert_eq!(spelled(&Request::Status), r#"{"request":"status"}"#);
    assert_eq!(
        spelled(&Request::Lock { name: "clean".into() }),
        r#"{"request":"lock","name":"clean"}"#
    );
    let ends = Endpoints {
        protocol: 6,
        src: "10.0.0.7".parse().unwrap(),
        sport: 40312,
        dst: "2001:db8::1".parse().unwrap(),
        dport: 443,
    };
    let text =
        r#"{"request":"lookup","protocol":6,"src":"10.0.0.7","sport":40312,"dst":"2001:db8::1","dport":443}"#;
    assert_eq!(spelled(&Request::Lookup(ends)), text);
    assert_eq!(
        serde_json::from_str::<Request>(text).unwrap(),
        Request::Lookup(ends)
    );
}

#[test]
fn a_question_that_nobody_knows_is_an_error() {
    for text in [
        "{}",
        r#"{"request":"reboot"}"#,
        r#"{"request":"lock"}"#,
        "[]",
        "7",
    ] {
        assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
    }
}

#[test]
fn replies_are_ok_or_error() {
    let ok = Reply::Ok(serde_json::json!({"moved": 3}));
    assert_eq!(serde_json::to_string(&ok).unwrap(), r#"{"ok":{"moved":3}}"#);
    let error: Reply = serde_json::from_str(r#"{"error":"no such step"}"#).unwrap();
    assert_eq!(error, Reply::Error("no such step".into()));
}
