//! The files of an adapter: from the gallery with every hash checked, from a URL, dropped as files or as a zip.

use std::collections::BTreeMap;

use qloom_core::adapters::RECEIPT;
use qloom_core::adapters::gallery::{ENTRY, Entry, GalleryError, check_slug};
use qloom_core::weights::sha256_hex;

use super::super::base::{Folder, whole};
use super::super::{File, Surroundings, attached};
use crate::archive::{self, MOST_BYTES};
use crate::protocol::{AdapterSource, Failure, FailureKind, FileRef};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
/// PEFT's older, pickled form.
const PICKLE: &str = "adapter_model.bin";

/// The bytes of PEFT's two files and of the receipt.
pub(in super::super) struct AdapterFiles {
    pub(super) config: Vec<u8>,
    pub(super) tensors: Vec<u8>,
    pub(super) receipt: Option<Vec<u8>>,
}

impl AdapterFiles {
    /// Reads them.
    pub(super) async fn read<S: Surroundings>(
        around: &S,
        source: AdapterSource,
        files: Vec<S::File>,
    ) -> Result<Self, Failure> {
        match source {
            AdapterSource::Gallery {
                site,
                slug,
                entry_sha256,
            } => from_gallery(around, &site, &slug, &entry_sha256).await,
            AdapterSource::Url { url } => {
                let mut folder = Folder::at(&url)?;
                let tensors = |f: Option<S::File>| f.ok_or_else(|| no_tensors(&url));
                Ok(Self {
                    config: folder.needed(around, CONFIG, false).await?,
                    receipt: folder.small(around, RECEIPT, false).await?,
                    tensors: {
                        let file = tensors(folder.open(around, TENSORS, false).await?)?;
                        whole(&file, TENSORS, MOST_BYTES).await?
                    },
                })
            }
            AdapterSource::Files { files: refs } => from_files(refs, files).await,
        }
    }

    /// Out of named files; what matters is the folder that holds the configuration.
    fn pick(mut files: BTreeMap<String, Vec<u8>>) -> Result<Self, Failure> {
        let listed = || -> String {
            let names: Vec<&str> = files.keys().map(String::as_str).take(12).collect();
            names.join(", ")
        };
        let mut folders: Vec<String> = files
            .keys()
            .filter_map(|name| name.strip_suffix(CONFIG))
            .filter(|folder| folder.is_empty() || folder.ends_with('/'))
            .map(str::to_owned)
            .collect();
        let folder = match folders.len() {
            0 => {
                return Err(Failure::format(format!(
                    "there is no {CONFIG} in it, only {}",
                    listed()
                )));
            }
            1 => folders.remove(0),
            _ => {
                return Err(Failure::format(format!(
                    "there are {} adapters in it, in {}; drop one at a time",
                    folders.len(),
                    folders.join(", ")
                )));
            }
        };
        let mut take = |name: &str| files.remove(&format!("{folder}{name}"));
        let (config, tensors, receipt) = (take(CONFIG), take(TENSORS), take(RECEIPT));
        let pickled = take(PICKLE).is_some();
        match (config, tensors) {
            (Some(config), Some(tensors)) => Ok(Self {
                config,
                tensors,
                receipt,
            }),
            _ if pickled => Err(Failure::format(format!(
                "the adapter's tensors are pickled ({PICKLE}), and loading a pickle can run code; save it again with \
                 save_pretrained(DIR, safe_serialization=True)"
            ))),
            _ => Err(no_tensors("what was dropped")),
        }
    }
}

fn no_tensors(place: &str) -> Failure {
    Failure::format(format!("{place} has no {TENSORS} beside its {CONFIG}"))
}

/// PEFT's files as they were dropped, or one zip of them.
async fn from_files<F: File>(refs: Vec<FileRef>, files: Vec<F>) -> Result<AdapterFiles, Failure> {
    let files = attached(refs, files)?;
    if let [(name, file)] = files.as_slice() {
        let bytes = whole(file, name, MOST_BYTES).await?;
        if archive::is_zip(&bytes) {
            return AdapterFiles::pick(archive::unpack(&bytes)?).map_err(|f| f.of(name));
        }
        return Err(Failure::format(format!(
            "{name} is no zip; drop the adapter's folder, its files together, or a zip of them"
        )));
    }
    let mut found = BTreeMap::new();
    for (name, file) in files {
        let wanted = [CONFIG, TENSORS, RECEIPT, PICKLE];
        let last = name.rsplit('/').next().unwrap_or_default();
        // A pickle is only looked for, never read.
        if last == PICKLE {
            found.insert(name, Vec::new());
        } else if wanted.contains(&last) {
            let bytes = whole(&file, &name, MOST_BYTES).await?;
            found.insert(name, bytes);
        }
    }
    AdapterFiles::pick(found)
}

/// An entry of a gallery. A stored file that is not what its hash says is fetched once more.
async fn from_gallery<S: Surroundings>(
    around: &S,
    site: &str,
    slug: &str,
    entry_sha256: &str,
) -> Result<AdapterFiles, Failure> {
    check_slug(slug, "the request").map_err(|e| Failure::request(e.to_string()))?;
    let folder = format!("{}/adapters/{slug}", site.trim_end_matches('/'));
    let read = |name: String| format!("{folder}/{name}");

    let entry_json = verified(around, &read(ENTRY.to_owned()), |bytes, url| {
        let found = sha256_hex(bytes);
        match found == entry_sha256 {
            true => Ok(()),
            false => Err(GalleryError::Content {
                file: url.to_owned(),
                what: "SHA-256",
                expected: entry_sha256.to_owned(),
                found,
            }),
        }
    })
    .await?;
    let entry = Entry::from_json(&entry_json, &read(ENTRY.to_owned()))?;
    if entry.slug != slug {
        return Err(Failure::new(
            FailureKind::Integrity,
            format!("{folder} says that it is {}, not {slug}", entry.slug),
        ));
    }
    let mut files = Vec::new();
    for name in [CONFIG, TENSORS, RECEIPT] {
        files.push(match entry.file(name) {
            Some(listed) => {
                let url = read(name.to_owned());
                Some(verified(around, &url, |bytes, url| listed.verify(bytes, url)).await?)
            }
            None => None,
        });
    }
    let receipt = files.pop().flatten();
    let (tensors, config) = (files.pop().flatten(), files.pop().flatten());
    if let Some(bytes) = &receipt {
        let known = qloom_core::adapters::Receipt::from_json(bytes)?;
        entry.check_receipt(&known, &read(RECEIPT.to_owned()))?;
    }
    match (config, tensors) {
        (Some(config), Some(tensors)) => Ok(AdapterFiles {
            config,
            tensors,
            receipt,
        }),
        _ => Err(no_tensors(&folder)),
    }
}

/// The file at `url`, which must pass `check`; fetched anew once where it does not.
async fn verified<S: Surroundings>(
    around: &S,
    url: &str,
    check: impl Fn(&[u8], &str) -> Result<(), GalleryError>,
) -> Result<Vec<u8>, Failure> {
    let fetch = async || -> Result<Vec<u8>, Failure> {
        let file = around.open(url, true).await?;
        let missing = || Failure::new(FailureKind::Network, format!("{url} is not there"));
        whole(&file.ok_or_else(missing)?, url, MOST_BYTES).await
    };
    let bytes = fetch().await?;
    if check(&bytes, url).is_ok() {
        return Ok(bytes);
    }
    around.forget(url).await;
    let bytes = fetch().await?;
    check(&bytes, url)?;
    Ok(bytes)
}
