use super::*;

fn settings(sets_marks: bool, reject_bit: u32) -> Settings {
    Settings {
        sets_marks,
        mark_mask: Mark(0x00ff_ffff),
        reject_bit: Mark(reject_bit),
        queue_length: 1,
        first_queue: 10,
        zones: vec![0],
        queues: 1,
        packet_timeout: Duration::from_secs(15),
        max_pending: 1,
        max_unacknowledged: 1,
        interest: Interest::All,
    }
}

#[test]
fn a_queue_has_the_zone_of_all_or_its_own() {
    let mut settings = settings(true, 0);
    assert_eq!((settings.zone_of(10), settings.zone_of(12)), (0, 0));
    settings.zones = vec![7, 8];
    assert_eq!((settings.zone_of(10), settings.zone_of(11)), (7, 8));
    assert_eq!(settings.most_waiting(), 1);
    settings.queues = 4;
    assert_eq!(settings.most_waiting(), 4);
}

#[test]
fn a_users_mark_leaves_other_bits_alone() {
    let settings = settings(true, 0x0100_0000);
    assert_eq!(
        settings.mark_of_user(Mark(0xab12_3456), Mark(1001)),
        Some(0xaa00_03e9)
    );
    // Never more than the mask, and never the reject bit.
    assert_eq!(
        settings.mark_of_user(Mark(0), Mark(0xffff_ffff)),
        Some(0x00ff_ffff)
    );
}

#[test]
fn without_m_an_accepted_packet_keeps_its_mark() {
    assert_eq!(
        settings(false, 0x0100_0000).mark_of_user(Mark(7), Mark(1001)),
        None
    );
}

#[test]
fn a_rejected_packet_carries_the_bit_or_is_dropped() {
    let marked = settings(false, 0x0100_0000).rejection(Mark(0x8000_0007));
    assert_eq!(
        marked,
        Disposition::Accept {
            mark: Some(0x8100_0000)
        }
    );
    assert_eq!(settings(true, 0).rejection(Mark(7)), Disposition::Drop);
}
