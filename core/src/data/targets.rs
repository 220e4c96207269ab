//! What a batch asks the model to predict.

use super::{Batch, IGNORE};

impl Batch {
    /// Positions that predict a trained token, and the tokens they predict.
    ///
    /// The position `p` (row-major) predicts the token after it when that token has a label and
    /// belongs to the same document.
    #[must_use]
    pub fn targets(&self) -> (Vec<u32>, Vec<u32>) {
        let mut positions = Vec::with_capacity(self.target_tokens);
        let mut targets = Vec::with_capacity(self.target_tokens);
        for row in 0..self.rows {
            let start = row * self.width;
            for next in start + 1..start + self.width {
                let label = self.labels[next];
                if label != IGNORE && self.segment_ids[next] == self.segment_ids[next - 1] {
                    positions.push(next as u32 - 1);
                    targets.push(label as u32);
                }
            }
        }
        (positions, targets)
    }

    /// Tokens in the batch, padding not counted.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.segment_ids
            .iter()
            .filter(|&&segment| segment != 0)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_shift_by_one_and_stop_at_documents() {
        let batch = Batch {
            rows: 1,
            width: 6,
            input_ids: vec![5, 6, 7, 8, 9, 0],
            labels: vec![IGNORE, 6, IGNORE, 8, 9, IGNORE],
            token_type_ids: Vec::new(),
            position_ids: vec![0, 1, 2, 0, 1, 0],
            segment_ids: vec![1, 1, 1, 2, 2, 0],
            target_tokens: 2,
            examples: vec![0, 1],
            classes: Vec::new(),
        };
        // 8 opens document 2, so nothing may predict it.
        assert_eq!(batch.targets(), (vec![0, 3], vec![6, 9]));
        assert_eq!(batch.tokens(), 5);
    }
}
