//! What the CPU kernels share: tasks over threads, disjoint views of one buffer, and a checked face for `gemm`.

use std::marker::PhantomData;

/// Runs `task(0) .. task(count - 1)`, over the threads where there are any.
pub(crate) fn for_each_task(count: usize, task: impl Fn(usize) + Send + Sync) {
    #[cfg(not(target_arch = "wasm32"))]
    if count > 1 {
        use rayon::prelude::*;
        (0..count).into_par_iter().with_max_len(1).for_each(task);
        return;
    }
    (0..count).for_each(task);
}

/// Runs `work(index, chunk)` on every `size` elements of `data`, over the threads where there are any.
pub(crate) fn for_each_chunk(
    data: &mut [f32],
    size: usize,
    work: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    #[cfg(not(target_arch = "wasm32"))]
    if data.len() > size {
        use rayon::prelude::*;
        data.par_chunks_mut(size)
            .with_max_len(1)
            .enumerate()
            .for_each(|(i, chunk)| work(i, chunk));
        return;
    }
    data.chunks_mut(size)
        .enumerate()
        .for_each(|(i, chunk)| work(i, chunk));
}

/// A strided matrix to read.
#[derive(Clone, Copy)]
pub(crate) struct MatRef<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> MatRef<'a> {
    /// A row-major matrix of `columns` columns.
    pub(crate) fn rows(data: &'a [f32], columns: usize) -> Self {
        let rows = data.len() / columns.max(1);
        Self {
            data,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// The same numbers, transposed.
    pub(crate) fn transpose(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Columns `first .. first + count`.
    pub(crate) fn columns(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.columns);
        Self {
            data: &self.data[first * self.column_stride..],
            columns: count,
            ..self
        }
    }

    fn is_inside(&self) -> bool {
        let last = self.rows.saturating_sub(1) * self.row_stride
            + self.columns.saturating_sub(1) * self.column_stride;
        self.rows * self.columns == 0 || last < self.data.len()
    }
}

/// A row-major matrix to write, inside a buffer that other tasks write elsewhere.
pub(crate) struct MatMut<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    buffer: PhantomData<&'a mut f32>,
}

impl MatMut<'_> {
    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }
}

/// A buffer that tasks fill in disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    data: *mut f32,
    len: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer comes from an exclusive borrow; whoever takes a matrix out of it promises, in
// `Shared::matrix`, that no other task holds the same elements.
#[allow(unsafe_code)]
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Takes the buffer for the time of the tasks.
    pub(crate) fn new(data: &'a mut [f32]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            buffer: PhantomData,
        }
    }

    /// The whole of a buffer as a row-major matrix of `columns` columns, for one task alone.
    pub(crate) fn whole(data: &'a mut [f32], columns: usize) -> MatMut<'a> {
        let rows = data.len() / columns;
        assert!(columns > 0 && rows * columns == data.len());
        MatMut {
            data: data.as_mut_ptr(),
            rows,
            columns,
            stride: columns,
            buffer: PhantomData,
        }
    }

    /// A `[rows, columns]` matrix that starts at `offset` and whose rows are `stride` apart.
    ///
    /// # Safety
    /// No other matrix over any of these elements may be alive.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn matrix(
        &self,
        offset: usize,
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> MatMut<'a> {
        assert!(columns <= stride && rows > 0 && columns > 0);
        assert!(offset + (rows - 1) * stride + columns <= self.len);
        // SAFETY: `offset` is inside the buffer, by the assertion above.
        let data = unsafe { self.data.add(offset) };
        MatMut {
            data,
            rows,
            columns,
            stride,
            buffer: PhantomData,
        }
    }
}

/// `dst = lhs rhs`, or `dst += lhs rhs`, in f32 on the calling thread.
pub(crate) fn gemm(dst: &mut MatMut<'_>, lhs: MatRef<'_>, rhs: MatRef<'_>, accumulate: bool) {
    assert_eq!((dst.rows, dst.columns), (lhs.rows, rhs.columns));
    assert_eq!(lhs.columns, rhs.rows);
    assert!(lhs.is_inside() && rhs.is_inside());
    // SAFETY: shapes agree and all three matrices lie inside their buffers (asserted above, and in
    // `Shared::matrix` for `dst`, which is exclusive and so overlaps neither operand).
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            dst.rows,
            dst.columns,
            lhs.columns,
            dst.data,
            1,
            dst.stride as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.column_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.column_stride as isize,
            rhs.row_stride as isize,
            if accumulate { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
