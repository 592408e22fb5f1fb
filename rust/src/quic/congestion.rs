//! Congestion control for peers on the same host, and a view into any controller.
//!
//! There is no path to probe there: the only queue is the receiver's socket buffer, and its size is known because
//! both ends ask the kernel for the same. So the window is a fixed share of that buffer; if packets are lost all the
//! same (several peers sharing one listening socket), it is halved and grows back.

use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// A controller that remembers what quinn tells only controllers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation {
    /// The last round trip, with the peer's delay of its acknowledgement.
    pub latest_rtt: Option<Duration>,
    pub in_flight: u64,
}

pub struct Observed {
    inner: Box<dyn Controller>,
    seen: Observation,
}

struct ObservedFactory<F>(Arc<F>);

impl Observed {
    pub fn factory<F: ControllerFactory + Send + Sync + 'static>(
        inner: F,
    ) -> Arc<dyn ControllerFactory + Send + Sync> {
        Arc::new(ObservedFactory(Arc::new(inner)))
    }

    /// What the controller of a connection has seen.
    pub fn look(controller: &dyn Controller) -> Observation {
        let copy = controller.clone_box().into_any().downcast::<Self>();
        copy.map_or_else(|_| Observation::default(), |observed| observed.seen)
    }
}

impl<F: ControllerFactory + Send + Sync + 'static> ControllerFactory for ObservedFactory<F> {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Observed {
            inner: self.0.clone().build(now, mtu),
            seen: Observation::default(),
        })
    }
}

impl Controller for Observed {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet: u64) {
        self.seen.in_flight += bytes;
        self.inner.on_sent(now, bytes, last_packet);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.seen.latest_rtt = Some(now.saturating_duration_since(sent));
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest: Option<u64>,
    ) {
        self.seen.in_flight = in_flight;
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.seen.in_flight = self.seen.in_flight.saturating_sub(lost);
        self.inner.on_congestion_event(now, sent, persistent, lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.inner.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            seen: self.seen,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
