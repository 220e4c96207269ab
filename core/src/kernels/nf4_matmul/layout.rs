//! How an NF4 matrix lies in its device buffers; shared by every backend.

/// Geometry of one packed matrix.
///
/// Elements are numbered row-major over `[out_features, in_features]`; blocks of `blocksize` run over that
/// flat order, so a block may straddle two rows.
///
/// ```text
/// codes    u32 words, little-endian bytes in bitsandbytes' order:
///          element   0 1 2 3 4 5 6 7         of the word's eight
///          bits      4 0 12 8 20 16 28 24    first bit of its nibble (the even one is the high nibble)
/// absmax   plain:  scale_codes = [0]                 scales = [absmax of block 0, 1, ...]
///          double: scale_codes = 4 codes per word    scales = [offset, 256 map entries, nested absmax 0, 1, ...]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nf4Layout {
    /// Rows of the matrix.
    pub out_features: usize,
    /// Columns of the matrix.
    pub in_features: usize,
    /// Elements per absmax; even, 64 in practice.
    pub blocksize: usize,
    /// Blocks per nested absmax (256 in practice); 0 where absmax is plain f32.
    pub nested_blocksize: usize,
}

/// Where the nested absmax begin in the `scales` buffer of a double-quantized matrix.
pub(super) const NESTED: usize = 257;

impl Nf4Layout {
    /// Elements of the matrix.
    pub fn elements(&self) -> usize {
        self.out_features * self.in_features
    }

    /// Number of absmax blocks.
    pub fn blocks(&self) -> usize {
        self.elements().div_ceil(self.blocksize)
    }

    /// Words of packed codes.
    pub fn words(&self) -> usize {
        self.elements().div_ceil(8)
    }

    /// Whether the absmax are themselves quantized.
    pub fn is_double(&self) -> bool {
        self.nested_blocksize > 0
    }
}
