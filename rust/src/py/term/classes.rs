//! The Python classes that terms become, and quick ways to their attributes.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use super::object::Obj;
use crate::etf::Fail;

/// Everything is looked up once per interpreter and never dropped.
pub struct Classes {
    pub atom: Class,
    pub pid: Class,
    pub port: Class,
    pub reference: Class,
    pub bit_string: Class,
    pub improper: Class,
    pub export: Class,
    pub fun: Class,
    pub term_map: Class,
    pub pid_slots: [Slot; 5],       // node, id, serial, creation, _etf
    pub port_slots: [Slot; 3],      // node, id, creation
    pub reference_slots: [Slot; 4], // node, creation, ids, _etf
    pub bit_slots: [Slot; 2],       // data, bits
    pub improper_slots: [Slot; 2],  // elements, tail
    pub export_slots: [Slot; 3],    // module, function, arity
    pub fun_slots: [Slot; 1],       // data
    pub map_slots: [Slot; 1],       // _entries
    pub etf_name: Py<PyString>,
    /// 0 to 255.
    pub small: Vec<Py<PyAny>>,
    encode_error: Py<PyType>,
    decode_error: Py<PyType>,
}

// SAFETY: raw pointers of classes that live as long as the process.
unsafe impl Send for Classes {}
unsafe impl Sync for Classes {}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

impl Classes {
    pub fn get(py: Python<'_>) -> PyResult<&'static Classes> {
        CLASSES.get_or_try_init(py, || Self::load(py))
    }

    fn load(py: Python<'_>) -> PyResult<Classes> {
        let types = py.import("barrel_p2p.term.types")?;
        let errors = py.import("barrel_p2p.errors")?;
        let class = |name: &str| Class::new(types.getattr(name)?);
        let [pid, port, reference] = [class("Pid")?, class("Port")?, class("Reference")?];
        let [bit_string, improper] = [class("BitString")?, class("ImproperList")?];
        let [export, fun] = [class("Export")?, class("Fun")?];
        let term_map = Class::new(py.import("barrel_p2p.term.maps")?.getattr("TermMap")?)?;
        Ok(Classes {
            atom: class("Atom")?,
            pid_slots: slots(py, &pid, ["node", "id", "serial", "creation", "_etf"])?,
            port_slots: slots(py, &port, ["node", "id", "creation"])?,
            reference_slots: slots(py, &reference, ["node", "creation", "ids", "_etf"])?,
            bit_slots: slots(py, &bit_string, ["data", "bits"])?,
            improper_slots: slots(py, &improper, ["elements", "tail"])?,
            export_slots: slots(py, &export, ["module", "function", "arity"])?,
            fun_slots: slots(py, &fun, ["data"])?,
            map_slots: slots(py, &term_map, ["_entries"])?,
            pid,
            port,
            reference,
            bit_string,
            improper,
            export,
            fun,
            term_map,
            etf_name: PyString::intern(py, "_etf").unbind(),
            small: (0u8..=255)
                .map(|n| n.into_pyobject(py).map(|n| n.into_any().unbind()))
                .collect::<Result<_, _>>()?,
            encode_error: errors
                .getattr("EncodeError")?
                .cast_into::<PyType>()?
                .unbind(),
            decode_error: errors
                .getattr("DecodeError")?
                .cast_into::<PyType>()?
                .unbind(),
        })
    }

    pub fn encode_error(&self, py: Python<'_>, message: String) -> PyErr {
        PyErr::from_type(self.encode_error.bind(py).clone(), message)
    }

    pub fn decode_error(&self, py: Python<'_>, message: String) -> PyErr {
        PyErr::from_type(self.decode_error.bind(py).clone(), message)
    }
}

fn slots<const N: usize>(py: Python<'_>, class: &Class, names: [&str; N]) -> PyResult<[Slot; N]> {
    let mut found = Vec::with_capacity(N);
    for name in names {
        found.push(Slot::new(class.object.bind(py).getattr(name)?)?);
    }
    found.try_into().map_err(|_| unreachable!())
}

pub struct Class {
    object: Py<PyAny>,
    pub ptr: *mut ffi::PyTypeObject,
}

impl Class {
    fn new(object: Bound<'_, PyAny>) -> PyResult<Class> {
        let ptr = object.cast::<PyType>()?.as_type_ptr();
        Ok(Class {
            object: object.unbind(),
            ptr,
        })
    }

    /// An instance whose `__init__` does not run and whose slots are empty.
    #[inline]
    pub fn blank(&self) -> Result<Obj, Fail> {
        // SAFETY: our classes have no base but object, so the generic allocation is all that `object.__new__` does.
        unsafe { Obj::new(ffi::PyType_GenericAlloc(self.ptr, 0)) }
    }

    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.object.bind(py)
    }

    /// # Safety
    /// `object` is alive.
    pub unsafe fn is_base_of(&self, object: *mut ffi::PyObject) -> bool {
        ffi::PyType_IsSubtype(ffi::Py_TYPE(object), self.ptr) != 0
    }
}

/// One of the `__slots__` of a class: its descriptor, and the C functions behind it. They check the type of the object, and
/// cost a fifth of an attribute look-up.
pub struct Slot {
    descriptor: Py<PyAny>,
    get: ffi::descrgetfunc,
    set: ffi::descrsetfunc,
}

impl Slot {
    fn new(descriptor: Bound<'_, PyAny>) -> PyResult<Slot> {
        let kind = descriptor.get_type().as_type_ptr();
        // SAFETY: a slot of __slots__ is a member_descriptor, whose type has both functions; a NULL one is caught.
        let (get, set) = unsafe {
            let get = ffi::PyType_GetSlot(kind, ffi::Py_tp_descr_get);
            let set = ffi::PyType_GetSlot(kind, ffi::Py_tp_descr_set);
            if get.is_null() || set.is_null() {
                return Err(pyo3::exceptions::PyTypeError::new_err(
                    "class attribute is no slot",
                ));
            }
            (
                std::mem::transmute::<*mut std::ffi::c_void, ffi::descrgetfunc>(get),
                std::mem::transmute::<*mut std::ffi::c_void, ffi::descrsetfunc>(set),
            )
        };
        Ok(Slot {
            descriptor: descriptor.unbind(),
            get,
            set,
        })
    }

    #[inline]
    pub fn set(&self, object: &Obj, value: &Obj) -> Result<(), Fail> {
        // SAFETY: all three are alive; the descriptor checks that it fits the object.
        match unsafe { (self.set)(self.descriptor.as_ptr(), object.ptr(), value.ptr()) } {
            0 => Ok(()),
            _ => Err(crate::etf::Fault::host()),
        }
    }

    /// A new reference, or NULL with AttributeError when the slot is empty.
    ///
    /// # Safety
    /// `object` is alive.
    #[inline]
    pub unsafe fn get(&self, object: *mut ffi::PyObject) -> *mut ffi::PyObject {
        (self.get)(
            self.descriptor.as_ptr(),
            object,
            ffi::Py_TYPE(object).cast(),
        )
    }
}
