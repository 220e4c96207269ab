//! Where the files of a base or an adapter lie: below a URL, or dropped on the page.

use super::super::{File, Surroundings, attached};
use crate::protocol::{BaseSource, Failure, FailureKind, FileRef};

/// The hub's address. A base of the hub is the folder `HUB/{owner}/{name}/resolve/{revision}`, its public layout.
pub const HUB: &str = "https://huggingface.co";

/// Longest configuration, tokenizer or template that is read whole.
const LONGEST_SMALL_FILE: u64 = 64 << 20;

/// A folder of files.
pub(in super::super) enum Folder<F> {
    /// Below a URL, without its final slash.
    Url(String),
    /// Dropped files by their names in the folder; each is opened once.
    Files(Vec<(String, Option<F>)>),
}

impl<F: File> Folder<F> {
    /// The folder at `url`.
    ///
    /// # Errors
    /// No URL of a page's schemes.
    pub(in super::super) fn at(url: &str) -> Result<Self, Failure> {
        let scheme = url.split(':').next().unwrap_or_default();
        let relative = !url.contains("://") && !url.is_empty();
        if !relative && !matches!(scheme, "http" | "https") {
            return Err(Failure::request(format!(
                "{url:?} is no address of files: expected https://…, http://… or a path on this site"
            )));
        }
        Ok(Self::Url(url.trim_end_matches('/').to_owned()))
    }

    /// Dropped files. What matters is the folder that holds `anchor`, the one nearest the top where there are several.
    ///
    /// # Errors
    /// No file of that name; an attachment that did not come.
    pub(in super::super) fn dropped(
        refs: Vec<FileRef>,
        files: Vec<F>,
        anchor: &str,
    ) -> Result<Self, Failure> {
        let files = attached(refs, files)?;
        let folder_of = |name: &str| {
            let folder = name.strip_suffix(anchor)?;
            (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_owned())
        };
        let folders = files.iter().filter_map(|(name, _)| folder_of(name));
        let Some(folder) = folders.min_by_key(|f| (f.matches('/').count(), f.clone())) else {
            let names: Vec<&str> = files.iter().map(|(n, _)| n.as_str()).take(12).collect();
            return Err(Failure::format(format!(
                "there is no {anchor} among the {} files: {}",
                files.len(),
                names.join(", ")
            )));
        };
        let within =
            |(name, file): (String, F)| Some((name.strip_prefix(&folder)?.to_owned(), Some(file)));
        Ok(Self::Files(files.into_iter().filter_map(within).collect()))
    }

    /// Opens `name`; `None` where there is no such file. `keep`: worth storing for the next time.
    pub(in super::super) async fn open<S: Surroundings<File = F>>(
        &mut self,
        around: &S,
        name: &str,
        keep: bool,
    ) -> Result<Option<F>, Failure> {
        match self {
            Self::Url(url) => around.open(&format!("{url}/{name}"), keep).await,
            Self::Files(files) => {
                let place = files.iter_mut().find(|(n, _)| n == name);
                Ok(place.and_then(|(_, file)| file.take()))
            }
        }
    }

    /// All of the small file `name`; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be read, or is far too long for what it is.
    pub(in super::super) async fn small<S: Surroundings<File = F>>(
        &mut self,
        around: &S,
        name: &str,
        keep: bool,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let Some(file) = self.open(around, name, keep).await? else {
            return Ok(None);
        };
        whole(&file, name, LONGEST_SMALL_FILE).await.map(Some)
    }

    /// As [`Self::small`], of a file that must be there.
    pub(in super::super) async fn needed<S: Surroundings<File = F>>(
        &mut self,
        around: &S,
        name: &str,
        keep: bool,
    ) -> Result<Vec<u8>, Failure> {
        let found = self.small(around, name, keep).await?;
        found.ok_or_else(|| self.missing(name))
    }

    /// That `name` is not here.
    pub(in super::super) fn missing(&self, name: &str) -> Failure {
        match self {
            Self::Url(url) => Failure::new(
                FailureKind::Network,
                format!("{url} has no {name}; check the address"),
            ),
            Self::Files(files) => {
                let names: Vec<&str> = files.iter().map(|(n, _)| n.as_str()).take(12).collect();
                Failure::format(format!(
                    "there is no {name} among the files: {}",
                    names.join(", ")
                ))
            }
        }
    }

    /// Forgets what is stored of `names`, because it is damaged. False where nothing can be fetched again.
    pub(in super::super) async fn forget<S: Surroundings<File = F>>(
        &self,
        around: &S,
        names: &[String],
    ) -> bool {
        let Self::Url(url) = self else { return false };
        for name in names {
            around.forget(&format!("{url}/{name}")).await;
        }
        true
    }
}

/// All of `file`.
///
/// # Errors
/// More than `most` bytes.
pub(in super::super) async fn whole(
    file: &impl File,
    name: &str,
    most: u64,
) -> Result<Vec<u8>, Failure> {
    let length = file.length();
    if length > most {
        return Err(Failure::new(
            FailureKind::Memory,
            format!("{name} has {length} bytes, more than the {most} read of such a file"),
        ));
    }
    Ok(file.read(0..length).await?.bytes)
}

/// The folder and the name of a base.
///
/// # Errors
/// An address or a hub id that is none; dropped files without a `config.json`.
pub(super) fn of_base<F: File>(
    source: BaseSource,
    files: Vec<F>,
) -> Result<(Folder<F>, String), Failure> {
    match source {
        BaseSource::Url { url, name } => Ok((Folder::at(&url)?, name)),
        BaseSource::Hub { repository } => {
            let url = hub_url(&repository)?;
            Ok((Folder::at(&url)?, repository))
        }
        BaseSource::Files { files: refs } => {
            let top = |name: &str| name.split_once('/').map(|(top, _)| top.to_owned());
            let name = refs.iter().find_map(|r| top(&r.name));
            let folder = Folder::dropped(refs, files, "config.json")?;
            Ok((folder, name.unwrap_or_else(|| "dropped base".to_owned())))
        }
    }
}

/// The folder of `owner/name[@revision]` on the hub.
///
/// # Errors
/// Not of that form.
fn hub_url(repository: &str) -> Result<String, Failure> {
    let (id, revision) = repository.split_once('@').unwrap_or((repository, "main"));
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
    };
    let named = id
        .split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name));
    if !named || !revision.split('/').all(part) {
        return Err(Failure::request(format!(
            "{repository:?} is no repository of the hub: expected owner/name, or owner/name@revision"
        )));
    }
    // A branch may have slashes in its name; in the address they are part of one step.
    Ok(format!(
        "{HUB}/{id}/resolve/{}",
        revision.replace('/', "%2F")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_become_addresses_and_nothing_else_does() {
        assert_eq!(
            hub_url("owner/na-me_1.0").unwrap(),
            "https://huggingface.co/owner/na-me_1.0/resolve/main"
        );
        assert_eq!(
            hub_url("o/n@refs/pr/1").unwrap(),
            "https://huggingface.co/o/n/resolve/refs%2Fpr%2F1"
        );
        for bad in [
            "name",
            "a/b/c",
            "../x",
            "a/b@",
            "a/b@../../x",
            "a/b?x=1",
            "a b/c",
            "",
        ] {
            assert!(hub_url(bad).is_err(), "{bad}");
        }
    }
}
