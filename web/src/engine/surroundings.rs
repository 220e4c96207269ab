//! What the engine needs of where it runs: a clock, pauses, files by ranges, a GPU, and someone to tell events to.
//!
//! The worker implements this in the browser over `fetch`, storage and `postMessage`; tests implement it natively over
//! folders and the CPU. Everything runs on one thread, so no future here is `Send`.

use std::ops::Range;

use crate::protocol::{Event, Failure, Message};

/// Where an engine runs.
// One thread, one caller: nobody needs to name these futures or to send them.
#[allow(async_fn_in_trait)]
pub trait Surroundings {
    /// An open file: of a URL, or an attachment of a request.
    type File: File;

    /// Milliseconds on a steady clock.
    fn now_ms(&self) -> f64;

    /// Lets everything else run: messages that wait (a `Stop` among them), timers, the network. Called between tokens,
    /// steps, batches and parts of a base.
    async fn pause(&self);

    /// Tells an event, with bytes that travel beside it.
    fn emit(&self, message: Message<Event>, attachments: Vec<Vec<u8>>);

    /// What the GPU can do, asked before it is opened.
    ///
    /// # Errors
    /// Why there is none, as a sentence for the visitor.
    async fn gpu(&self) -> Result<Gpu, String>;

    /// Opens the file at `url`; `None` where the server says there is none (404, 410). Only as much is downloaded as is
    /// read. `keep`: what is read may be stored for the next time and be served from there, also when a download was cut.
    ///
    /// # Errors
    /// The network, the server, or a stored copy that cannot be used and cannot be fetched again.
    async fn open(&self, url: &str, keep: bool) -> Result<Option<Self::File>, Failure>;

    /// Forgets what is stored of `url`, because it turned out to be damaged; the next `open` downloads it again.
    async fn forget(&self, url: &str);

    /// Removes everything stored; returns how many bytes that freed.
    ///
    /// # Errors
    /// Storage that cannot be changed.
    async fn clear(&self) -> Result<u64, Failure>;
}

/// A file that is read by ranges.
#[allow(async_fn_in_trait)]
pub trait File {
    /// Its length in bytes.
    fn length(&self) -> u64;

    /// The bytes of `range`, all of them.
    ///
    /// The engine reads a weight file in order of its parts, once; a network implementation does well to fetch ahead in
    /// pieces of 4 to 16 MiB, and to retry where it was cut off.
    ///
    /// # Errors
    /// The network, or bytes that are not what they should be.
    async fn read(&self, range: Range<u64>) -> Result<Piece, Failure>;
}

/// Bytes of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The bytes asked for.
    pub bytes: Vec<u8>,
    /// How many of them came over the network just now; the others were stored or at hand.
    pub downloaded: u64,
}

/// A GPU as the browser describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// What the visitor may know it by.
    pub name: String,
    /// `shader-f16`.
    pub f16: bool,
    /// Bytes of the largest buffer that a shader can use whole: the smaller of `maxBufferSize` and
    /// `maxStorageBufferBindingSize`.
    pub max_buffer: u64,
}
