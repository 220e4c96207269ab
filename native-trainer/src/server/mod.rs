//! A static server for the page, on loopback: what any host does, plus the headers WebAssembly and WebGPU need.
//!
//! Files come from one folder through `tower-http` (types, ranges, conditional requests, `.br` and `.gz` beside a file); [`headers`]
//! adds cross-origin isolation, caching by name, and refuses hidden files. Nothing is ever written or run.

pub(crate) mod built;
mod headers;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::routing::any;
use tokio::net::TcpListener;
use tower_http::services::{ServeDir, ServeFile};

use crate::files::listing;
use crate::progress::interrupt::Interrupt;

/// How often a Ctrl-C is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The page that is shown at `/` where there is no `index.html`: a run's.
const REPORT: &str = "report.html";

/// A folder to serve.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    folder: PathBuf,
    home: Option<PathBuf>,
}

impl Site {
    /// The site in `folder`: its `index.html` is the home page, or else its `report.html`.
    ///
    /// # Errors
    /// No such folder, or one without a page.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(anyhow!(
                "there is no folder {} to serve: name one, such as a site that `trainer publish` wrote to or a run's folder",
                folder.display()
            ));
        }
        let (index, report) = (folder.join("index.html"), folder.join(REPORT));
        if !index.is_file() && !report.is_file() {
            return Err(anyhow!(
                "{} has no index.html and no report.html to show; it holds {}",
                folder.display(),
                listing(folder, 8)
            ));
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            home: (!index.is_file()).then_some(report),
        })
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn router(&self) -> Router {
        let files = ServeDir::new(&self.folder)
            .precompressed_br()
            .precompressed_gzip()
            .fallback(any(|| async { (StatusCode::NOT_FOUND, "not found\n") }));
        let mut router = Router::new();
        if let Some(home) = &self.home {
            router = router.route_service("/", ServeFile::new(home));
        }
        router.fallback_service(files).layer(from_fn(headers::add))
    }
}

/// Serves `site` at `address` until Ctrl-C. `ready` gets the address once connections are taken, which says the port
/// that was free where 0 was asked for.
///
/// # Errors
/// The port cannot be opened.
pub(crate) fn serve(
    site: &Site,
    address: SocketAddr,
    stop: &Interrupt,
    ready: impl FnOnce(SocketAddr) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot start the server")?;
    let stop = stop.clone();
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot listen on {address}: another program may have the port; --port 0 takes a free one"
            )
        })?;
        ready(listener.local_addr()?)?;
        let stopped = async move {
            while !stop.requested() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        axum::serve(listener, site.router())
            .with_graceful_shutdown(stopped)
            .await
            .context("the server failed")
    })
}
