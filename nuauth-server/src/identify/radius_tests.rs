use super::*;
use proptest::prelude::*;

pub(in crate::identify) const SECRET: &[u8] = b"xyzzy5461";
const AP: &str = "192.168.1.16";
const ALICE: &str = "10.0.0.7";

fn attribute(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, u8::try_from(value.len() + 2).unwrap()];
    bytes.extend_from_slice(value);
    bytes
}

fn address(text: &str) -> Vec<u8> {
    match text.parse().unwrap() {
        IpAddr::V4(v4) => attribute(FRAMED_IP_ADDRESS, &v4.octets()),
        IpAddr::V6(v6) => attribute(FRAMED_IPV6_ADDRESS, &v6.octets()),
    }
}

/// A signed request.
fn request(attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = attributes.concat();
    let mut bytes = vec![REQUEST, 9];
    bytes.extend(u16::try_from(HEADER + body.len()).unwrap().to_be_bytes());
    bytes.extend([0; 16]);
    bytes.extend(body);
    sign(&mut bytes);
    bytes
}

fn sign(bytes: &mut [u8]) {
    bytes[4..HEADER].fill(0);
    let signature = Md5::new().chain_update(&*bytes).chain_update(SECRET).finalize();
    bytes[4..HEADER].copy_from_slice(&signature);
}

fn message(status: u32, session: &str, user: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let mut attributes = vec![
        attribute(ACCT_STATUS_TYPE, &status.to_be_bytes()),
        attribute(ACCT_SESSION_ID, session.as_bytes()),
        attribute(USER_NAME, user.as_bytes()),
    ];
    attributes.extend_from_slice(more);
    request(&attributes)
}

/// The begin of a session, signed.
pub(in crate::identify) fn start(user: &str, at: &str) -> Vec<u8> {
    message(1, "s1", user, &[address(at)])
}

/// Its end.
pub(in crate::identify) fn stop(user: &str, at: &str) -> Vec<u8> {
    message(2, "s1", user, &[address(at)])
}

struct Lab {
    accounting: Accounting,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        let settings = Radius {
            listen: Vec::new(),
            clients: vec!["192.168.1.0/24".parse().unwrap()],
            secret: String::from_utf8(SECRET.to_vec()).unwrap().into(),
            secret_file: "radius.secret".into(),
            timeout: Duration::from_mins(10),
        };
        Self {
            accounting: Accounting::new(settings),
            now: nufw_common::clock::mono(),
        }
    }

    fn hear(&mut self, from: &str, bytes: &[u8]) -> Result<Vec<(String, Option<String>)>, Fault> {
        self.now += Duration::from_millis(1);
        let heard = self.accounting.hear(from.parse().unwrap(), bytes, self.now)?;
        Ok(told(heard.changes))
    }

    fn say(&mut self, status: u32, session: &str, user: &str, at: &str) -> Vec<(String, Option<String>)> {
        self.hear(AP, &message(status, session, user, &[address(at)]))
            .unwrap()
    }

    fn pass(&mut self, time: Duration) -> Vec<(String, Option<String>)> {
        self.now += time;
        told(self.accounting.expire(self.now))
    }
}

fn told(changes: Changes) -> Vec<(String, Option<String>)> {
    let changes = changes.addresses.into_iter();
    changes
        .map(|(address, user)| (address.to_string(), user.map(|user| user.to_string())))
        .collect()
}

fn is(address: &str, user: &str) -> (String, Option<String>) {
    (address.to_owned(), Some(user.to_owned()))
}

fn nobody(address: &str) -> (String, Option<String>) {
    (address.to_owned(), None)
}

/// RFC 2865 §7.1 has the only vectors of the series that show all octets; the hash over code, identifier, length, request
/// authenticator, attributes and secret is the same function as here.
#[test]
fn a_response_is_signed_as_the_rfc_shows() {
    let hex = |text: &str| -> Vec<u8> {
        let text: String = text.split_whitespace().collect();
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    let authenticator = hex("0f 40 3f 94 73 97 80 57 bd 83 d5 cb 98 f4 22 7a");
    let response = hex("02 00 00 26 86 fe 22 0e 76 24 ba 2a 10 05 f6 bf 9b 55 e0 b2
         06 06 00 00 00 01 0f 06 00 00 00 00 0e 06 c0 a8 01 03");
    let signature: [u8; 16] = Md5::new()
        .chain_update(&response[..4])
        .chain_update(&authenticator)
        .chain_update(&response[HEADER..])
        .chain_update(SECRET)
        .finalize()
        .into();
    assert_eq!(signature, response[4..HEADER]);
}

#[test]
fn an_answer_is_signed_and_names_its_request() {
    let mut lab = Lab::new();
    let request = message(1, "s1", "alice", &[address(ALICE)]);
    let heard = lab
        .accounting
        .hear(AP.parse().unwrap(), &request, lab.now)
        .unwrap();
    let expected = Md5::new()
        .chain_update([RESPONSE, 9, 0, 20])
        .chain_update(&request[4..HEADER])
        .chain_update(SECRET)
        .finalize();
    assert_eq!(heard.answer[..4], [RESPONSE, 9, 0, 20]);
    assert_eq!(heard.answer[4..], expected[..]);
}

#[test]
fn a_session_begins_goes_on_and_ends() {
    let mut lab = Lab::new();
    assert_eq!(lab.say(1, "s1", "alice", ALICE), [is(ALICE, "alice")]);
    assert_eq!(lab.say(1, "s1", "alice", ALICE), [], "it came twice");
    assert_eq!(lab.say(3, "s1", "alice", ALICE), []);
    assert_eq!(
        lab.say(3, "s1", "alice", "10.0.0.8"),
        [nobody(ALICE), is("10.0.0.8", "alice")]
    );
    assert_eq!(lab.say(2, "s1", "alice", "10.0.0.8"), [nobody("10.0.0.8")]);
    assert_eq!(lab.say(2, "s1", "alice", "10.0.0.8"), []);
}

#[test]
fn what_was_overtaken_by_its_stop_begins_nothing() {
    let mut lab = Lab::new();
    assert_eq!(lab.say(2, "s1", "alice", ALICE), []);
    assert_eq!(lab.say(1, "s1", "alice", ALICE), []);
    assert_eq!(lab.say(3, "s1", "alice", ALICE), []);
    lab.pass(STOPPED_FOR + Duration::from_secs(1));
    lab.say(2, "other", "bob", ALICE);
    assert_eq!(
        lab.say(1, "s1", "alice", ALICE),
        [is(ALICE, "alice")],
        "a name may be used again"
    );
}

#[test]
fn a_late_stop_takes_no_address_from_who_has_it_since() {
    let mut lab = Lab::new();
    lab.say(1, "s1", "alice", ALICE);
    assert_eq!(lab.say(1, "s2", "bob", ALICE), [is(ALICE, "bob")]);
    assert_eq!(lab.say(2, "s1", "alice", ALICE), []);
    assert_eq!(lab.say(2, "s2", "bob", ALICE), [nobody(ALICE)]);
}

#[test]
fn a_session_of_which_nothing_is_heard_ends() {
    let mut lab = Lab::new();
    lab.say(1, "s1", "alice", ALICE);
    assert_eq!(lab.pass(Duration::from_mins(9)), []);
    lab.say(3, "s1", "alice", ALICE);
    assert_eq!(lab.pass(Duration::from_mins(9)), []);
    assert_eq!(lab.pass(Duration::from_mins(1)), [nobody(ALICE)]);
    assert_eq!(
        lab.say(3, "s1", "alice", ALICE),
        [is(ALICE, "alice")],
        "it was only silent"
    );
}

#[test]
fn a_sender_that_begins_anew_has_no_sessions_and_others_keep_theirs() {
    let mut lab = Lab::new();
    lab.say(1, "s1", "alice", ALICE);
    let other = message(1, "s1", "bob", &[address("10.0.0.8")]);
    lab.hear("192.168.1.17", &other).unwrap();
    let on = request(&[attribute(ACCT_STATUS_TYPE, &7_u32.to_be_bytes())]);
    assert_eq!(lab.hear(AP, &on).unwrap(), [nobody(ALICE)]);
    assert_eq!(lab.accounting.sessions.len(), 1);
}

#[test]
fn both_families_and_prefixes_are_taken() {
    let mut lab = Lab::new();
    let prefix = attribute(FRAMED_IPV6_PREFIX, &[0, 64, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 5]);
    let start = message(
        1,
        "s1",
        "alice",
        &[address(ALICE), address("2001:db8::7"), prefix],
    );
    assert_eq!(
        lab.hear(AP, &start).unwrap(),
        [is(ALICE, "alice"), is("2001:db8::7", "alice")]
    );
    let networks = lab.accounting.networks();
    assert_eq!(
        networks,
        [("2001:db8:0:5::/64".parse().unwrap(), Arc::from("alice"))]
    );
    lab.say(2, "s1", "alice", ALICE);
    assert_eq!(lab.accounting.networks(), []);
}

#[test]
fn what_is_not_signed_or_not_from_a_known_sender_says_nothing() {
    let mut lab = Lab::new();
    let start = message(1, "s1", "alice", &[address(ALICE)]);
    assert_eq!(lab.hear("10.9.9.9", &start), Err(Fault::Stranger));
    for index in 0..start.len() {
        let mut changed = start.clone();
        changed[index] ^= 1;
        let error = lab.hear(AP, &changed).unwrap_err();
        assert!(
            matches!(error, Fault::Unsigned | Fault::Malformed | Fault::OtherCode),
            "{index}: {error:?}"
        );
    }
    assert!(lab.accounting.sessions.is_empty());
    let mut padded = start;
    padded.extend([0; 7]);
    assert_eq!(lab.hear(AP, &padded).unwrap(), [is(ALICE, "alice")]);
}

#[test]
fn a_message_authenticator_is_checked_where_there_is_one() {
    let mut lab = Lab::new();
    let at = HEADER + 6;
    let mut bytes = request(&[
        attribute(ACCT_STATUS_TYPE, &1_u32.to_be_bytes()),
        attribute(MESSAGE_AUTHENTICATOR, &[0; 16]),
        attribute(ACCT_SESSION_ID, b"s1"),
        attribute(USER_NAME, b"alice"),
        address(ALICE),
    ]);
    assert_eq!(lab.hear(AP, &bytes), Err(Fault::Unsigned));
    bytes[4..HEADER].fill(0);
    let mut mac = Hmac::<Md5>::new_from_slice(SECRET).unwrap();
    mac.update(&bytes);
    let signature = mac.finalize().into_bytes();
    bytes[at + 2..at + 18].copy_from_slice(&signature);
    sign(&mut bytes);
    assert_eq!(lab.hear(AP, &bytes).unwrap(), [is(ALICE, "alice")]);
}

#[test]
fn sessions_are_bounded_and_what_finds_no_room_is_not_answered() {
    let mut lab = Lab::new();
    let start = |n: usize| {
        let at = Ipv4Addr::from(0x0a00_0000 + u32::try_from(n).unwrap()).to_string();
        message(1, &format!("s{n}"), "u", &[address(&at)])
    };
    for n in 0..MAX_SESSIONS {
        lab.hear(AP, &start(n)).unwrap();
    }
    assert_eq!(lab.hear(AP, &start(MAX_SESSIONS)), Err(Fault::Full));
    lab.say(2, "s0", "u", "10.0.0.0");
    assert!(lab.hear(AP, &start(MAX_SESSIONS)).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..256), signed in any::<bool>()) {
        if signed && bytes.len() >= HEADER {
            bytes[0] = REQUEST;
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes[2..4].copy_from_slice(&length);
            sign(&mut bytes);
        }
        let _ = Packet::parse(&bytes, SECRET);
    }
}
