//! A connection that passes and is answered by a reset goes from OPEN to CLOSE `refused`.

use lab::{Attempt, Options, Outcome, State, addr, with_lab};

#[test]
fn claim() {
    with_lab(Options::default(), |lab| {
        for (from, to) in [(addr::CLIENT4, addr::SERVER4), (addr::CLIENT6, addr::SERVER6)] {
            let tried = Attempt::to(to, 8999).from(from, 0).run(&lab.net.client)?;
            assert_eq!(tried.outcome, Outcome::Refused);
            let row = lab.wait_row(&format!("tcp_sport = {}", tried.port), State::Close)?;
            assert_eq!(row.text("close_reason"), Some("refused"));
            assert!(row.is_null("start_timestamp") && !row.is_null("end_timestamp"));
            assert_eq!(
                (row.int("packets_in"), row.int("packets_out")),
                (Some(1), Some(1))
            );
        }
        Ok(())
    });
}
