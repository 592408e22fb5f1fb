//! `HandshakeBudget`: the budget of source addresses as net/tcp.py uses it; QUIC's is asked inside the core.

use super::quic::ip;
use crate::budget::{Budget, ADDRESS_BURST, ADDRESS_PER_SECOND};
use pyo3::prelude::*;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// Handshakes that each address has begun and that led to no channel.
#[pyclass(frozen, module = "barrel_p2p._native")]
pub struct HandshakeBudget(Mutex<Budget>);

#[pymethods]
impl HandshakeBudget {
    #[new]
    #[pyo3(signature = (*, burst=ADDRESS_BURST, per_second=ADDRESS_PER_SECOND))]
    fn new(burst: u64, per_second: u64) -> Self {
        Self(Mutex::new(Budget::new(burst, per_second)))
    }

    /// A handshake from `host` begins; False if too many from there have failed.
    fn begin(&self, host: &str) -> PyResult<bool> {
        let source = source(host)?;
        Ok(self.budget().begin(source, Instant::now()))
    }

    /// A handshake from `host` ended with a channel: it costs nothing.
    fn succeeded(&self, host: &str) -> PyResult<()> {
        let source = source(host)?;
        self.budget().succeeded(source, Instant::now());
        Ok(())
    }
}

impl HandshakeBudget {
    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// An address without its zone (`fe80::1%eth0`).
fn source(host: &str) -> PyResult<IpAddr> {
    ip(host.split('%').next().unwrap_or(host))
}
