//! bitsandbytes' 4-bit layout on disk.
//!
//! A weight `X.weight` of `n` elements becomes
//!
//! | tensor | type, shape | |
//! |---|---|---|
//! | `X.weight` | U8 `[ceil(n/2), 1]` | packed codes |
//! | `X.weight.absmax` | U8 `[blocks]`, or F32 without double quantization | scales |
//! | `X.weight.quant_map` | F32 `[16]` | the NF4 codebook |
//! | `X.weight.nested_absmax` | F32 `[ceil(blocks/256)]` | double quantization only |
//! | `X.weight.nested_quant_map` | F32 `[256]` | double quantization only |
//! | `X.weight.quant_state.bitsandbytes__nf4` | U8 `[len]` | JSON: block sizes, original type and shape, offset |

use super::double_quant::NESTED_BLOCKSIZE;
use super::{Absmax, NF4_CODEBOOK, Nf4Tensor, QuantizationError};
use crate::weights::{Dtype, OwnedTensor, TensorSpec, WeightError, WeightSource};

/// Suffix of the JSON state.
const STATE: &str = "quant_state.bitsandbytes__nf4";

/// Every suffix that accompanies a quantized weight.
pub(super) const COMPANIONS: [&str; 5] = [
    "absmax",
    "quant_map",
    "nested_absmax",
    "nested_quant_map",
    STATE,
];

/// Most characters an f32 takes as JSON (`-1.1754943508222875e-38`), with one to spare.
const OFFSET_WIDTH: usize = 24;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As plain numbers.
    Dense,
    /// In bitsandbytes' NF4 layout.
    Nf4,
}

/// How `weight` (a full tensor name, `X.weight`) is stored. FP4, int8, GPTQ and AWQ are refused by name.
pub fn stored_format(
    source: &(impl WeightSource + ?Sized),
    weight: &str,
) -> Result<Stored, QuantizationError> {
    let refuse = |found: &str| {
        Err(QuantizationError::Unsupported {
            what: format!("tensor {weight}"),
            found: found.to_owned(),
        })
    };
    let stem = weight.strip_suffix(".weight").unwrap_or(weight);
    if is_quantized(source, weight) {
        return Ok(Stored::Nf4);
    }
    if source.contains(&format!("{weight}.quant_state.bitsandbytes__fp4")) {
        return refuse("FP4 (bitsandbytes)");
    }
    if source.contains(&format!("{stem}.SCB")) || source.contains(&format!("{weight}.SCB")) {
        return refuse("int8 (bitsandbytes LLM.int8)");
    }
    if source.contains(&format!("{stem}.qweight")) {
        return refuse("GPTQ or AWQ");
    }
    Ok(Stored::Dense)
}

/// Whether `weight` (`X.weight`) lies in `source` as NF4; [`stored_format`] also refuses other quantizations.
pub fn is_quantized(source: &(impl WeightSource + ?Sized), weight: &str) -> bool {
    source.contains(&format!("{weight}.{STATE}"))
}

/// The original shape of the NF4 weight `weight`, from its JSON state alone.
pub fn nf4_shape(
    source: &(impl WeightSource + ?Sized),
    weight: &str,
) -> Result<Vec<usize>, QuantizationError> {
    Ok(read_state(source, weight)?.shape)
}

/// What the NF4 weight `weight` is once dequantized, from its JSON state alone.
pub(crate) fn dense_spec(
    source: &(impl WeightSource + ?Sized),
    weight: &str,
) -> Result<TensorSpec, QuantizationError> {
    let state = read_state(source, weight)?;
    let dtype = torch_dtype(&state.dtype).unwrap_or(Dtype::F32);
    Ok(TensorSpec::new(weight, dtype, state.shape))
}

#[derive(serde::Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

fn read_state(
    source: &(impl WeightSource + ?Sized),
    weight: &str,
) -> Result<State, QuantizationError> {
    let name = format!("{weight}.{STATE}");
    let bytes = source.get(&name)?.bytes;
    serde_json::from_slice(&bytes).map_err(|e| QuantizationError::State {
        name,
        reason: e.to_string(),
    })
}

/// Reads the NF4 weight `weight` (`X.weight`) and everything that belongs to it.
pub fn read_bnb(
    source: &(impl WeightSource + ?Sized),
    weight: &str,
) -> Result<Nf4Tensor, QuantizationError> {
    let part = |suffix: &str| source.get(&format!("{weight}.{suffix}"));
    let bad = |reason: String| QuantizationError::State {
        name: format!("{weight}.{STATE}"),
        reason,
    };
    let state = read_state(source, weight)?;
    if state.quant_type != "nf4" {
        return Err(QuantizationError::Unsupported {
            what: format!("tensor {weight}"),
            found: state.quant_type,
        });
    }
    torch_dtype(&state.dtype).ok_or_else(|| bad(format!("unknown dtype {:?}", state.dtype)))?;
    if part("quant_map")?.to_f32()? != NF4_CODEBOOK {
        return Err(bad("its quant_map is not the NF4 codebook".into()));
    }

    let scales = part("absmax")?;
    let absmax = match (state.nested_blocksize, state.nested_offset) {
        (Some(nested_blocksize), Some(offset)) => Absmax::Double {
            codes: match scales.dtype {
                Dtype::U8 => scales.bytes.into_owned(),
                found => {
                    let name = format!("{weight}.absmax");
                    return Err(WeightError::Dtype {
                        name,
                        expected: "U8",
                        found,
                    }
                    .into());
                }
            },
            nested_absmax: part("nested_absmax")?.to_f32()?,
            nested_blocksize,
            offset: offset as f32,
            quant_map: part("nested_quant_map")?.to_f32()?,
        },
        _ => Absmax::Plain(
            scales
                .to_f32()
                .map_err(|e| e.named(&format!("{weight}.absmax")))?,
        ),
    };
    // `bnb_4bit_quant_storage` may have stored the codes under another type: the bytes are the same.
    let codes = source.get(weight)?.bytes.into_owned();
    let tensor = Nf4Tensor {
        shape: state.shape,
        blocksize: state.blocksize,
        codes,
        absmax,
        dtype: state.dtype,
    };
    tensor.validate().map_err(|e| e.of(weight))?;
    Ok(tensor)
}

/// The tensors that store `tensor` under `weight` (`X.weight`), byte for byte as bitsandbytes writes them.
pub fn write_bnb(
    weight: &str,
    tensor: &Nf4Tensor,
) -> Result<Vec<(String, OwnedTensor)>, QuantizationError> {
    let mut list = parts(weight, tensor)?;
    let state = state_json(tensor).into_bytes();
    list.push((
        format!("{weight}.{STATE}"),
        OwnedTensor::from_u8(vec![state.len()], state)?,
    ));
    Ok(list)
}

/// What `padded_tensors` will give, known before anything is quantized. All sizes together are a multiple of 8 bytes.
pub(super) fn nf4_specs(
    weight: &str,
    shape: &[usize],
    blocksize: usize,
    double_quant: bool,
) -> Vec<TensorSpec> {
    let n: usize = shape.iter().product();
    let blocks = n.div_ceil(blocksize.max(1));
    let spec = |suffix: &str, dtype, shape: &[usize]| {
        TensorSpec::new(format!("{weight}.{suffix}"), dtype, shape)
    };
    let mut specs = Vec::new();
    if double_quant {
        specs.push(spec(
            "nested_absmax",
            Dtype::F32,
            &[blocks.div_ceil(NESTED_BLOCKSIZE)],
        ));
        specs.push(spec("nested_quant_map", Dtype::F32, &[256]));
    } else {
        specs.push(spec("absmax", Dtype::F32, &[blocks]));
    }
    specs.push(spec("quant_map", Dtype::F32, &[16]));
    specs.push(TensorSpec::new(weight, Dtype::U8, [n.div_ceil(2), 1]));
    if double_quant {
        specs.push(spec("absmax", Dtype::U8, &[blocks]));
    }
    let before: u64 = specs.iter().filter_map(|s| s.byte_len().ok()).sum();
    let state = (before as usize + state_width(shape, blocksize, double_quant)).next_multiple_of(8)
        - before as usize;
    specs.push(spec(STATE, Dtype::U8, &[state]));
    specs
}

/// As [`write_bnb`], in the order and sizes of [`nf4_specs`]: the JSON ends in spaces, which readers skip.
///
/// A streaming writer must know every size before it knows the offset, whose digits make the JSON longer or shorter.
pub(super) fn padded_tensors(
    weight: &str,
    tensor: &Nf4Tensor,
) -> Result<Vec<(String, OwnedTensor)>, QuantizationError> {
    let double = matches!(tensor.absmax, Absmax::Double { .. });
    let mut list = parts(weight, tensor)?;
    if let Some(spec) = nf4_specs(weight, &tensor.shape, tensor.blocksize, double).pop() {
        let mut state = state_json(tensor).into_bytes();
        state.resize(spec.shape[0], b' ');
        list.push((spec.name, OwnedTensor::from_u8(spec.shape, state)?));
    }
    Ok(list)
}

fn parts(
    weight: &str,
    tensor: &Nf4Tensor,
) -> Result<Vec<(String, OwnedTensor)>, QuantizationError> {
    let f32s = |suffix: &str, v: &[f32]| -> Result<_, WeightError> {
        Ok((
            format!("{weight}.{suffix}"),
            OwnedTensor::from_f32(vec![v.len()], v)?,
        ))
    };
    let codes = OwnedTensor::from_u8(vec![tensor.codes.len(), 1], tensor.codes.clone())?;
    let codes = (weight.to_owned(), codes);
    let quant_map = f32s("quant_map", &NF4_CODEBOOK)?;
    Ok(match &tensor.absmax {
        Absmax::Plain(absmax) => vec![f32s("absmax", absmax)?, quant_map, codes],
        Absmax::Double {
            codes: scales,
            nested_absmax,
            quant_map: nested,
            ..
        } => vec![
            f32s("nested_absmax", nested_absmax)?,
            f32s("nested_quant_map", nested)?,
            quant_map,
            codes,
            (
                format!("{weight}.absmax"),
                OwnedTensor::from_u8(vec![scales.len()], scales.clone())?,
            ),
        ],
    })
}

/// The state as Python's `json.dumps` writes it.
fn state_json(tensor: &Nf4Tensor) -> String {
    let nested = match &tensor.absmax {
        Absmax::Plain(_) => None,
        Absmax::Double {
            nested_blocksize,
            offset,
            ..
        } => Some((
            *nested_blocksize,
            serde_json::Value::from(f64::from(*offset)).to_string(),
        )),
    };
    let nested = nested
        .as_ref()
        .map(|(blocksize, offset)| (*blocksize, offset.as_str()));
    state_text(&tensor.shape, tensor.blocksize, &tensor.dtype, nested)
}

fn state_width(shape: &[usize], blocksize: usize, double_quant: bool) -> usize {
    let widest = "0".repeat(OFFSET_WIDTH);
    let nested = double_quant.then_some((NESTED_BLOCKSIZE, widest.as_str()));
    state_text(shape, blocksize, "bfloat16", nested).len()
}

fn state_text(
    shape: &[usize],
    blocksize: usize,
    dtype: &str,
    nested: Option<(usize, &str)>,
) -> String {
    let shape = shape
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let head = format!(
        r#"{{"quant_type": "nf4", "blocksize": {blocksize}, "dtype": "{dtype}", "shape": [{shape}]"#
    );
    match nested {
        None => head + "}",
        Some((blocksize, offset)) => {
            format!(
                r#"{head}, "nested_blocksize": {blocksize}, "nested_dtype": "float32", "nested_offset": {offset}}}"#
            )
        }
    }
}

/// The stored type of a PyTorch type name.
pub(crate) fn torch_dtype(name: &str) -> Option<Dtype> {
    match name {
        "float32" => Some(Dtype::F32),
        "float16" => Some(Dtype::F16),
        "bfloat16" => Some(Dtype::BF16),
        _ => None,
    }
}
