//! The border to Python. Everything above this folder knows no Python.

pub mod term;

use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<term::Codec>()?;
    Ok(())
}
