//! Writing safetensors: the header first, then the tensors one at a time, so that nobody holds them all.

use super::{Dtype, HostTensor, WeightError, byte_len};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// A tensor's name, type and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Row-major shape.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A spec from its parts.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            name: name.into(),
            dtype,
            shape: shape.into(),
        }
    }

    /// Bytes of the tensor, or an error where the shape overflows.
    pub fn byte_len(&self) -> Result<u64, WeightError> {
        byte_len(self.dtype, &self.shape).ok_or_else(|| WeightError::TensorLength {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
            expected: u64::MAX,
            found: 0,
        })
    }
}

/// What a file will hold, in the order in which it will be written.
///
/// Readers that map a file want each tensor aligned to its element size: [`SafetensorsPlan::sorted`] guarantees it;
/// a caller who keeps its own order ([`SafetensorsPlan::in_order`]) sees to it that earlier tensors end on a multiple.
pub struct SafetensorsPlan {
    specs: Vec<TensorSpec>,
    header: Vec<u8>,
    data_len: u64,
}

impl SafetensorsPlan {
    /// A plan in the reference writer's order: wide types first, then by name.
    pub fn sorted(
        mut specs: Vec<TensorSpec>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, WeightError> {
        specs.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        Self::in_order(specs, metadata)
    }

    /// A plan in the given order.
    pub fn in_order(
        specs: Vec<TensorSpec>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, WeightError> {
        let mut json = serde_json::Map::new();
        if !metadata.is_empty() {
            json.insert("__metadata__".into(), serde_json::json!(metadata));
        }
        let mut seen = BTreeSet::new();
        let mut at = 0u64;
        for spec in &specs {
            if !seen.insert(spec.name.as_str()) {
                let here = "the file being planned".to_owned();
                return Err(WeightError::Duplicate {
                    name: spec.name.clone(),
                    first: here.clone(),
                    second: here,
                });
            }
            let end = at + spec.byte_len()?;
            let entry = serde_json::json!({
                "dtype": spec.dtype.to_string(), "shape": spec.shape, "data_offsets": [at, end],
            });
            json.insert(spec.name.clone(), entry);
            at = end;
        }
        let mut text = serde_json::Value::Object(json).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text);
        Ok(Self {
            specs,
            header,
            data_len: at,
        })
    }

    /// The tensors in writing order.
    pub fn specs(&self) -> &[TensorSpec] {
        &self.specs
    }

    /// Size of the whole file in bytes, known before any tensor is.
    pub fn total_bytes(&self) -> u64 {
        self.header.len() as u64 + self.data_len
    }

    /// Writes the header and returns the writer for the tensors.
    pub fn begin<W: Write>(&self, mut out: W) -> Result<SafetensorsWriter<'_, W>, WeightError> {
        out.write_all(&self.header)
            .map_err(|source| WeightError::Write {
                name: "header".into(),
                source,
            })?;
        Ok(SafetensorsWriter {
            plan: self,
            next: 0,
            out,
        })
    }
}

/// Takes the tensors of a [`SafetensorsPlan`] one at a time, in its order.
pub struct SafetensorsWriter<'p, W> {
    plan: &'p SafetensorsPlan,
    next: usize,
    out: W,
}

impl<W: Write> SafetensorsWriter<'_, W> {
    /// The tensor the plan expects next.
    pub fn expected(&self) -> Option<&TensorSpec> {
        self.plan.specs.get(self.next)
    }

    /// Writes one tensor, which must be the next of the plan and as long as planned.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), WeightError> {
        let Some(spec) = self.plan.specs.get(self.next).filter(|s| s.name == name) else {
            let expected = self
                .expected()
                .map_or("nothing more", |s| s.name.as_str())
                .to_owned();
            return Err(WeightError::Order {
                expected,
                found: name.to_owned(),
            });
        };
        let expected = spec.byte_len()?;
        if expected != bytes.len() as u64 {
            return Err(WeightError::TensorLength {
                name: name.to_owned(),
                dtype: spec.dtype,
                shape: spec.shape.clone(),
                expected,
                found: bytes.len() as u64,
            });
        }
        let failed = |source| WeightError::Write {
            name: name.to_owned(),
            source,
        };
        self.out.write_all(bytes).map_err(failed)?;
        self.next += 1;
        Ok(())
    }

    /// Ends the file; an error where a planned tensor was never written.
    pub fn finish(mut self) -> Result<W, WeightError> {
        if let Some(spec) = self.expected() {
            return Err(WeightError::Order {
                expected: spec.name.clone(),
                found: "the end".into(),
            });
        }
        self.out.flush().map_err(|source| WeightError::Write {
            name: "the end".into(),
            source,
        })?;
        Ok(self.out)
    }
}

/// A whole safetensors file of tensors in memory, in the reference writer's order. `metadata` is usually `{"format": "pt"}`.
pub fn serialize(
    tensors: &[(String, HostTensor<'_>)],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WeightError> {
    let by_name: BTreeMap<&str, &HostTensor<'_>> =
        tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let specs = tensors
        .iter()
        .map(|(n, t)| TensorSpec::new(n, t.dtype, t.shape.clone()))
        .collect();
    let plan = SafetensorsPlan::sorted(specs, metadata)?;
    let mut writer = plan.begin(Vec::with_capacity(plan.total_bytes() as usize))?;
    for spec in plan.specs() {
        if let Some(t) = by_name.get(spec.name.as_str()) {
            writer.write(&spec.name, &t.bytes)?;
        }
    }
    writer.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::weights::OwnedTensor;

    #[test]
    fn writes_what_the_reference_writer_writes() {
        let tensors = vec![
            (
                "z".to_string(),
                OwnedTensor::from_f32(vec![2], &[1.0, -3.0]).unwrap(),
            ),
            (
                "codes".to_string(),
                OwnedTensor::from_u8(vec![3, 1], vec![1, 2, 3]).unwrap(),
            ),
            (
                "a.weight".to_string(),
                OwnedTensor::from_f32(vec![1, 1], &[0.5]).unwrap(),
            ),
            (
                "empty".to_string(),
                OwnedTensor::from_f32(vec![0, 4], &[]).unwrap(),
            ),
        ];
        let meta = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let ours = serialize(&tensors, &meta).unwrap();
        let views: Vec<_> = tensors
            .iter()
            .map(|(n, t)| {
                (
                    n,
                    safetensors::tensor::TensorView::new(t.dtype, t.shape.clone(), &t.bytes)
                        .unwrap(),
                )
            })
            .collect();
        let theirs = safetensors::serialize(views, Some(meta.into_iter().collect())).unwrap();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn holds_the_caller_to_the_plan() {
        let specs = vec![
            TensorSpec::new("a", Dtype::U8, [2]),
            TensorSpec::new("b", Dtype::F32, [1]),
        ];
        let plan = SafetensorsPlan::in_order(specs, &BTreeMap::new()).unwrap();
        let mut w = plan.begin(Vec::new()).unwrap();
        assert!(matches!(
            w.write("b", &[0; 4]),
            Err(WeightError::Order { .. })
        ));
        assert!(matches!(
            w.write("a", &[0; 3]),
            Err(WeightError::TensorLength {
                expected: 2,
                found: 3,
                ..
            })
        ));
        w.write("a", &[0; 2]).unwrap();
        assert!(matches!(w.finish(), Err(WeightError::Order { expected, .. }) if expected == "b"));
        let twice = vec![TensorSpec::new("a", Dtype::U8, [2]); 2];
        assert!(SafetensorsPlan::in_order(twice, &BTreeMap::new()).is_err());
    }

    #[test]
    fn a_full_disk_is_reported() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let plan = SafetensorsPlan::in_order(vec![], &BTreeMap::new()).unwrap();
        assert!(matches!(plan.begin(Full), Err(WeightError::Write { .. })));
    }
}
