//! Whatever a message can hold survives the wire; whatever bytes come, reading them is safe.

use crate::bodies::read_stream;
use crate::samples::{self, Sample, frame};
use crate::strategies;
use nufw_proto::{Decoded, MAX_BODY, Message, client, decode, gateway};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use std::fmt::Debug;

fn survives<M: Message + PartialEq + Debug>(message: M) -> Result<(), TestCaseError> {
    let frame = frame(&message);
    let used = frame.len();
    prop_assert_eq!(decode(&frame, MAX_BODY), Ok(Decoded::Message(message, used)));
    Ok(())
}

proptest! {
    #[test]
    fn any_message_to_the_server_from_a_gateway_survives(message in strategies::agent_to_server()) {
        survives(message)?;
    }

    #[test]
    fn any_message_to_a_gateway_survives(message in strategies::server_to_agent()) {
        survives(message)?;
    }

    #[test]
    fn any_message_to_the_server_from_a_client_survives(message in strategies::client_to_server()) {
        survives(message)?;
    }

    #[test]
    fn any_message_to_a_client_survives(message in strategies::server_to_client()) {
        survives(message)?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_stream::<gateway::ToServer>(&bytes);
        read_stream::<gateway::ToAgent>(&bytes);
        read_stream::<client::ToServer>(&bytes);
        read_stream::<client::ToClient>(&bytes);
    }

    #[test]
    fn any_body_of_a_known_type_is_read_or_refused(
        frame_type in prop_oneof![1..=10_u16, 129..=136_u16],
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(frame_type.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(body);
        read_stream::<gateway::ToServer>(&frame);
        read_stream::<gateway::ToAgent>(&frame);
        read_stream::<client::ToServer>(&frame);
        read_stream::<client::ToClient>(&frame);
    }
}

#[test]
fn no_message_is_without_a_strategy() {
    fn check<M: Message + Debug>(strategy: impl Strategy<Value = M>, samples: &[Sample<M>]) {
        let mut runner = TestRunner::deterministic();
        let made: BTreeSet<u16> = (0..500)
            .map(|_| strategy.new_tree(&mut runner).unwrap().current().frame_type())
            .collect();
        assert_eq!(
            made,
            samples.iter().map(|sample| sample.message.frame_type()).collect()
        );
    }
    check(strategies::agent_to_server(), &samples::agent_to_server());
    check(strategies::server_to_agent(), &samples::server_to_agent());
    check(strategies::client_to_server(), &samples::client_to_server());
    check(strategies::server_to_client(), &samples::server_to_client());
}
