//! The exceptions of `barrel_p2p.errors`, raised from Rust.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use std::io;

/// The exception `name` of `barrel_p2p.errors` with its message.
pub fn error(py: Python<'_>, name: &str, message: impl Into<String>) -> PyErr {
    let class = py
        .import("barrel_p2p.errors")
        .and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1((message.into(),))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// An OSError with its number, which PyO3's own conversion leaves out.
pub fn os_error(failure: io::Error) -> PyErr {
    let text = failure.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    PyOSError::new_err((failure.raw_os_error(), text.to_owned()))
}
