//! The supervisor with workers that are shell scripts: they speak on standard input, as a worker does.

use super::*;

/// Says that it is ready, waits to be started, and says that it lives.
const LIVES: &str = "printf '\\001' >&0; dd bs=4096 count=1 status=none >/dev/null; printf '\\002' >&0; ";

fn supervisor(script: &str, hung_after: Duration) -> Supervisor {
    let program = Program {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
    };
    Supervisor::new(Kernel::without_sockets(), program, hung_after)
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
        let script = format!("{LIVES} {wrong} >&0; exec sleep 600");
        let mut supervisor = supervisor(&script, PATIENT);
        assert_eq!(until(&mut supervisor, 2).await, None, "{wrong}");
    }
}

#[tokio::test]
async fn a_verdict_for_a_queue_that_is_not_ours_ends_the_worker() {
    // Queue 5, packet 1, drop; there is no queue 5.
    let record = "\\005\\000\\000\\000\\001\\000\\000\\000\\000\\000\\000\\000";
    let script = format!("{LIVES} printf '\\003{record}' >&0; exec sleep 600");
    let mut supervisor = supervisor(&script, PATIENT);
    assert_eq!(until(&mut supervisor, 2).await, None);
}

#[tokio::test]
async fn nothing_is_done_for_a_worker_that_was_not_started() {
    // It asks for a dump before its turn; nobody ever starts it.
    let mut supervisor = supervisor("printf '\\004' >&0; exec sleep 600", PATIENT);
    let ended = until(&mut supervisor, 1).await;
    assert!(matches!(ended, Some(Ended::AtOnce(_))), "{ended:?}");
}

#[tokio::test]
async fn a_silent_worker_is_ended_and_replaced() {
    let mut supervisor = supervisor(&format!("{LIVES} exec sleep 600"), Duration::from_millis(300));
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
    let mut supervisor = supervisor(&format!("{LIVES} exec sleep 600"), PATIENT);
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

#[tokio::test]
async fn workers_that_fail_at_once_are_started_sixteen_times_and_then_slowly() {
    let mut supervisor = supervisor(&format!("{LIVES} exit 1"), PATIENT);
    assert_eq!(until(&mut supervisor, 17).await, None);
    while supervisor.present.is_some() {
        let stirred = stirs(supervisor.present.as_ref()).await;
        assert_eq!(supervisor.turn(Woken::Present(stirred)), None);
    }
    let due = supervisor.due.expect("another one is to come");
    supervisor.tick(due.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(supervisor.present.is_none(), "not yet");
    supervisor.tick(due);
    assert!(supervisor.present.is_some());
}

#[tokio::test]
async fn a_worker_that_was_ended_for_what_it_asked_counts_as_one_that_failed() {
    let mut supervisor = supervisor(&format!("{LIVES} printf 'c' >&0; exec sleep 600"), PATIENT);
    assert_eq!(until(&mut supervisor, 1).await, None);
    while supervisor
        .present
        .as_ref()
        .is_some_and(|child| child.condemned.is_none())
    {
        let stirred = stirs(supervisor.present.as_ref()).await;
        supervisor.turn(Woken::Present(stirred));
    }
    let condemned = supervisor.present.as_ref().and_then(|child| child.condemned);
    assert_eq!(condemned, Some(Death::Failed), "a packet may be why");
}

#[tokio::test]
async fn the_service_manager_is_left_in_peace_while_workers_work_or_could() {
    let supervisor = supervisor("exit 1", PATIENT);
    let began = supervisor.working;
    assert!(supervisor.is_sound(began + PATIENT));
    assert!(!supervisor.is_sound(began + PATIENT + PREPARING));
}

#[tokio::test]
async fn a_worker_says_when_it_has_read_its_files_again_and_its_successor_does_so_by_beginning() {
    // Whoever runs the tests may ignore SIGHUP, and a shell that was begun so cannot hear it: what is handled here is not
    // ignored there.
    let _handled = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
    // Hears SIGHUP and says so; the shell looks at signals between its commands.
    let says = "trap \"printf '\\\\010' >&0\" HUP";
    let script = format!("{says}; {LIVES} while :; do sleep 0.05; done");
    let mut supervisor = supervisor(&script, PATIENT);
    assert_eq!(until(&mut supervisor, 1).await, None);
    let running = |supervisor: &Supervisor| {
        supervisor.present.as_ref().map(|child| child.stage) == Some(Stage::Running)
    };
    while !running(&supervisor) {
        let stirred = stirs(supervisor.present.as_ref()).await;
        supervisor.turn(Woken::Present(stirred));
    }
    supervisor.told(Told::PassOn(Signal::HUP), clock::mono());
    assert!(supervisor.reloading);
    let waiting = async {
        while supervisor.reloading {
            let stirred = stirs(supervisor.present.as_ref()).await;
            supervisor.turn(Woken::Present(stirred));
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap();
    // The next is told, and killed before it has said so.
    supervisor.told(Told::PassOn(Signal::HUP), clock::mono());
    if let Some(present) = &supervisor.present {
        present.signal(Signal::KILL);
    }
    assert_eq!(until(&mut supervisor, 2).await, None);
    while !running(&supervisor) {
        let stirred = stirs(supervisor.present.as_ref()).await;
        supervisor.turn(Woken::Present(stirred));
    }
    assert!(!supervisor.reloading);
}

#[tokio::test]
async fn a_supervisor_that_stood_still_takes_no_worker_for_silent() {
    let patience = Duration::from_secs(2);
    let mut supervisor = supervisor(&format!("{LIVES} exec sleep 600"), patience);
    assert_eq!(until(&mut supervisor, 1).await, None);
    let condemned = |supervisor: &Supervisor| supervisor.present.as_ref().and_then(|child| child.condemned);
    supervisor.present.as_mut().unwrap().stage = Stage::Running;
    let later = clock::mono() + PATIENT;
    supervisor.tick(later);
    assert_eq!(condemned(&supervisor), None);
    let mut now = later;
    while now < later + patience {
        now += TICK;
        supervisor.tick(now);
    }
    assert_eq!(condemned(&supervisor), Some(Death::Hung));
}
