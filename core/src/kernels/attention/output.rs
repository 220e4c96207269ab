//! One buffer that tasks fill in disjoint, interleaved parts.

use std::marker::PhantomData;

/// A buffer of results shared between tasks.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    data: *mut f32,
    len: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer comes from an exclusive borrow that outlives the value, and whoever writes through it
// promises, in `write_rows`, that no other task touches the same elements.
#[allow(unsafe_code)]
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// Takes the buffer for the time of the tasks.
    pub(super) fn new(data: &'a mut [f32]) -> Self {
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            buffer: PhantomData,
        }
    }

    /// Writes `values`, `[rows, columns]` without gaps, to rows that start at `offset` and lie `stride` apart.
    ///
    /// # Safety
    /// No other thread may be writing any of these elements.
    #[allow(unsafe_code)]
    pub(super) unsafe fn write_rows(
        &self,
        offset: usize,
        stride: usize,
        values: &[f32],
        columns: usize,
    ) {
        for (i, row) in values.chunks_exact(columns.max(1)).enumerate() {
            let start = offset + i * stride;
            assert!(
                start + columns <= self.len,
                "a result must lie in its buffer"
            );
            // SAFETY: in bounds by the assertion; `values` is borrowed and cannot be this exclusively borrowed
            // buffer; the caller keeps other threads away.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), self.data.add(start), columns) };
        }
    }
}
