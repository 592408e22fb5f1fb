//! The native data plane of barrel_p2p: this file only registers what Python sees.

pub mod etf;
mod py;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    py::register(module)
}
