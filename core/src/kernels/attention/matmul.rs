//! Products of strided views, on the calling thread.

/// A strided matrix to read.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `[rows, columns]` with adjacent columns, rows `stride` apart, from the start of `data`.
    pub(super) fn new(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        let last = rows.saturating_sub(1) * stride + columns;
        assert!(
            rows * columns == 0 || last <= data.len(),
            "a view must lie in its buffer"
        );
        Self {
            data,
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    /// The same numbers, transposed.
    pub(super) fn transpose(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// `dst = factor lhs rhs`, or `dst += factor lhs rhs`; `dst` is row-major without gaps.
pub(super) fn multiply(
    dst: &mut [f32],
    lhs: View<'_>,
    rhs: View<'_>,
    factor: f32,
    accumulate: bool,
) {
    let (rows, columns) = (lhs.rows, rhs.columns);
    assert_eq!(lhs.columns, rhs.rows, "inner sizes of a product");
    assert_eq!(dst.len(), rows * columns, "size of a product");
    if dst.is_empty() {
        return;
    }
    // SAFETY: `View::new` asserted that both operands lie in their buffers (transposing keeps the set of
    // elements), `dst` has exactly `rows * columns` elements, and `&mut` keeps it apart from both.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            rows,
            columns,
            lhs.columns,
            dst.as_mut_ptr(),
            1,
            columns as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.column_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.column_stride as isize,
            rhs.row_stride as isize,
            if accumulate { 1.0 } else { 0.0 },
            factor,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
