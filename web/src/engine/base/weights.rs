//! Streaming weights: headers first, then the bytes of one part of the model at a time, hashed and put on the device
//! before the next part is read. No more of a file is in memory than one part needs.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use qloom_core::host::to_scalar;
use qloom_core::models::Architecture;
use qloom_core::models::bert::BertBuilder;
use qloom_core::models::llama::LlamaBuilder;
use qloom_core::models::load::{LoadError, LoadOptions};
use qloom_core::models::parts::Part;
use qloom_core::quantization::is_quantized;
use qloom_core::weights::{
    Catalog, FileHeader, FileRange, FingerprintBuilder, PartialSource, WeightSource, shards,
};

use super::super::failure::Ended;
use super::super::task::Task;
use super::super::{File, Surroundings};
use super::limits::{self, Estimate};
use super::meter::Meter;
use super::{Folder, Model};
use crate::protocol::{Failure, FailureKind};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Bytes read at once: large enough for the network, small enough for a `Stop` to be heard.
const PIECE: u64 = 8 << 20;
/// Bytes read first of a file, which hold most headers whole.
const HEADER_GUESS: u64 = 1 << 16;
/// Most bytes of one part in memory at once.
const MOST_OF_A_PART: u64 = 2 << 30;

/// The weight files of a base, open, with what their headers say.
pub(super) struct Weights<F> {
    files: BTreeMap<String, F>,
    catalog: Catalog,
    total: u64,
}

/// The two builders as one.
enum Builder {
    Llama(Box<LlamaBuilder>),
    Bert(Box<BertBuilder>),
}

impl Builder {
    fn new(architecture: &Architecture, options: LoadOptions, device: &Device) -> Self {
        match architecture {
            Architecture::Llama(c) => Self::Llama(Box::new(LlamaBuilder::new(c, options, device))),
            Architecture::Bert(c) => Self::Bert(Box::new(BertBuilder::new(c, options, device))),
        }
    }

    fn parts(&self) -> Vec<Part> {
        match self {
            Self::Llama(b) => b.parts(),
            Self::Bert(b) => b.parts(),
        }
    }

    fn tensors(&self, part: Part, source: &dyn WeightSource) -> Vec<String> {
        match self {
            Self::Llama(b) => b.tensors(part, source),
            Self::Bert(b) => b.tensors(part, source),
        }
    }

    fn add(&mut self, part: Part, source: &dyn WeightSource) -> Result<(), LoadError> {
        match self {
            Self::Llama(b) => b.add(part, source),
            Self::Bert(b) => b.add(part, source),
        }
    }

    fn finish(self) -> Result<Model, LoadError> {
        Ok(match self {
            Self::Llama(b) => Model::Llama(Box::new(b.finish()?)),
            Self::Bert(b) => Model::Bert(Box::new(b.finish()?)),
        })
    }
}

impl<F: File> Weights<F> {
    /// Opens the files and reads their headers. `read` gets their names.
    pub(super) async fn open<S: Surroundings<File = F>>(
        around: &S,
        folder: &mut Folder<F>,
        read: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let index = folder.small(around, INDEX, true).await?;
        let names = match &index {
            Some(index) => shards(index)?,
            None => vec![SINGLE.to_owned()],
        };
        read.push(INDEX.to_owned());
        read.extend(names.iter().cloned());
        let mut files = BTreeMap::new();
        let mut headers = Vec::with_capacity(names.len());
        for name in names {
            let Some(file) = folder.open(around, &name, true).await? else {
                return Err(folder
                    .missing(&name)
                    .of("weights in safetensors are needed"));
            };
            headers.push((name.clone(), header(&name, &file).await?));
            files.insert(name, file);
        }
        let total = files.values().map(File::length).sum();
        Ok(Self {
            catalog: Catalog::new(headers)?,
            files,
            total,
        })
    }

    /// Checks that every tensor of `architecture` is named.
    pub(super) fn validate(&self, architecture: &Architecture) -> Result<(), Failure> {
        let source = PartialSource::new(&self.catalog);
        match architecture {
            Architecture::Llama(c) => c.validate_names(&source).map_err(LoadError::from)?,
            Architecture::Bert(c) => c.validate_names(&source).map_err(LoadError::from)?,
        }
        Ok(())
    }

    /// Whether any weight is stored as NF4.
    pub(super) fn is_nf4(&self) -> bool {
        let source = PartialSource::new(&self.catalog);
        let names = self.catalog.names();
        names.iter().any(|name| is_quantized(&source, name))
    }

    /// `__metadata__` of the files.
    pub(super) fn metadata(&self) -> &BTreeMap<String, String> {
        self.catalog.metadata()
    }

    /// What the base takes, loaded with `options`.
    pub(super) fn estimate(&self, architecture: &Architecture, options: &LoadOptions) -> Estimate {
        let source = PartialSource::new(&self.catalog);
        // The head of an encoder may be missing; of a language model every tensor was checked to be there.
        let present = |name: &str| match architecture {
            Architecture::Llama(_) => true,
            Architecture::Bert(c) => {
                let stored = qloom_core::models::bert::Prefixed::new(&source, c.family);
                stored.contains(name)
            }
        };
        let width = |name: &str| {
            source
                .spec(name)
                .map_or(4, |s| s.dtype.bitsize() as u64 / 8)
        };
        limits::estimate(architecture, options, present, width)
    }

    /// Reads everything once: onto the device what the model has, into the fingerprint all of it.
    pub(super) async fn stream<S: Surroundings<File = F>>(
        &self,
        task: &Task<'_, S>,
        architecture: &Architecture,
        config_json: &[u8],
        options: LoadOptions,
        device: &Device,
    ) -> Result<(Model, String), Ended> {
        let mut builder = Builder::new(architecture, options, device);
        let mut fingerprint = FingerprintBuilder::default();
        let mut meter = Meter::new(self.total, task.now_ms());
        let mut left: Vec<String> = self.catalog.names();
        let outline = PartialSource::new(&self.catalog);
        for part in builder.parts() {
            let names = builder.tensors(part, &outline);
            left.retain(|name| !names.contains(name));
            let source = self.fetch(task, &names, &mut meter).await?;
            for name in &names {
                fingerprint.add(name, &source.get(name)?);
            }
            builder.add(part, &source)?;
            settle(device).await?;
            task.pause().await?;
        }
        // Tensors that the model has no use for are part of what the base is.
        for name in left {
            let source = self
                .fetch(task, std::slice::from_ref(&name), &mut meter)
                .await?;
            fingerprint.add(&name, &source.get(&name)?);
        }
        Ok((builder.finish()?, fingerprint.finish(config_json)?))
    }

    /// The bytes of the tensors `names`.
    async fn fetch<S: Surroundings<File = F>>(
        &self,
        task: &Task<'_, S>,
        names: &[String],
        meter: &mut Meter,
    ) -> Result<PartialSource<'_>, Ended> {
        let mut source = PartialSource::new(&self.catalog);
        let ranges = self.catalog.ranges(names)?;
        let bytes: u64 = ranges.iter().map(|r| r.bytes.end - r.bytes.start).sum();
        if bytes > MOST_OF_A_PART {
            return Err(Failure::new(
                FailureKind::Memory,
                format!(
                    "a part of this base takes {} in its file, more than a page can hold at once; take a smaller base, or \
                     one stored as NF4",
                    limits::megabytes(bytes)
                ),
            )
            .into());
        }
        for range in ranges {
            let bytes = self.read(task, &range, meter).await?;
            source.hold(&range, bytes)?;
        }
        Ok(source)
    }

    async fn read<S: Surroundings<File = F>>(
        &self,
        task: &Task<'_, S>,
        range: &FileRange,
        meter: &mut Meter,
    ) -> Result<Vec<u8>, Ended> {
        let Some(file) = self.files.get(&range.file) else {
            return Err(Failure::format(format!("{} is not open", range.file)).into());
        };
        let length = range.bytes.end - range.bytes.start;
        let mut bytes = Vec::with_capacity(length as usize);
        let mut at = range.bytes.start;
        while at < range.bytes.end {
            let end = (at + PIECE).min(range.bytes.end);
            let piece = file.read(at..end).await?;
            if piece.bytes.len() as u64 != end - at {
                return Err(short(&range.file, end - at, piece.bytes.len()).into());
            }
            meter.add(task, end - at, piece.downloaded);
            bytes.extend_from_slice(&piece.bytes);
            at = end;
            task.breathe().await?;
        }
        Ok(bytes)
    }
}

async fn header(name: &str, file: &impl File) -> Result<FileHeader, Failure> {
    let length = file.length();
    let mut start = file.read(0..length.min(HEADER_GUESS)).await?.bytes;
    let needed = FileHeader::length(name, &start)?;
    if needed > start.len() as u64 && needed <= length {
        let have = start.len() as u64;
        start.extend(file.read(have..needed).await?.bytes);
    }
    let header = FileHeader::parse(name, &start)?;
    header.check_length(name, length)?;
    Ok(header)
}

/// Waits until the device has taken what was sent to it, so that uploads do not pile up in memory.
async fn settle(device: &Device) -> Result<(), Failure> {
    to_scalar(Tensor::<1>::zeros([1], device)).await?;
    Ok(())
}

fn short(file: &str, expected: u64, found: usize) -> Failure {
    Failure::new(
        FailureKind::Network,
        format!("{file}: {found} bytes came where {expected} were asked for; try again"),
    )
}
