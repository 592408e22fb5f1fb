//! Hash maps with the same keys in each run, so that a run can be had again.

use std::ffi::{c_uint, c_void};

/// What std asks for the keys of its hash maps: ours comes before libc's.
#[no_mangle]
extern "C" fn getrandom(buffer: *mut c_void, size: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller's buffer has `size` bytes
    unsafe { std::ptr::write_bytes(buffer.cast::<u8>(), 7, size) };
    size as isize
}
