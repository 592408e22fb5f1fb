//! `QuicEndpoint` and `QuicConnection`: the QUIC carrier as net/quic.py and net/quic_connection.py see it.
//!
//! Calls come from the event loop's thread. The core's mutex is taken with the GIL released if the watcher has it;
//! Python objects are made and read only while it is free, because that can run arbitrary code (finalizers).

mod connection;
mod endpoint;
mod stream;

use super::errors::error;
use super::term::Codec;
use crate::quic::core::Core;
use crate::quic::options::Options;
use crate::quic::watcher::Shared;
use connection::QuicConnection;
use endpoint::QuicEndpoint;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard};
use stream::QuicStream;

pub const ACCEPTED: u8 = 0;
pub const CONNECTED: u8 = 1;
pub const STREAM: u8 = 2;
pub const MESSAGES: u8 = 3;
pub const WRITABLE: u8 = 4;
pub const CLOSED: u8 = 5;
pub const DETACHED: u8 = 6;
pub const STREAM_OPENED: u8 = 7;
pub const STREAM_READABLE: u8 = 8;
pub const STREAM_WRITABLE: u8 = 9;
pub const STREAM_STOPPED: u8 = 10;
pub const STREAM_FINISHED: u8 = 11;
pub const STREAMS_AVAILABLE: u8 = 12;
pub const STREAM_REST: u8 = 13;
pub const MOVED: u8 = 14;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_class::<QuicEndpoint>()?;
    module.add_class::<QuicConnection>()?;
    module.add_class::<QuicStream>()?;
    module.add("QUIC_OPTIONS", PyTuple::new(py, Options::NAMES)?)?;
    for (name, value) in [
        ("ACCEPTED", ACCEPTED),
        ("CONNECTED", CONNECTED),
        ("STREAM", STREAM),
        ("MESSAGES", MESSAGES),
        ("WRITABLE", WRITABLE),
        ("CLOSED", CLOSED),
        ("DETACHED", DETACHED),
        ("STREAM_OPENED", STREAM_OPENED),
        ("STREAM_READABLE", STREAM_READABLE),
        ("STREAM_WRITABLE", STREAM_WRITABLE),
        ("STREAM_STOPPED", STREAM_STOPPED),
        ("STREAM_FINISHED", STREAM_FINISHED),
        ("STREAMS_AVAILABLE", STREAMS_AVAILABLE),
        ("STREAM_REST", STREAM_REST),
        ("MOVED", MOVED),
    ] {
        module.add(name, value)?;
    }
    Ok(())
}

/// The codec of the endpoint, and of those connections whose peers want another one.
pub struct Codecs {
    pub usual: Py<Codec>,
    pub special: Mutex<HashMap<u64, Py<Codec>>>,
}

impl Codecs {
    pub fn of(&self, py: Python<'_>, id: u64) -> Py<Codec> {
        self.special().get(&id).unwrap_or(&self.usual).clone_ref(py)
    }

    /// Locked for the moment of a look-up, never while Python code may run.
    pub fn special(&self) -> MutexGuard<'_, HashMap<u64, Py<Codec>>> {
        self.special.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Runs `step` on the core; while the watcher has it, this thread waits without the GIL.
pub fn with_core<T: Send>(
    shared: &Shared,
    py: Python<'_>,
    step: impl FnOnce(&mut Core) -> T + Send,
) -> PyResult<T> {
    let outcome = catch_unwind(AssertUnwindSafe(|| match shared.try_core() {
        Ok(Some(mut core)) => Ok(step(&mut core)),
        Ok(None) => py.detach(|| shared.core().map(|mut core| step(&mut core))),
        Err(poisoned) => Err(poisoned),
    }));
    match outcome {
        Ok(Ok(value)) => Ok(value),
        _ => Err(error(
            py,
            "InternalError",
            "the QUIC core panicked; the transport can't go on",
        )),
    }
}

pub fn ip(host: &str) -> PyResult<IpAddr> {
    host.parse()
        .map_err(|_| PyValueError::new_err(format!("{host:?} is no IP address")))
}

pub fn pair(address: SocketAddr) -> (String, u16) {
    (address.ip().to_string(), address.port())
}

/// A descriptor of our own for the UDP socket of the caller's.
pub fn duplicate(fd: i32) -> PyResult<UdpSocket> {
    // SAFETY: borrowed for the moment of the call; a number that is no open descriptor is an error of dup.
    let given = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(UdpSocket::from(given.try_clone_to_owned()?))
}
