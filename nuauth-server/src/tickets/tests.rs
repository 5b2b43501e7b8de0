use super::*;

fn now() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

const LIFETIME: Duration = Duration::from_mins(10);

fn later(by: Duration) -> Timestamp {
    Timestamp::from_micros(now().micros() + micros(by))
}

fn facts(chain: u64) -> Facts {
    Facts {
        user: "alice".to_owned(),
        id: 7,
        address: "10.0.0.7".parse().unwrap(),
        certificate: None,
        credential: digest(b"hash"),
        chain,
        session: 1,
        run: 2,
        shown: now().micros(),
    }
}

struct Lab {
    tickets: Tickets,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tickets = Tickets::open(&dir.path().join("tickets.key"), LIFETIME, now()).unwrap();
        Self { tickets, dir }
    }

    fn restarted(&self, at: Timestamp) -> Tickets {
        self.tickets.save().unwrap();
        Tickets::open(&self.dir.path().join("tickets.key"), LIFETIME, at).unwrap()
    }
}

fn accept(tickets: &Tickets, ticket: &SecretBytes, at: Timestamp) -> Result<Facts, TicketError> {
    accept_from(tickets, ticket, "10.0.0.7", None, at)
}

fn accept_from(
    tickets: &Tickets,
    ticket: &SecretBytes,
    address: &str,
    certificate: Option<&str>,
    at: Timestamp,
) -> Result<Facts, TicketError> {
    let address = address.parse().unwrap();
    let opened = tickets.open_ticket(ticket.expose(), address, certificate, at)?;
    assert_eq!(opened.user(), "alice");
    opened.with_credential(Some(&digest(b"hash")))
}

#[test]
fn a_ticket_counts_after_a_restart_from_its_address_and_for_its_time() {
    let lab = Lab::new();
    let ticket = lab.tickets.issue(&facts(1), now()).unwrap();
    let tickets = lab.restarted(later(LIFETIME / 2));
    assert_eq!(accept(&tickets, &ticket, later(LIFETIME)), Ok(facts(1)));
    let over = later(LIFETIME + Duration::from_secs(1));
    assert_eq!(accept(&tickets, &ticket, over), Err(TicketError::Expired));
    let before = later(Duration::ZERO).micros() - micros(CLOCK_STEP) - 1;
    assert_eq!(
        accept(&tickets, &ticket, Timestamp::from_micros(before)),
        Err(TicketError::Expired),
        "nor long before it was given"
    );
    assert_eq!(
        accept_from(&tickets, &ticket, "10.0.0.8", None, now()),
        Err(TicketError::OtherAddress)
    );
}

#[test]
fn a_ticket_given_to_a_certificate_counts_with_it_alone() {
    let lab = Lab::new();
    let with = Facts {
        certificate: Some("print".to_owned()),
        ..facts(1)
    };
    let ticket = lab.tickets.issue(&with, now()).unwrap();
    for (shown, expected) in [
        (Some("print"), Ok(with.clone())),
        (Some("other"), Err(TicketError::OtherCertificate)),
        (None, Err(TicketError::OtherCertificate)),
    ] {
        assert_eq!(
            accept_from(&lab.tickets, &ticket, "10.0.0.7", shown, now()),
            expected
        );
    }
}

#[test]
fn a_changed_bit_anywhere_makes_it_unreadable_and_it_says_nothing_itself() {
    let lab = Lab::new();
    let ticket = lab.tickets.issue(&facts(1), now()).unwrap();
    let bytes = ticket.expose();
    assert!(!bytes.windows(5).any(|part| part == b"alice"));
    for index in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[index] ^= 1;
        let changed = SecretBytes::new(changed).unwrap();
        assert_eq!(
            accept(&lab.tickets, &changed, now()),
            Err(TicketError::Unreadable),
            "{index}"
        );
    }
    for cut in 0..bytes.len() {
        let cut = SecretBytes::new(bytes[..cut].to_vec()).unwrap();
        assert_eq!(accept(&lab.tickets, &cut, now()), Err(TicketError::Unreadable));
    }
    assert_eq!(
        accept(&Lab::new().tickets, &ticket, now()),
        Err(TicketError::Unreadable),
        "nor does another server read it"
    );
}

#[test]
fn another_password_or_nobody_of_that_name_makes_it_worthless() {
    let lab = Lab::new();
    let ticket = lab.tickets.issue(&facts(1), now()).unwrap();
    let address = "10.0.0.7".parse().unwrap();
    for known in [None, Some(digest(b"another hash"))] {
        let opened = lab.tickets.open_ticket(ticket.expose(), address, None, now());
        let accepted = opened.unwrap().with_credential(known.as_deref());
        assert_eq!(accepted, Err(TicketError::Credential));
    }
}

#[test]
fn what_was_revoked_stays_so_after_a_restart_and_hurts_nothing_later() {
    let lab = Lab::new();
    let [one, other] = [1, 2].map(|chain| lab.tickets.issue(&facts(chain), now()).unwrap());
    lab.tickets.revoke_chain(1, now());
    let tickets = lab.restarted(now());
    assert_eq!(accept(&tickets, &one, now()), Err(TicketError::Revoked));
    assert_eq!(accept(&tickets, &other, now()), Ok(facts(2)));
    tickets.revoke_user(7, now());
    assert_eq!(accept(&tickets, &other, now()), Err(TicketError::Revoked));
    let soon = later(Duration::from_secs(1));
    let new = tickets.issue(&facts(3), soon).unwrap();
    assert_eq!(accept(&tickets, &new, soon), Ok(facts(3)));
    tickets.revoke_name("bob", soon);
    assert_eq!(accept(&tickets, &new, soon), Ok(facts(3)));
    tickets.revoke_name("alice", soon);
    assert_eq!(accept(&tickets, &new, soon), Err(TicketError::Revoked));
    tickets.revoke_all(soon);
    assert_eq!(accept(&tickets, &new, soon), Err(TicketError::Unreadable));
}

#[test]
fn more_than_can_be_remembered_as_revoked_revokes_everything() {
    let lab = Lab::new();
    let ticket = lab.tickets.issue(&facts(0), now()).unwrap();
    for chain in 1..=u64::try_from(MAX_REVOKED).unwrap() {
        lab.tickets.revoke_chain(chain, now());
    }
    assert_eq!(accept(&lab.tickets, &ticket, now()), Ok(facts(0)));
    lab.tickets.revoke_chain(u64::MAX, now());
    assert_eq!(accept(&lab.tickets, &ticket, now()), Err(TicketError::Unreadable));
}

#[test]
fn a_key_is_replaced_every_day_and_opens_its_last_tickets() {
    let lab = Lab::new();
    let last = later(KEY_AGE.saturating_sub(Duration::from_secs(1)));
    let ticket = lab.tickets.issue(&facts(1), last).unwrap();
    let next = later(KEY_AGE + Duration::from_secs(1));
    let newer = lab.tickets.issue(&facts(2), next).unwrap();
    assert_ne!(ticket.expose()[..4], newer.expose()[..4]);
    assert_eq!(accept(&lab.tickets, &ticket, next), Ok(facts(1)));
    lab.tickets
        .issue(&facts(3), later(KEY_AGE + LIFETIME + Duration::from_secs(1)))
        .unwrap();
    assert_eq!(accept(&lab.tickets, &ticket, last), Err(TicketError::Unreadable));
}

#[test]
fn the_file_is_the_owners_alone_and_a_bad_one_is_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::new();
    let path = lab.dir.path().join("tickets.key");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(&path, "{}x").unwrap();
    let error = Tickets::open(&path, LIFETIME, now()).err().unwrap();
    assert!(error.to_string().contains("remove it"), "{error}");
}
