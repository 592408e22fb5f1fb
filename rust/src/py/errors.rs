//! The exceptions of `barrel_p2p.errors`, raised from Rust.

use pyo3::prelude::*;

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
