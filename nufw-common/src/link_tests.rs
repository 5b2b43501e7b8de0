use super::*;
use nufw_proto::gateway::{Goodbye, Heartbeat, ToServer};
use nufw_proto::{MAX_BODY, MAX_GREETING_BODY, Text, encode_ignorable};
use tokio::io::{DuplexStream, duplex};

fn goodbye(reason: &str) -> ToServer {
    ToServer::Goodbye(Goodbye {
        reason: Text::new(reason).unwrap(),
    })
}

fn bytes(messages: &[ToServer]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        encode(message, &mut out).unwrap();
    }
    out
}

fn reader(stream: DuplexStream) -> FrameReader<DuplexStream> {
    FrameReader::new(stream, MAX_GREETING_BODY)
}

#[tokio::test]
async fn everything_that_is_there_comes_in_one_batch() {
    let (mut theirs, ours) = duplex(1 << 16);
    let sent: Vec<ToServer> = (0..30).map(|n| goodbye(&n.to_string())).collect();
    theirs.write_all(&bytes(&sent)).await.unwrap();
    let mut got = Vec::<ToServer>::new();
    assert_eq!(reader(ours).read_batch(&mut got).await.unwrap(), Read::Messages);
    assert_eq!(got, sent);
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let (mut theirs, ours) = duplex(1);
    let sent = [goodbye("a"), ToServer::Heartbeat(Heartbeat), goodbye("b")];
    let wire = bytes(&sent);
    let writer = async move {
        for byte in wire {
            theirs.write_all(&[byte]).await.unwrap();
        }
    };
    let read = async move {
        let (mut reader, mut got) = (reader(ours), Vec::<ToServer>::new());
        while reader.read_batch(&mut got).await.unwrap() == Read::Messages {}
        got
    };
    let ((), got) = tokio::join!(writer, read);
    assert_eq!(got, sent);
}

#[tokio::test]
async fn reading_is_cancel_safe() {
    let (mut theirs, ours) = duplex(1 << 16);
    let wire = bytes(&[goodbye("whole")]);
    let (head, tail) = wire.split_at(5);
    let (mut reader, mut got) = (reader(ours), Vec::<ToServer>::new());
    theirs.write_all(head).await.unwrap();
    tokio::select! {
        biased;
        _ = reader.read_batch(&mut got) => unreachable!("half a frame is no message"),
        () = tokio::task::yield_now() => {}
    }
    assert!(reader.frame_started_at().is_some());
    theirs.write_all(tail).await.unwrap();
    reader.read_batch(&mut got).await.unwrap();
    assert_eq!(got, [goodbye("whole")]);
    assert!(reader.frame_started_at().is_none());
}

#[tokio::test]
async fn an_oversize_frame_is_refused_from_its_header_until_the_limit_is_raised() {
    let mut header = (20_000_u32).to_be_bytes().to_vec();
    header.extend([0, 10, 0, 0]);
    let (mut theirs, ours) = duplex(1 << 16);
    theirs.write_all(&header).await.unwrap();
    let mut reader = reader(ours);
    let error = reader.read_batch(&mut Vec::<ToServer>::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer broke the protocol: a frame of 20000 bytes is larger than the 8192 allowed here"
    );
    assert_eq!(reader.buffer.len(), FIRST_READ, "nothing was allocated for it");
    reader.set_limit(MAX_BODY);
    let mut got = Vec::<ToServer>::new();
    let waits = tokio::time::timeout(Duration::from_millis(20), reader.read_batch(&mut got));
    assert!(waits.await.is_err(), "the body is waited for");
}

#[tokio::test]
async fn an_ignorable_frame_of_unknown_type_is_skipped_and_another_refused() {
    // A type of the other direction: unknown to this one.
    let unknown = nufw_proto::gateway::ToAgent::Heartbeat(Heartbeat);
    let mut wire = Vec::new();
    encode_ignorable(&unknown, &mut wire).unwrap();
    encode(&goodbye("after"), &mut wire).unwrap();
    encode(&unknown, &mut wire).unwrap();
    let (mut theirs, ours) = duplex(1 << 16);
    theirs.write_all(&wire).await.unwrap();
    let (mut reader, mut got) = (reader(ours), Vec::<ToServer>::new());
    reader.read_batch(&mut got).await.unwrap();
    assert_eq!(got, [goodbye("after")]);
    let error = reader.read_batch(&mut got).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer broke the protocol: frame type 134 is not known here and may not be ignored"
    );
}

#[tokio::test]
async fn the_end_of_the_stream_is_clean_between_frames_only() {
    let (mut theirs, ours) = duplex(1 << 16);
    theirs.write_all(&bytes(&[goodbye("x")])[..6]).await.unwrap();
    drop(theirs);
    let error = reader(ours)
        .read_batch(&mut Vec::<ToServer>::new())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer ended the connection in the middle of a frame"
    );

    let (theirs, ours) = duplex(64);
    drop(theirs);
    let end = reader(ours)
        .read_batch(&mut Vec::<ToServer>::new())
        .await
        .unwrap();
    assert_eq!(end, Read::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_slow_trickle_is_cut_off_at_the_deadline_however_often_it_drips() {
    let (mut theirs, ours) = duplex(1 << 16);
    let begin = clock::mono();
    let drip = tokio::spawn(async move {
        for byte in bytes(&[goodbye(&"x".repeat(200))]) {
            if theirs.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut reader = reader(ours);
    let error = reader.read_batch(&mut Vec::<ToServer>::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "the peer took more than 10s to send one frame");
    assert_eq!((clock::mono() - begin).as_secs(), 10);
    drip.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_between_frames_is_not_slow() {
    let (theirs, ours) = duplex(1 << 16);
    let mut reader = reader(ours);
    let hour = Duration::from_hours(1);
    let mut got = Vec::<ToServer>::new();
    let waits = tokio::time::timeout(hour, reader.read_batch(&mut got));
    assert!(waits.await.is_err(), "still waiting after an hour");
    drop(theirs);
}

#[tokio::test]
async fn writing_is_bounded_and_a_refused_message_leaves_nothing_behind() {
    let (mut theirs, ours) = duplex(1 << 16);
    let mut writer = FrameWriter::with_backlog(ours, 40);
    writer.queue(&goodbye("0123456789")).unwrap();
    writer.queue(&goodbye("0123456789")).unwrap();
    let error = writer.queue(&goodbye("0123456789")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer does not read: 38 bytes wait to be sent, 40 may"
    );
    writer.flush().await.unwrap();
    assert_eq!(writer.waiting(), 0);
    writer.close().await.unwrap();
    let mut wire = Vec::new();
    theirs.read_to_end(&mut wire).await.unwrap();
    assert_eq!(wire, bytes(&[goodbye("0123456789"), goodbye("0123456789")]));
}

#[tokio::test]
async fn flushing_is_cancel_safe() {
    let (theirs, ours) = duplex(7);
    let sent: Vec<ToServer> = (0..50).map(|n| goodbye(&format!("message {n}"))).collect();
    let mut writer = FrameWriter::new(ours);
    for message in &sent {
        writer.queue(message).unwrap();
    }
    // Nobody reads yet: the first bytes go, then the flush waits and is dropped.
    for _ in 0..3 {
        tokio::select! {
            biased;
            _ = writer.flush() => unreachable!("nobody reads"),
            () = tokio::task::yield_now() => {}
        }
    }
    let read = async move {
        let (mut reader, mut got) = (reader(theirs), Vec::<ToServer>::new());
        while reader.read_batch(&mut got).await.unwrap() == Read::Messages {}
        got
    };
    let write = async move { writer.close().await.unwrap() };
    let (got, ()) = tokio::join!(read, write);
    assert_eq!(got, sent);
}

#[tokio::test]
async fn the_read_buffer_grows_only_for_a_peer_that_fills_it() {
    let (mut theirs, ours) = duplex(1 << 20);
    let sent: Vec<ToServer> = (0..4000).map(|n| goodbye(&format!("message {n}"))).collect();
    theirs.write_all(&bytes(&sent)).await.unwrap();
    drop(theirs);
    let (mut reader, mut got) = (FrameReader::new(ours, MAX_BODY), Vec::<ToServer>::new());
    let mut reads = 0;
    while reader.read_batch(&mut got).await.unwrap() == Read::Messages {
        reads += 1;
    }
    assert_eq!(got, sent);
    assert!(reads <= 5, "{reads} reads");
    assert!(reader.buffer.len() <= FRAME_HEADER + MAX_BODY);
}

#[test]
fn a_peer_lives_while_it_speaks() {
    let start = clock::mono();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut liveness = Liveness::new(Duration::from_secs(9), start);
    assert!(!liveness.due_to_send(at(2)) && liveness.due_to_send(at(3)));
    liveness.on_sent(at(3));
    assert!(!liveness.due_to_send(at(5)));
    assert_eq!(liveness.next_check(), at(6));
    liveness.on_traffic(at(5));
    assert!(!liveness.is_dead(at(13)) && liveness.is_dead(at(14)));
}

/// Counts the system calls that a real socket would cost.
struct Counting(DuplexStream, usize);

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        self.1 += 1;
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_flush_is_one_write_however_many_messages() {
    let (theirs, ours) = duplex(1 << 20);
    let mut writer = FrameWriter::new(Counting(ours, 0));
    for n in 0..10_000 {
        writer.queue(&goodbye(&n.to_string())).unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(writer.inner.1, 1);
    drop(theirs);
}
