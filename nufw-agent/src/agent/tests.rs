use super::*;

fn settings(sets_marks: bool, reject_bit: u32) -> Settings {
    Settings {
        sets_marks,
        mark_mask: Mark(0x00ff_ffff),
        reject_bit: Mark(reject_bit),
        kill_bit: Mark(0),
        blind_bit: Mark(0x0400_0000),
        on_loss: Choices::default(),
        queue_length: 1,
        first_queue: 10,
        zones: vec![0],
        queues: 1,
        flags_queue: None,
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
        settings.mark_of_user(Mark(0xaf12_3456), Mark(1001)),
        Some(0xaa00_03e9)
    );
    // Never more than the mask, and never the reject bit.
    assert_eq!(
        settings.mark_of_user(Mark(0), Mark(0xffff_ffff)),
        Some(0x00ff_ffff)
    );
}

#[test]
fn without_m_an_accepted_packet_keeps_its_mark_but_for_the_blind_bit() {
    let settings = settings(false, 0x0100_0000);
    assert_eq!(settings.mark_of_user(Mark(7), Mark(1001)), None);
    assert_eq!(settings.mark_of_user(Mark(0x0400_0007), Mark(1001)), Some(7));
}

#[test]
fn what_cannot_be_asked_about_is_dropped_or_carries_the_blind_bit_and_no_user() {
    let mut settings = settings(true, 0x0100_0000);
    assert_eq!(settings.unasked(OnLoss::Drop, Mark(7)), Disposition::Drop);
    let blind = |settings: &Settings| settings.unasked(OnLoss::Accept, Mark(0x8100_0007));
    let accept = |mark| Disposition::Accept { mark: Some(mark) };
    assert_eq!(blind(&settings), accept(0x8400_0000));
    settings.sets_marks = false;
    assert_eq!(blind(&settings), accept(0x8400_0007));
    settings.blind_bit = Mark(0);
    assert_eq!(blind(&settings), Disposition::Drop, "never without a mark");
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
