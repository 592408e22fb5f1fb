use super::*;
use crate::burst::BURST;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

fn link(tick_ms: u64) -> (Arc<Link>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let link = Link::new(ours.into(), 1000, 100, Duration::from_millis(tick_ms));
    (Arc::new(link), theirs)
}

fn push(link: &Link, bytes: &[u8]) -> (usize, bool) {
    let pushed = link.push(|buffer| buffer.extend_from_slice(bytes));
    (pushed.queued, pushed.first)
}

#[test]
fn a_flush_is_asked_for_once_and_carries_everything() {
    let (link, mut peer) = link(60_000);
    assert_eq!(push(&link, b"one"), (3, true));
    assert_eq!(push(&link, b"two"), (6, false));
    let done = Flushed {
        blocked: false,
        relieved: false,
        broken: false,
    };
    assert_eq!(link.flush(), done);
    assert_eq!((link.queued(), push(&link, b"x")), (0, (1, true)));
    let mut got = [0; 6];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"onetwo");
}

#[test]
fn a_burst_may_leave_at_once_unless_the_socket_is_full() {
    let (link, _peer) = link(60_000);
    let burst = |bytes: usize| link.push(|out| out.resize(out.len() + bytes, 0)).burst;
    assert!(!burst(BURST - 1));
    assert!(burst(1));
    assert!(!link.flush().blocked);
    assert!(!burst(1));
    assert!(burst(4_000_000));
    assert!(link.flush().blocked);
    assert!(!burst(BURST));
}

#[test]
fn a_full_socket_blocks_and_the_end_of_congestion_is_told_once() {
    let (link, mut peer) = link(60_000);
    let sent: Vec<u8> = (0..4_000_000u32).map(|i| i as u8).collect();
    push(&link, &sent);
    assert!(link.flush().blocked);
    assert!(
        !push(&link, b"more").1,
        "whoever waits for the socket flushes"
    );
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 4_000_004];
        peer.read_exact(&mut got).unwrap();
        got
    });
    let mut relieved = 0;
    loop {
        let flushed = link.flush();
        relieved += flushed.relieved as u32;
        if !flushed.blocked {
            break;
        }
        std::thread::yield_now();
    }
    assert_eq!(relieved, 1);
    assert_eq!(reader.join().unwrap(), [&sent[..], b"more"].concat());
    assert!(!link.flush().relieved);
}

#[test]
fn a_silent_link_ticks_without_its_loop_and_a_busy_one_does_not() {
    let (link, mut peer) = link(50);
    ticker::watch(&link).unwrap();
    let mut got = [9; 8];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(got, [0; 8]);
    // What waits in the queue goes first: a tick must not stand inside of a frame.
    push(&link, b"frame");
    let mut got = [9; 9];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got[..5], b"frame");
    assert_eq!(&got[5..], [0; 4]);
}

#[test]
fn reading_tells_data_nothing_and_the_end() {
    let (link, mut peer) = link(60_000);
    let mut buffer = Vec::with_capacity(4);
    let nothing = link.receive(&mut buffer).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    peer.write_all(b"123456").unwrap();
    assert_eq!(
        (link.receive(&mut buffer).unwrap(), &buffer[..]),
        (4, &b"1234"[..])
    );
    assert_eq!(
        (link.receive(&mut buffer).unwrap(), &buffer[..]),
        (2, &b"56"[..])
    );
    drop(peer);
    assert_eq!(link.receive(&mut buffer).unwrap(), 0);
    push(&link, b"x");
    assert!(link.flush().broken);
    assert_eq!(push(&link, b"x"), (0, false));
}

#[test]
fn a_closed_link_takes_nothing_and_tells_the_peer() {
    let (link, mut peer) = link(60_000);
    push(&link, b"dropped");
    link.close();
    link.close();
    assert_eq!(push(&link, b"x"), (0, false));
    let mut got = Vec::new();
    peer.read_to_end(&mut got).unwrap();
    assert!(got.is_empty() && link.is_closed());
}
