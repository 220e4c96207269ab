//! Loading part by part, the embedding on the host, and losses by token.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor};

use super::fixtures::{checkpoint, config, model, options};
use super::{Llama, LlamaBuilder, LoadError, LoadOptions, load};
use crate::data::{Batch, IGNORE};
use crate::host::block_on;
use crate::models::embedding::{EmbeddingPlace, EmbeddingTable};
use crate::models::parts::Part;
use crate::weights::{Catalog, FileHeader, PartialSource, SafetensorsSource, WeightError};

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    block_on(crate::host::to_vec(tensor)).unwrap()
}

fn batch() -> Batch {
    Batch::of_sequences(&[vec![5, 99, 200, 7], vec![8, 9, 300, 359]])
}

/// What a browser does: only the bytes of the part at hand are ever in memory.
fn piecewise(file: &[u8], tied: bool, options: LoadOptions) -> Llama {
    let config = config(tied);
    let length = FileHeader::length("m", file).unwrap() as usize;
    let header = FileHeader::parse("m", &file[..length]).unwrap();
    let catalog = Catalog::new(vec![("m".to_owned(), header)]).unwrap();
    config
        .validate_names(&PartialSource::new(&catalog))
        .unwrap();
    let mut builder = LlamaBuilder::new(&config, options, &Device::flex());
    let mut seen = Vec::new();
    for part in builder.parts().into_iter().rev() {
        let mut source = PartialSource::new(&catalog);
        let names = builder.tensors(part, &source);
        for range in catalog.ranges(&names).unwrap() {
            let bytes = file[range.bytes.start as usize..range.bytes.end as usize].to_vec();
            source.hold(&range, bytes).unwrap();
        }
        builder.add(part, &source).unwrap();
        seen.extend(names);
    }
    seen.sort();
    assert_eq!(seen, catalog.names(), "every tensor belongs to one part");
    builder.finish().unwrap()
}

#[test]
fn parts_from_ranges_of_a_file_are_the_model_from_the_whole() {
    for (tied, nf4) in [(false, false), (true, false), (false, true), (true, true)] {
        let file = checkpoint(&config(tied), nf4);
        let source = SafetensorsSource::single("m", &file).unwrap();
        let whole = load(
            &config(tied),
            &source,
            options(nf4),
            &Device::flex(),
            &mut |_, _| {},
        );
        let expected = values(whole.unwrap().logits(&batch()));
        let found = piecewise(&file, tied, options(nf4));
        assert_eq!(values(found.logits(&batch())), expected, "{tied} {nf4}");
        assert_eq!(found.tied, tied);
    }
}

#[test]
fn the_embedding_on_the_host_gives_the_same_numbers() {
    for (tied, dtype) in [
        (false, DType::F32),
        (false, DType::BF16),
        (true, DType::F32),
    ] {
        let file = checkpoint(&config(tied), true);
        let device = LoadOptions {
            dtype,
            ..options(true)
        };
        let host = LoadOptions {
            embedding: EmbeddingPlace::Host,
            ..device
        };
        let [on_device, on_host] = [device, host].map(|options| piecewise(&file, tied, options));
        // A tied table is the head, which the device needs.
        let moved = matches!(on_host.embed_tokens, EmbeddingTable::Host(_));
        assert_eq!(moved, !tied);
        assert_eq!(on_host.embed_tokens.dims(), on_device.embed_tokens.dims());
        assert_eq!(on_host.embed_tokens.dtype(), dtype);
        let expected = values(on_device.logits(&batch()));
        assert_eq!(
            values(on_host.logits(&batch())),
            expected,
            "{tied} {dtype:?}"
        );
    }
}

#[test]
fn what_is_not_loaded_is_named() {
    let file = checkpoint(&config(false), false);
    let source = SafetensorsSource::single("m", &file).unwrap();
    let mut builder = LlamaBuilder::new(&config(false), options(false), &Device::flex());
    for part in [Part::Embedding, Part::Head, Part::Block(0)] {
        builder.add(part, &source).unwrap();
    }
    let error = builder.add(Part::Block(2), &source).unwrap_err();
    assert!(
        matches!(error, LoadError::NoSuchPart { blocks: 2, .. }),
        "{error}"
    );
    let error = builder.finish().unwrap_err();
    assert!(
        error.to_string().contains("block 1 was not loaded"),
        "{error}"
    );

    let length = FileHeader::length("m", &file).unwrap() as usize;
    let header = FileHeader::parse("m", &file[..length]).unwrap();
    let catalog = Catalog::new(vec![("m".to_owned(), header)]).unwrap();
    let mut builder = LlamaBuilder::new(&config(false), options(false), &Device::flex());
    let error = builder.add(Part::Block(1), &PartialSource::new(&catalog));
    let not_held = matches!(error, Err(LoadError::Weights(WeightError::NotHeld { .. })));
    assert!(not_held, "{error:?}");
}

#[test]
fn losses_by_token_are_those_of_the_logits_and_sum_to_the_rows() {
    let model = model();
    let mut batch = batch();
    batch.labels = vec![IGNORE, 99, IGNORE, 7, IGNORE, 9, 300, 359];
    batch.target_tokens = 5;
    let found = block_on(model.token_losses(&batch)).unwrap();
    let logs = values(log_softmax(model.logits(&batch), 2));
    let log = |position: usize, id: usize| -logs[position * 360 + id];
    let expected = [
        vec![log(0, 99), log(2, 7)],
        vec![log(4, 9), log(5, 300), log(6, 359)],
    ];
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-4, "{f} {e}");
        }
    }
    let rows = block_on(model.row_losses(&batch)).unwrap();
    for (row, tokens) in rows.iter().zip(&found) {
        let sum: f64 = tokens.iter().map(|&t| f64::from(t)).sum();
        assert_eq!((row.nll, row.tokens), (sum, tokens.len()));
    }
    batch.labels = vec![IGNORE; 8];
    assert_eq!(
        block_on(model.token_losses(&batch)).unwrap(),
        vec![Vec::<f32>::new(); 2]
    );
}
