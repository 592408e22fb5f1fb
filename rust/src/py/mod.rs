//! The border to Python. Everything above this folder knows no Python.

mod errors;
mod quic;
pub mod term;

use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<term::Codec>()?;
    quic::register(module)
}
