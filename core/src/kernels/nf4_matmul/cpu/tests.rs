//! The SIMD versions against the portable one, range by range.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use super::matmul;
use super::packed::Packed;
use super::simd::Isa;
use crate::kernels::nf4_matmul::Nf4Layout;

struct Owned {
    layout: Nf4Layout,
    codes: Vec<u8>,
    scale_codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Owned {
    fn new(out_features: usize, in_features: usize, blocksize: usize, nested: usize) -> Self {
        let layout = Nf4Layout {
            out_features,
            in_features,
            blocksize,
            nested_blocksize: nested,
        };
        let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
        let scales = match nested {
            0 => layout.blocks(),
            _ => 257 + layout.blocks().div_ceil(nested),
        };
        Self {
            layout,
            codes: (0..layout.words() * 4).map(byte).collect(),
            scale_codes: (0..layout.blocks()).map(byte).collect(),
            scales: (0..scales)
                .map(|i| 0.25 + f32::from(byte(i)) / 64.0)
                .collect(),
        }
    }

    fn packed(&self, isa: Isa) -> Packed<'_> {
        Packed {
            layout: self.layout,
            codes: &self.codes,
            scale_codes: &self.scale_codes,
            scales: &self.scales,
            isa,
        }
    }
}

#[test]
fn every_instruction_set_unpacks_the_same_bits() {
    for (outputs, width, blocksize, nested) in [
        (5, 33, 64, 256),
        (48, 96, 64, 0),
        (32, 160, 32, 3),
        (16, 4096, 128, 7),
    ] {
        let owned = Owned::new(outputs, width, blocksize, nested);
        let expected = matmul::dequantize(&owned.packed(Isa::Portable));
        for isa in Isa::all() {
            let packed = owned.packed(isa);
            assert_eq!(matmul::dequantize(&packed), expected, "{isa:?}");
            for (start, count) in [(0, 1), (1, 70), (13, 140), (63, 2), (64, 64)] {
                let count = count.min(expected.len() - start);
                let mut out = vec![0.0; count];
                packed.dequantize(start, &mut out);
                assert_eq!(out, expected[start..start + count], "{isa:?} from {start}");
            }
        }
    }
}

#[test]
fn panels_are_the_transposed_rows() {
    let owned = Owned::new(40, 96, 64, 5);
    let dense = matmul::dequantize(&owned.packed(Isa::Portable));
    for isa in Isa::all() {
        let packed = owned.packed(isa);
        let (mut absmax, mut scales) = (Vec::new(), Vec::new());
        packed.panel_absmax(17, &mut absmax, &mut scales);
        let mut out = vec![f32::NAN; 64 * 20];
        packed.panel(17, 32, &scales[16..], &mut out, 20);
        for k in 0..64 {
            for r in 0..16 {
                assert_eq!(
                    out[k * 20 + r],
                    dense[(17 + r) * 96 + 32 + k],
                    "{isa:?} {r} {k}"
                );
            }
        }
    }
}

#[test]
fn every_instruction_set_multiplies_alike() {
    let owned = Owned::new(70, 352, 64, 4);
    let x: Vec<f32> = (0..9 * 352)
        .map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0)
        .collect();
    for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let x = &x[..rows * 352];
        let expected = matmul::forward(&owned.packed(Isa::Portable), x, rows);
        for isa in Isa::all() {
            let found = matmul::forward(&owned.packed(isa), x, rows);
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-3, "{isa:?} {rows} rows: {f} and {e}");
            }
        }
    }
}
