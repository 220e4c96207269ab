//! Whether a base will fit, before its weights are downloaded: what each tensor takes on the device, the largest against
//! the device's largest buffer, all together against what a page can have.

use burn::tensor::DType;
use qloom_core::models::Architecture;
use qloom_core::models::embedding::EmbeddingPlace;
use qloom_core::models::load::{BaseQuantization, LoadOptions};
use qloom_core::quantization::is_quantizable;

use super::super::device::Opened;
use crate::protocol::{DeviceKind, Failure, FailureKind};

/// Most bytes of a model on the CPU path: WebAssembly addresses 4 GiB, and computing needs some of it.
const MOST_ON_CPU: u64 = 3 << 30;
/// From this size on the visitor is told beforehand what a base takes.
const WORTH_SAYING: u64 = 300 << 20;

/// What a base takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Values in its weights.
    pub(super) parameters: u64,
    /// Bytes on the device.
    pub(super) bytes: u64,
    /// Bytes of it in the page's own memory: the word embeddings, where they stay there.
    pub(super) host: u64,
    /// The tensor that takes the largest buffer, and its bytes.
    pub(super) largest: (String, u64),
}

/// What the tensors `present` of a base of `architecture` take when they are loaded with `options`. `stored` gives the
/// bytes that a value of a tensor takes in the file.
pub(super) fn estimate(
    architecture: &Architecture,
    options: &LoadOptions,
    present: impl Fn(&str) -> bool,
    stored: impl Fn(&str) -> u64,
) -> Estimate {
    let tensors = match architecture {
        Architecture::Llama(c) => c.expected_tensors(),
        Architecture::Bert(c) => c.expected_tensors(c.num_labels),
    };
    let width = if options.dtype == DType::F16 { 2 } else { 4 };
    let mut estimate = Estimate::default();
    for (name, shape) in tensors.into_iter().filter(|(name, _)| present(name)) {
        let values: u64 = shape.iter().map(|&n| n as u64).product();
        estimate.parameters += values;
        let host =
            options.embedding == EmbeddingPlace::Host && name.ends_with("embed_tokens.weight");
        if host {
            estimate.host += values * stored(&name);
            continue;
        }
        let packed =
            options.quantization != BaseQuantization::None && is_quantizable(&name, &shape, &[]);
        let (bytes, buffer) = match packed {
            // Half a byte a value, one for the scale of 64, four for that of 256 scales; codes are a buffer of their own.
            true => (values / 2 + values / 64 + values / 4096, values / 2),
            false => (values * width, values * width),
        };
        estimate.bytes += bytes;
        if buffer > estimate.largest.1 {
            estimate.largest = (name, buffer);
        }
    }
    estimate
}

/// Refuses what will not fit on `device`, saying what, and what would.
///
/// # Errors
/// A tensor larger than the largest buffer; more in all than the page can have.
pub(super) fn check(estimate: &Estimate, device: &Opened, dense: bool) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::new(FailureKind::Memory, text));
    let smaller = match dense {
        true => "load it with its blocks as NF4, or take a smaller base",
        false => "take a smaller base",
    };
    let (name, largest) = &estimate.largest;
    let limit = device.info.max_buffer;
    if device.info.kind == DeviceKind::WebGpu && *largest > limit {
        return refuse(format!(
            "{name} takes {} in one buffer, and the largest this GPU gives a page is {}: this base cannot be loaded \
             here; {smaller}, or use the CPU",
            megabytes(*largest),
            megabytes(limit)
        ));
    }
    let all = estimate.bytes + estimate.host;
    let here = match device.info.kind {
        DeviceKind::Cpu => all,
        DeviceKind::WebGpu => estimate.host,
    };
    if here > MOST_ON_CPU {
        return refuse(format!(
            "this base takes {} of memory, and a page has {} for it; {smaller}",
            megabytes(here),
            megabytes(MOST_ON_CPU)
        ));
    }
    Ok(())
}

/// What to say of a base that may be more than there is: no page is told how much memory a GPU has.
pub(super) fn worth_saying(estimate: &Estimate, device: &Opened) -> Option<String> {
    let large = estimate.bytes + estimate.host > WORTH_SAYING;
    (large && device.info.kind == DeviceKind::WebGpu).then(|| {
        format!(
            "this base takes about {} of GPU memory and {} of the page's; whether so much is free a page is not told",
            megabytes(estimate.bytes),
            megabytes(estimate.host)
        )
    })
}

/// `640 MB`.
pub(super) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes.div_ceil(1_000_000)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;
    use crate::protocol::DeviceInfo;

    fn tinyllama(dtype: DType, nf4: bool) -> Estimate {
        let config = br#"{"model_type":"llama","vocab_size":32000,"hidden_size":2048,"intermediate_size":5632,
            "num_hidden_layers":22,"num_attention_heads":32,"num_key_value_heads":4,"max_position_embeddings":2048,
            "rms_norm_eps":1e-5,"tie_word_embeddings":false}"#;
        let options = LoadOptions {
            quantization: match nf4 {
                true => BaseQuantization::Nf4 { double_quant: true },
                false => BaseQuantization::None,
            },
            dtype,
            max_positions: None,
            embedding: EmbeddingPlace::Host,
        };
        let architecture = Architecture::from_json(config).unwrap();
        estimate(&architecture, &options, |_| true, |_| 2)
    }

    fn gpu(max_buffer: u64) -> Opened {
        let mut opened = Opened::cpu(None);
        opened.info = DeviceInfo {
            kind: DeviceKind::WebGpu,
            max_buffer,
            ..opened.info
        };
        opened
    }

    #[test]
    fn tinyllama_takes_what_the_design_counts() {
        let f16 = tinyllama(DType::F16, true);
        assert_eq!(f16.parameters, 1_100_048_384);
        // 0.631 GB a token at decode, the word embeddings beside it on the host.
        assert!((625_000_000..640_000_000).contains(&f16.bytes), "{f16:?}");
        assert_eq!(f16.host, 131_072_000);
        assert_eq!(f16.largest, ("lm_head.weight".to_owned(), 131_072_000));
        let dense = tinyllama(DType::F32, false);
        assert_eq!(dense.bytes, 4 * (1_100_048_384 - 65_536_000));
    }

    #[test]
    fn what_does_not_fit_is_said_with_both_numbers() {
        let f16 = tinyllama(DType::F16, true);
        check(&f16, &gpu(1 << 30), false).unwrap();
        let error = check(&f16, &gpu(128_000_000), false).unwrap_err();
        assert_eq!(error.kind, FailureKind::Memory);
        for part in ["lm_head.weight", "132 MB", "128 MB", "smaller base"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        let said = worth_saying(&f16, &gpu(1 << 30)).unwrap();
        assert!(said.contains("632 MB of GPU"), "{said}");
        assert_eq!(worth_saying(&f16, &Opened::cpu(None)), None);
        let dense = tinyllama(DType::F32, false);
        let error = check(&dense, &Opened::cpu(None), true).unwrap_err();
        assert!(error.message.contains("NF4"), "{}", error.message);
        check(&f16, &Opened::cpu(None), false).unwrap();
    }
}
