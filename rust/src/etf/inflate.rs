//! Compressed terms: inflation that stops at the size the sender claimed.

use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_COMPUTE_ADLER32, TINFL_FLAG_PARSE_ZLIB_HEADER,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{decompress, DecompressorOxide};
use miniz_oxide::inflate::TINFLStatus;

/// Deflate can't do better than 1:1032, so a larger claim is a lie that needs no memory to see through.
const BEST_RATIO: usize = 1032;

/// Inflates the zlib stream at the start of `data` to exactly `claimed` bytes; also returns the stream's length.
pub fn inflate(data: &[u8], claimed: usize) -> Result<(Vec<u8>, usize), &'static str> {
    if claimed == 0 || claimed / BEST_RATIO > data.len() {
        return Err("compressed term claims a size its bytes can't hold");
    }
    let mut out = vec![0; claimed];
    let flags = TINFL_FLAG_PARSE_ZLIB_HEADER
        | TINFL_FLAG_COMPUTE_ADLER32
        | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut state = Box::<DecompressorOxide>::default();
    match decompress(&mut state, data, &mut out, 0, flags) {
        (TINFLStatus::Done, used, written) if written == claimed => Ok((out, used)),
        (TINFLStatus::Done | TINFLStatus::HasMoreOutput, ..) => {
            Err("compressed term is not of the size it claims")
        }
        _ => Err("compressed term is no whole zlib stream"),
    }
}
