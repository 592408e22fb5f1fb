//! The native data plane of barrel_p2p: this file only registers what Python sees.

pub mod atom_cache;
pub mod budget;
mod burst;
pub mod etf;
pub mod frame;
mod py;
pub mod quic;
pub mod tcp;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    py::register(module)
}
