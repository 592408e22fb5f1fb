//! The border to Python. Everything above this folder knows no Python.

mod budget;
mod errors;
mod message;
mod quic;
mod tcp;
pub mod term;

use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<term::Codec>()?;
    module.add_class::<message::NoMessage>()?;
    module.add("NO_MESSAGE", message::no_message(module.py())?)?;
    module.add_class::<budget::HandshakeBudget>()?;
    module.add_class::<tcp::DistStream>()?;
    quic::register(module)
}
