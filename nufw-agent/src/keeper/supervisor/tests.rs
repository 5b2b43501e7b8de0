//! The supervisor with workers that are shell scripts: they speak on standard input, as a worker does.

use super::*;

/// Says that it is ready, waits to be started, and says that it lives.
const LIVES: &str = "printf '\\001' >&0; dd bs=4096 count=1 status=none >/dev/null; printf '\\002' >&0; ";

fn supervisor(script: &str, hung_after: Duration) -> Supervisor {
    Supervisor {
        signals: None,
        program: Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
        },
        renews: false,
        hung_after,
        kernel: Kernel::without_sockets(),
        present: None,
        next: None,
        restarts: Restarts::default(),
        generation: 0,
        due: None,
        ending: false,
        leaving: false,
        reload: false,
        deadline: None,
        told_ready: false,
        watchdog: Watchdog::default(),
        complaints: Seldom::default(),
    }
}

/// Turns until it has started so many workers, or has ended.
async fn until(supervisor: &mut Supervisor, generation: u32) -> Option<Ended> {
    if supervisor.present.is_none() {
        supervisor.start_next(clock::mono());
    }
    let turning = async {
        while supervisor.generation < generation {
            let woken = tokio::select! {
                stirred = stirs(supervisor.present.as_ref()) => Woken::Present(stirred),
                stirred = stirs(supervisor.next.as_ref()) => Woken::Next(stirred),
                () = tokio::time::sleep(TICK) => Woken::Tick,
            };
            if let Some(ended) = supervisor.turn(woken) {
                return Some(ended);
            }
        }
        None
    };
    tokio::time::timeout(Duration::from_mins(1), turning)
        .await
        .expect("the supervisor does not get on")
}

const PATIENT: Duration = Duration::from_mins(5);

#[tokio::test]
async fn a_worker_that_asks_for_what_is_not_on_the_list_is_ended_and_replaced() {
    for wrong in ["printf 'c'", "printf '\\003\\000\\000'", "printf '\\001'"] {
        let script = format!("{LIVES} {wrong} >&0; sleep 600");
        let mut supervisor = supervisor(&script, PATIENT);
        assert_eq!(until(&mut supervisor, 2).await, None, "{wrong}");
    }
}

#[tokio::test]
async fn a_verdict_for_a_queue_that_is_not_ours_ends_the_worker() {
    // Queue 5, packet 1, drop; there is no queue 5.
    let record = "\\005\\000\\000\\000\\001\\000\\000\\000\\000\\000\\000\\000";
    let script = format!("{LIVES} printf '\\003{record}' >&0; sleep 600");
    let mut supervisor = supervisor(&script, PATIENT);
    assert_eq!(until(&mut supervisor, 2).await, None);
}

#[tokio::test]
async fn nothing_is_done_for_a_worker_that_was_not_started() {
    // It asks for a dump before its turn; nobody ever starts it.
    let mut supervisor = supervisor("printf '\\004' >&0; sleep 600", PATIENT);
    let ended = until(&mut supervisor, 1).await;
    assert!(matches!(ended, Some(Ended::AtOnce(_))), "{ended:?}");
}

#[tokio::test]
async fn a_silent_worker_is_ended_and_replaced() {
    let mut supervisor = supervisor(&format!("{LIVES} sleep 600"), Duration::from_millis(300));
    assert_eq!(until(&mut supervisor, 3).await, None);
}

#[tokio::test]
async fn the_first_worker_that_fails_ends_all_with_its_code_and_a_later_one_does_not() {
    let mut supervisor = supervisor("exit 78", PATIENT);
    assert_eq!(until(&mut supervisor, 1).await, Some(Ended::AtOnce(78)));

    let mut supervisor = self::supervisor(&format!("{LIVES} exit 78"), PATIENT);
    assert_eq!(until(&mut supervisor, 4).await, None);
}

#[tokio::test]
async fn who_should_take_over_and_does_not_start_leaves_the_present_one_alone() {
    let mut supervisor = supervisor(&format!("{LIVES} sleep 600"), PATIENT);
    assert_eq!(until(&mut supervisor, 1).await, None);
    let present = supervisor.present.as_ref().map(Child::pid);
    supervisor.program.arguments = vec!["-c".into(), "exit 1".into()];
    supervisor.told(Told::Replace, clock::mono());
    assert!(supervisor.next.is_some());
    let waiting = async {
        while supervisor.next.is_some() {
            let stirred = stirs(supervisor.next.as_ref()).await;
            supervisor.turn(Woken::Next(stirred));
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap();
    assert_eq!(supervisor.present.as_ref().map(Child::pid), present);
}

#[tokio::test]
async fn a_successor_is_started_when_the_present_worker_has_left() {
    // Leaves on SIGUSR2; the shell looks at signals between its commands.
    let script = format!("trap 'exit 0' USR2; {LIVES} while :; do sleep 0.05; done");
    let mut supervisor = supervisor(&script, PATIENT);
    assert_eq!(until(&mut supervisor, 1).await, None);
    while supervisor.present.as_ref().map(|child| child.stage) != Some(Stage::Running) {
        let stirred = stirs(supervisor.present.as_ref()).await;
        supervisor.turn(Woken::Present(stirred));
    }
    let before = supervisor.present.as_ref().map(Child::pid);
    supervisor.told(Told::Replace, clock::mono());
    assert_eq!(until(&mut supervisor, 2).await, None);
    assert_ne!(supervisor.present.as_ref().map(Child::pid), before);
    assert!(supervisor.next.is_none());
}
