//! Congestion control for peers on the same host.
//!
//! There is no path to probe there: the only queue is the receiver's socket buffer, and its size is known because
//! both ends ask the kernel for the same. So the window is a fixed share of that buffer; if packets are lost all the
//! same (several peers sharing one listening socket), it is halved and grows back.

use quinn_proto::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, Clone, Copy)]
pub struct LocalWindow {
    pub max: u64,
}

#[derive(Debug, Clone)]
struct Window {
    max: u64,
    now: u64,
    min: u64,
    recovering_since: Option<Instant>,
}

impl ControllerFactory for LocalWindow {
    fn build(self: Arc<Self>, _now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Window {
            max: self.max,
            now: self.max,
            min: 2 * u64::from(mtu),
            recovering_since: None,
        })
    }
}

impl Controller for Window {
    fn on_ack(&mut self, _: Instant, _: Instant, bytes: u64, app_limited: bool, _: &RttEstimator) {
        if self.now < self.max && !app_limited {
            self.now = (self.now + bytes / 8).min(self.max);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, _: bool, _: u64) {
        if self.recovering_since.is_some_and(|since| sent <= since) {
            return;
        }
        self.recovering_since = Some(now);
        self.now = (self.now / 2).max(self.min);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.min = 2 * u64::from(mtu);
        self.now = self.now.max(self.min);
    }

    fn window(&self) -> u64 {
        self.now
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.max
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
