//! The inner loops over packed 4-bit codes: unpack a run of blocks, and the dot product of a packed row.
//!
//! Each loop exists three times, for AVX-512, AVX2+FMA and plain Rust; [`Isa::detect`] picks one at run
//! time and `tests` holds them equal. The codebook has 16 entries, so one register (or two, with AVX2) is
//! the whole table and a lookup is one permute. The even element of a byte sits in its high nibble
//! (bitsandbytes' order), so a vector of bytes gives the evens and the odds apart; the dot product reads `x`
//! split the same way ([`split_even_odd`]) and never interleaves.

use crate::quantization::NF4_CODEBOOK as NF4;

/// Elements per inner step: 16 bytes of codes.
pub(super) const GROUP: usize = 32;

/// Instruction sets the loops are written for. Values other than `Portable` only come from [`Isa::detect`],
/// which is what makes calling the `target_feature` functions sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    /// 512-bit registers (`avx512f`).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit registers (`avx2`, `fma`).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust.
    Portable,
}

impl Isa {
    /// The widest set this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Every set this processor has, widest first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                all.insert(0, Self::Avx2);
            }
            if std::is_x86_feature_detected!("avx512f") {
                all.insert(0, Self::Avx512);
            }
        }
        all
    }
}

/// Unpacks whole blocks: `out[b * blocksize + i] = NF4[code] * absmax[b]`.
///
/// `codes` starts at the first block's first byte; `blocksize` is a multiple of [`GROUP`];
/// `out.len() == absmax.len() * blocksize`.
pub(super) fn unpack_blocks(
    isa: Isa,
    codes: &[u8],
    absmax: &[f32],
    blocksize: usize,
    out: &mut [f32],
) {
    assert!(blocksize.is_multiple_of(GROUP) && out.len() == absmax.len() * blocksize);
    assert!(codes.len() * 2 >= out.len());
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `Avx512` is only made after detecting the feature.
        Isa::Avx512 => unsafe { avx512::unpack_blocks(codes, absmax, blocksize, out) },
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `Avx2` is only made after detecting the features.
        Isa::Avx2 => unsafe { avx2::unpack_blocks(codes, absmax, blocksize, out) },
        Isa::Portable => {
            let bytes = blocksize / 2;
            for ((block, codes), &scale) in out
                .chunks_exact_mut(blocksize)
                .zip(codes.chunks_exact(bytes))
                .zip(absmax)
            {
                unpack_run(codes, 0, scale, block);
            }
        }
    }
}

/// Unpacks 16 packed rows transposed: `out[k * stride + r] = NF4[code(r, k)] * scales[k / 32 * 16 + r]`.
///
/// `codes`: 16 rows, `row_bytes` apart, of which the first `width` columns are read; `scales`: 16 per group of
/// 32 columns; `width` a multiple of [`GROUP`].
pub(super) fn unpack_panel(
    isa: Isa,
    codes: &[u8],
    row_bytes: usize,
    scales: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    let width = scales.len() / 16 * GROUP;
    assert!(width > 0 && codes.len() >= 15 * row_bytes + width / 2 && row_bytes < 1 << 27);
    assert!(out.len() >= (width - 1) * stride + 16);
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `Avx512` is only made after detecting the feature; lengths are asserted above.
        Isa::Avx512 => unsafe {
            avx512::unpack_panel(codes, row_bytes, scales, width, out, stride)
        },
        _ => {
            let scales = scales.as_chunks::<16>().0;
            for (group, scales) in scales.iter().enumerate() {
                for k in group * GROUP..(group + 1) * GROUP {
                    let shift = if k % 2 == 0 { 4 } else { 0 };
                    let out = &mut out[k * stride..k * stride + 16];
                    for (r, out) in out.iter_mut().enumerate() {
                        let byte = codes[r * row_bytes + k / 2];
                        *out = NF4[usize::from(byte >> shift & 15)] * scales[r];
                    }
                }
            }
        }
    }
}

/// Unpacks any run inside one block: `out[i] = NF4[code(first + i)] * absmax`.
pub(super) fn unpack_run(codes: &[u8], first: usize, absmax: f32, out: &mut [f32]) {
    let scaled = NF4.map(|level| level * absmax);
    let mut out = out;
    let mut first = first;
    if first % 2 == 1 && !out.is_empty() {
        out[0] = scaled[usize::from(codes[first / 2] & 15)];
        out = &mut out[1..];
        first += 1;
    }
    let codes = &codes[first / 2..];
    let (pairs, last) = out.split_at_mut(out.len() / 2 * 2);
    for (pair, &byte) in pairs.chunks_exact_mut(2).zip(codes) {
        pair[0] = scaled[usize::from(byte >> 4)];
        pair[1] = scaled[usize::from(byte & 15)];
    }
    if let [last] = last {
        *last = scaled[usize::from(codes[pairs.len() / 2] >> 4)];
    }
}

/// Expands quantized absmax of blocks that share one nested absmax: `out[i] = map[codes[i]] * nested + offset`,
/// rounded after the product as bitsandbytes does.
pub(super) fn expand_absmax(
    isa: Isa,
    codes: &[u8],
    map: &[f32; 256],
    nested: f32,
    offset: f32,
    out: &mut [f32],
) {
    assert_eq!(codes.len(), out.len());
    let done = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            let done = codes.len() / 16 * 16;
            // SAFETY: `Avx512` is only made after detecting the feature.
            #[allow(unsafe_code)]
            unsafe {
                avx512::expand_absmax(&codes[..done], map, nested, offset, &mut out[..done]);
            }
            done
        }
        _ => 0,
    };
    for (out, &code) in out[done..].iter_mut().zip(&codes[done..]) {
        *out = map[usize::from(code)] * nested + offset;
    }
}

/// Reorders every [`GROUP`] of a row to its 16 even elements followed by its 16 odd ones.
pub(super) fn split_even_odd(x: &[f32], out: &mut [f32]) {
    for (group, out) in x.chunks_exact(GROUP).zip(out.chunks_exact_mut(GROUP)) {
        for (i, pair) in group.chunks_exact(2).enumerate() {
            out[i] = pair[0];
            out[GROUP / 2 + i] = pair[1];
        }
    }
}

/// One packed row: its codes, and the absmax of the blocks it crosses.
///
/// The first block has `head` elements in this row, the others `blocksize`, the last what is left; all are
/// multiples of [`GROUP`].
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) codes: &'a [u8],
    pub(super) head: usize,
    pub(super) blocksize: usize,
    pub(super) absmax: &'a [f32],
}

/// One packed row against `M` rows of `x`.
///
/// `x`: `M` rows, split by [`split_even_odd`]. Sums in f32, in an order that depends on the shapes and the
/// instruction set alone.
pub(super) fn dot_row<const M: usize>(isa: Isa, row: Row<'_>, x: &[f32]) -> [f32; M] {
    let Row {
        codes,
        head,
        blocksize,
        absmax,
    } = row;
    let width = codes.len() * 2;
    assert!(x.len() == M * width);
    assert!(
        [width, head, blocksize]
            .iter()
            .all(|n| n.is_multiple_of(GROUP))
    );
    assert!(head > 0 && blocksize > 0 && head + (absmax.len() - 1) * blocksize >= width);
    match isa {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `Avx512` is only made after detecting the feature; lengths are asserted above.
        Isa::Avx512 => unsafe { avx512::dot_row::<M>(row, x) },
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        // SAFETY: `Avx2` is only made after detecting the features; lengths are asserted above.
        Isa::Avx2 => unsafe { avx2::dot_row::<M>(row, x) },
        Isa::Portable => portable_dot_row::<M>(row, x),
    }
}

fn portable_dot_row<const M: usize>(row: Row<'_>, x: &[f32]) -> [f32; M] {
    const HALF: usize = GROUP / 2;
    let codes = row.codes;
    let width = codes.len() * 2;
    let mut total = [[0f32; HALF]; M];
    let mut at = 0;
    let mut stop = row.head.min(width);
    for scale in row.absmax {
        let mut part = [[0f32; HALF]; M];
        for group in (at..stop).step_by(GROUP) {
            let bytes = &codes[group / 2..group / 2 + HALF];
            let mut even = [0f32; HALF];
            let mut odd = [0f32; HALF];
            for i in 0..HALF {
                even[i] = NF4[usize::from(bytes[i] >> 4)];
                odd[i] = NF4[usize::from(bytes[i] & 15)];
            }
            for (m, part) in part.iter_mut().enumerate() {
                let x = &x[m * width + group..m * width + group + GROUP];
                for i in 0..HALF {
                    part[i] += even[i] * x[i] + odd[i] * x[HALF + i];
                }
            }
        }
        for (total, part) in total.iter_mut().zip(&part) {
            for (t, p) in total.iter_mut().zip(part) {
                *t += p * scale;
            }
        }
        at = stop;
        stop = (stop + row.blocksize).min(width);
    }
    total.map(|lanes| lanes.iter().sum())
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512 {
    use super::{GROUP, NF4, Row};
    use std::arch::x86_64::*;

    /// 16 bytes of codes as (high nibble, byte) in 32-bit lanes; `vpermps` reads the low 4 bits of a lane only.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn nibbles(bytes: &[u8; 16]) -> (__m512i, __m512i) {
        // SAFETY: an unaligned 16-byte load from a 16-byte array.
        let packed = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        let low = _mm512_cvtepu8_epi32(packed);
        (_mm512_srli_epi32::<4>(low), low)
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn expand_absmax(
        codes: &[u8],
        map: &[f32; 256],
        nested: f32,
        offset: f32,
        out: &mut [f32],
    ) {
        let (nested, offset) = (_mm512_set1_ps(nested), _mm512_set1_ps(offset));
        for (bytes, out) in codes
            .as_chunks::<16>()
            .0
            .iter()
            .zip(out.as_chunks_mut::<16>().0)
        {
            // SAFETY: 16-byte load, 16 indices below 256 into 256 floats, 16-float store.
            unsafe {
                let index = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
                let level = _mm512_i32gather_ps::<4>(index, map.as_ptr());
                let absmax = _mm512_add_ps(_mm512_mul_ps(level, nested), offset);
                _mm512_storeu_ps(out.as_mut_ptr(), absmax);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn unpack_blocks(codes: &[u8], absmax: &[f32], blocksize: usize, out: &mut [f32]) {
        // SAFETY: NF4 holds 16 floats.
        let levels = unsafe { _mm512_loadu_ps(NF4.as_ptr()) };
        let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let second =
            _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        let (codes, _) = codes.as_chunks::<16>();
        let (out, _) = out.as_chunks_mut::<GROUP>();
        let groups = blocksize / GROUP;
        for ((codes, out), &scale) in codes
            .chunks_exact(groups)
            .zip(out.chunks_exact_mut(groups))
            .zip(absmax)
        {
            let scaled = _mm512_mul_ps(levels, _mm512_set1_ps(scale));
            for (bytes, out) in codes.iter().zip(out) {
                let (high, low) = nibbles(bytes);
                let even = _mm512_permutexvar_ps(high, scaled);
                let odd = _mm512_permutexvar_ps(low, scaled);
                let out = out.as_mut_ptr();
                // SAFETY: `out` is an array of 32 floats: two unaligned stores of 16.
                unsafe {
                    _mm512_storeu_ps(out, _mm512_permutex2var_ps(even, first, odd));
                    _mm512_storeu_ps(out.add(16), _mm512_permutex2var_ps(even, second, odd));
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn unpack_panel(
        codes: &[u8],
        row_bytes: usize,
        scales: &[f32],
        width: usize,
        out: &mut [f32],
        stride: usize,
    ) {
        // SAFETY: NF4 holds 16 floats.
        let levels = unsafe { _mm512_loadu_ps(NF4.as_ptr()) };
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let rows = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(row_bytes as i32));
        for word in 0..width / 8 {
            // SAFETY: the caller asserted that 16 rows, `row_bytes` apart, have `width / 2` bytes, that there are
            // 16 scales per 32 columns, that the gather's offsets fit 31 bits, and `out` to reach 16 floats past `(width - 1) * stride`; `word * 8 + 7 < width`.
            unsafe {
                let scale = _mm512_loadu_ps(scales.as_ptr().add(word / 4 * 16));
                let packed = _mm512_i32gather_epi32::<1>(rows, codes.as_ptr().add(word * 4).cast());
                let out = out.as_mut_ptr().add(word * 8 * stride);
                macro_rules! column {
                    ($k:literal, $shift:literal) => {
                        let code = _mm512_srli_epi32::<$shift>(packed);
                        let level = _mm512_permutexvar_ps(code, levels);
                        _mm512_storeu_ps(out.add($k * stride), _mm512_mul_ps(level, scale));
                    };
                }
                column!(0, 4);
                column!(1, 0);
                column!(2, 12);
                column!(3, 8);
                column!(4, 20);
                column!(5, 16);
                column!(6, 28);
                column!(7, 24);
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn dot_row<const M: usize>(row: Row<'_>, x: &[f32]) -> [f32; M] {
        // SAFETY: NF4 holds 16 floats.
        let levels = unsafe { _mm512_loadu_ps(NF4.as_ptr()) };
        let width = row.codes.len() * 2;
        let (codes, _) = row.codes.as_chunks::<16>();
        let mut total = [_mm512_setzero_ps(); M];
        let mut group = 0;
        let mut stop = (row.head / GROUP).min(codes.len());
        for &scale in row.absmax {
            let mut part = [_mm512_setzero_ps(); M];
            for bytes in &codes[group..stop] {
                let (high, low) = nibbles(bytes);
                let even = _mm512_permutexvar_ps(high, levels);
                let odd = _mm512_permutexvar_ps(low, levels);
                for (m, part) in part.iter_mut().enumerate() {
                    // SAFETY: the caller asserted `x.len() == M * width`, and `group` counts the 32s of `width`,
                    // so 32 floats follow this offset.
                    unsafe {
                        let x = x.as_ptr().add(m * width + group * GROUP);
                        *part = _mm512_fmadd_ps(even, _mm512_loadu_ps(x), *part);
                        *part = _mm512_fmadd_ps(odd, _mm512_loadu_ps(x.add(16)), *part);
                    }
                }
                group += 1;
            }
            stop = (stop + row.blocksize / GROUP).min(codes.len());
            let scale = _mm512_set1_ps(scale);
            for (total, part) in total.iter_mut().zip(part) {
                *total = _mm512_fmadd_ps(part, scale, *total);
            }
        }
        let mut sums = [0f32; M];
        for (sum, total) in sums.iter_mut().zip(total) {
            *sum = _mm512_reduce_add_ps(total);
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2 {
    use super::{GROUP, NF4, Row};
    use std::arch::x86_64::*;

    /// The 16 levels in two registers.
    #[derive(Clone, Copy)]
    struct Levels(__m256, __m256);

    #[inline]
    #[target_feature(enable = "avx2")]
    fn levels() -> Levels {
        // SAFETY: NF4 holds 16 floats: two unaligned loads of 8.
        unsafe {
            Levels(
                _mm256_loadu_ps(NF4.as_ptr()),
                _mm256_loadu_ps(NF4.as_ptr().add(8)),
            )
        }
    }

    /// `levels[index & 15]`: both halves by the low 3 bits, then bit 3 (moved to the sign) chooses.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn lookup(levels: Levels, index: __m256i) -> __m256 {
        let low = _mm256_permutevar8x32_ps(levels.0, index);
        let high = _mm256_permutevar8x32_ps(levels.1, index);
        _mm256_blendv_ps(
            low,
            high,
            _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)),
        )
    }

    /// 8 bytes of codes as their even and odd levels.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pairs(levels: Levels, bytes: &[u8; 8]) -> (__m256, __m256) {
        let packed = _mm_set1_epi64x(i64::from_le_bytes(*bytes));
        let low = _mm256_cvtepu8_epi32(packed);
        (
            lookup(levels, _mm256_srli_epi32::<4>(low)),
            lookup(levels, low),
        )
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn unpack_blocks(codes: &[u8], absmax: &[f32], blocksize: usize, out: &mut [f32]) {
        let levels = levels();
        let (codes, _) = codes.as_chunks::<8>();
        let (out, _) = out.as_chunks_mut::<16>();
        let steps = blocksize / 16;
        for ((codes, out), &scale) in codes
            .chunks_exact(steps)
            .zip(out.chunks_exact_mut(steps))
            .zip(absmax)
        {
            let scale = _mm256_set1_ps(scale);
            let scaled = Levels(
                _mm256_mul_ps(levels.0, scale),
                _mm256_mul_ps(levels.1, scale),
            );
            for (bytes, out) in codes.iter().zip(out) {
                let (even, odd) = pairs(scaled, bytes);
                let low = _mm256_unpacklo_ps(even, odd);
                let high = _mm256_unpackhi_ps(even, odd);
                let out = out.as_mut_ptr();
                // SAFETY: `out` is an array of 16 floats: two unaligned stores of 8.
                unsafe {
                    _mm256_storeu_ps(out, _mm256_permute2f128_ps::<0x20>(low, high));
                    _mm256_storeu_ps(out.add(8), _mm256_permute2f128_ps::<0x31>(low, high));
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn dot_row<const M: usize>(row: Row<'_>, x: &[f32]) -> [f32; M] {
        let levels = levels();
        let width = row.codes.len() * 2;
        let (codes, _) = row.codes.as_chunks::<8>();
        let mut total = [_mm256_setzero_ps(); M];
        let mut step = 0;
        let mut stop = (row.head / 16).min(codes.len());
        for &scale in row.absmax {
            let mut part = [_mm256_setzero_ps(); M];
            for bytes in &codes[step..stop] {
                let (even, odd) = pairs(levels, bytes);
                // A group of 32 is split as 16 evens and 16 odds; this step is half of one.
                let at = step / 2 * GROUP + step % 2 * 8;
                for (m, part) in part.iter_mut().enumerate() {
                    // SAFETY: the caller asserted `x.len() == M * width`, and `step` counts the 16s of `width`,
                    // so the group that holds `at` has 8 floats here and 8 more 16 places on.
                    unsafe {
                        let x = x.as_ptr().add(m * width + at);
                        *part = _mm256_fmadd_ps(even, _mm256_loadu_ps(x), *part);
                        *part = _mm256_fmadd_ps(odd, _mm256_loadu_ps(x.add(16)), *part);
                    }
                }
                step += 1;
            }
            stop = (stop + row.blocksize / 16).min(codes.len());
            let scale = _mm256_set1_ps(scale);
            for (total, part) in total.iter_mut().zip(part) {
                *total = _mm256_fmadd_ps(part, scale, *total);
            }
        }
        let mut sums = [0f32; M];
        for (sum, total) in sums.iter_mut().zip(total) {
            let mut lanes = [0f32; 8];
            // SAFETY: `lanes` holds 8 floats.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), total) };
            *sum = lanes.iter().sum();
        }
        sums
    }
}
