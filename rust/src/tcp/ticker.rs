//! One thread for all links of the process: a blocked event loop must not get a healthy node declared dead.

use super::Link;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

#[derive(Default)]
struct Ticker {
    links: Vec<Weak<Link>>,
    thread: Option<Thread>,
}

static TICKER: Mutex<Ticker> = Mutex::new(Ticker {
    links: Vec::new(),
    thread: None,
});

/// Sends ticks on `link` when they are due, for as long as it lives. The thread ends with the last link.
pub fn watch(link: &Arc<Link>) -> std::io::Result<()> {
    let mut ticker = TICKER.lock().unwrap_or_else(|e| e.into_inner());
    ticker.links.push(Arc::downgrade(link));
    match &ticker.thread {
        Some(thread) => thread.unpark(),
        None => {
            let builder = thread::Builder::new().name("barrel_p2p tick".into());
            ticker.thread = Some(builder.spawn(run)?.thread().clone());
        }
    }
    Ok(())
}

fn run() {
    while let Some(pause) = round() {
        thread::park_timeout(pause);
    }
}

/// Ticks where it is due; returns how long there is nothing to do, None if there is no link left.
fn round() -> Option<Duration> {
    let mut ticker = TICKER.lock().unwrap_or_else(|e| e.into_inner());
    let mut next = None;
    ticker.links.retain(|link| match link.upgrade() {
        Some(link) if !link.is_closed() => {
            let due = link.tick_if_due();
            next = Some(next.map_or(due, |next: Duration| next.min(due)));
            true
        }
        _ => false,
    });
    if next.is_none() {
        ticker.thread = None;
    }
    next
}
