//! One owned reference, and data that only attached threads touch.

use std::cell::UnsafeCell;
use std::ptr::NonNull;

use pyo3::ffi;
use pyo3::prelude::*;

use crate::etf::{Fail, Fault};

/// An owned, non-null reference. Half the size of a `Result<Py, ..>`'s worth of checks; drops only while attached, as
/// builders and encoders live no longer than one call from Python.
#[repr(transparent)]
pub struct Obj(NonNull<ffi::PyObject>);

impl Obj {
    /// Takes over a new reference; NULL means that a Python exception is pending.
    ///
    /// # Safety
    /// `new` is NULL or a reference that the caller owns.
    #[inline]
    pub unsafe fn new(new: *mut ffi::PyObject) -> Result<Obj, Fail> {
        match NonNull::new(new) {
            Some(object) => Ok(Obj(object)),
            None => Err(Fault::host()),
        }
    }

    /// One more reference to an object that somebody else holds.
    ///
    /// # Safety
    /// `borrowed` points to a live object.
    #[inline]
    pub unsafe fn share(borrowed: *mut ffi::PyObject) -> Obj {
        ffi::Py_INCREF(borrowed);
        Obj(NonNull::new_unchecked(borrowed))
    }

    #[inline]
    pub fn ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }

    /// Hands the reference over to a function that steals it.
    #[inline]
    pub fn give(self) -> *mut ffi::PyObject {
        let object = self.0.as_ptr();
        std::mem::forget(self);
        object
    }

    #[inline]
    pub fn kind(&self) -> *mut ffi::PyTypeObject {
        // SAFETY: the object is alive.
        unsafe { ffi::Py_TYPE(self.ptr()) }
    }

    /// Whether the cycle collector need not know this object, now or ever: it is immutable and holds nothing that could be
    /// part of a cycle. (An empty dict is not tracked either, but it can be filled.)
    #[inline]
    pub fn is_plain(&self) -> bool {
        // SAFETY: the object is alive; the type objects are static.
        unsafe {
            ffi::PyObject_GC_IsTracked(self.ptr()) == 0 && self.kind() != &raw mut ffi::PyDict_Type
        }
    }

    /// Take a new object that holds only plain ones off the collector's lists. It would find that out by itself, but only
    /// after having walked over it: with a mailbox full of messages that walk is a quarter of a receiver's time.
    #[inline]
    pub fn untrack(&self) {
        // SAFETY: a live object of a type with garbage collection; untracked ones are fine too.
        unsafe { ffi::PyObject_GC_UnTrack(self.ptr().cast()) }
    }

    /// One more reference, for a table.
    pub fn keep(&self, py: Python<'_>) -> Py<PyAny> {
        // SAFETY: the object is alive.
        unsafe { Bound::from_borrowed_ptr(py, self.ptr()).unbind() }
    }

    pub fn into_bound(self, py: Python<'_>) -> Bound<'_, PyAny> {
        // SAFETY: the reference is owned and given up here.
        unsafe { Bound::from_owned_ptr(py, self.give()) }
    }
}

impl Drop for Obj {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own one reference.
        unsafe { ffi::Py_DECREF(self.ptr()) }
    }
}

/// A value that is guarded by the GIL: abi3 modules are only loaded by interpreters that have one.
pub struct Attached<T>(UnsafeCell<T>);

// SAFETY: the value is only reached through `with`, by a thread that holds the GIL (it shows its token).
unsafe impl<T: Send> Send for Attached<T> {}
unsafe impl<T: Send> Sync for Attached<T> {}

impl<T> Attached<T> {
    pub fn new(value: T) -> Self {
        Attached(UnsafeCell::new(value))
    }

    /// `f` must call nothing that could run Python code (and so let another thread in, or come back here): taking a new
    /// reference is fine, dropping one or making an object is not.
    #[inline]
    pub fn with<R>(&self, _py: Python<'_>, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: we hold the GIL, and by the rule above `f` runs to its end before anybody else can get here.
        f(unsafe { &mut *self.0.get() })
    }
}
