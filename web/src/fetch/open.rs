//! Opening a file: what there is of it, on the server and on the shelf.

use std::rc::Rc;

use crate::protocol::{Failure, FailureKind};
use crate::storage::{Record, Shelf, Store};

use super::remote::Source;
use super::retry::Retry;
use super::{Body, Cut, Head, Net, PIECE, Remote};

/// What is held of a file whose length nobody says.
const UNANNOUNCED_LIMIT: u64 = 64 << 20;

/// Opens the file at `url`; `None` where the server has none. `keep`: its pieces go to the shelf and come from there.
///
/// # Errors
/// No answer and nothing whole stored, or an answer that is none.
pub async fn open<N: Net, S: Store + 'static>(
    net: Rc<N>,
    shelf: Rc<Shelf<S>>,
    url: &str,
    keep: bool,
) -> Result<Option<Remote<N, S>>, Failure> {
    let stored = if keep { shelf.record(url).await } else { None };
    if let Some(mut record) = stored {
        match contact(net.as_ref(), url, Some(0..1)).await {
            Ok((head, _)) if absent(&head) => {
                shelf.forget(url).await;
                return Ok(None);
            }
            Ok((head, _))
                if head.status / 100 == 2 && record.is_of(head.total(), &head.validator()) =>
            {
                shelf.begin(&mut record, net.now_ms()).await;
                let source = if by_parts(&head) {
                    Source::Ranges
                } else {
                    Source::stream(None)
                };
                return Ok(Some(Remote::new(net, shelf, record, keep, source, None)));
            }
            // Another version, or an error: what is stored is of no use.
            Ok((head, _)) if head.status / 100 == 2 => shelf.forget(url).await,
            // No network, or a server in trouble: a whole copy serves as well.
            _ if record.is_complete() => {
                shelf.begin(&mut record, net.now_ms()).await;
                return Ok(Some(Remote::new(
                    net,
                    shelf,
                    record,
                    keep,
                    Source::Ranges,
                    None,
                )));
            }
            Ok((head, _)) => return Err(refused(url, &head)),
            Err(failure) => return Err(failure),
        }
    }

    let (head, body) = match contact(net.as_ref(), url, Some(0..PIECE)).await? {
        // An empty file has no first byte to ask for.
        (head, _) if head.status == 416 => contact(net.as_ref(), url, None).await?,
        // Some servers cut the parts out of a compressed copy, which is of no use: the whole file then.
        (head, _) if head.status == 206 && !by_parts(&head) => {
            contact(net.as_ref(), url, None).await?
        }
        answer => answer,
    };
    match head.status {
        _ if absent(&head) => Ok(None),
        206 => by_ranges(net, shelf, url, keep, &head, body)
            .await
            .map(Some),
        200 => as_stream(net, shelf, url, keep, &head, body)
            .await
            .map(Some),
        _ => Err(refused(url, &head)),
    }
}

/// A server that takes ranges; `body` is the first piece.
async fn by_ranges<N: Net, S: Store + 'static>(
    net: Rc<N>,
    shelf: Rc<Shelf<S>>,
    url: &str,
    keep: bool,
    head: &Head,
    mut body: N::Body,
) -> Result<Remote<N, S>, Failure> {
    let mut first = Vec::new();
    // A connection that ends here leaves the beginning of a piece, whose rest is asked for when it is read.
    let whole = read_up_to(&mut body, PIECE, &mut first).await.is_ok();
    drop(body);
    let total = match head.total() {
        Some(total) => total,
        // `Content-Range` is hidden from us. A short answer was the whole file; else the length of all that follows tells.
        None if whole && (first.len() as u64) < PIECE => first.len() as u64,
        None => {
            let (rest, _) = contact(net.as_ref(), url, Some(0..u64::MAX)).await?;
            rest.content_length
                .filter(|_| rest.status == 206)
                .ok_or_else(|| unmeasured(url))?
        }
    };
    let record = begin(&shelf, net.as_ref(), url, total, head, keep).await;
    first.truncate(usize::try_from(record.range(0).end).unwrap_or(usize::MAX));
    Ok(Remote::new(
        net,
        shelf,
        record,
        keep,
        Source::Ranges,
        Some(first),
    ))
}

/// A server that sends the whole file whatever is asked.
async fn as_stream<N: Net, S: Store + 'static>(
    net: Rc<N>,
    shelf: Rc<Shelf<S>>,
    url: &str,
    keep: bool,
    head: &Head,
    mut body: N::Body,
) -> Result<Remote<N, S>, Failure> {
    if let Some(total) = head.total().filter(|total| *total > PIECE) {
        let record = begin(&shelf, net.as_ref(), url, total, head, keep).await;
        return Ok(Remote::new(
            net,
            shelf,
            record,
            keep,
            Source::stream(Some(body)),
            None,
        ));
    }
    let mut all = Vec::new();
    if let Err(cut) = read_up_to(&mut body, UNANNOUNCED_LIMIT + 1, &mut all).await {
        return Err(lost(url, &cut));
    }
    if all.len() as u64 > UNANNOUNCED_LIMIT {
        return Err(unmeasured(url));
    }
    let record = begin(&shelf, net.as_ref(), url, all.len() as u64, head, keep).await;
    Ok(Remote::new(
        net,
        shelf,
        record,
        keep,
        Source::Whole,
        Some(all),
    ))
}

async fn begin<S: Store>(
    shelf: &Shelf<S>,
    net: &impl Net,
    url: &str,
    total: u64,
    head: &Head,
    keep: bool,
) -> Record {
    let mut record = Record::new(url, total, &head.validator(), PIECE);
    if keep {
        shelf.begin(&mut record, net.now_ms()).await;
    }
    record
}

/// Appends what comes to `bytes`, until there are `limit` or more or the body ends.
pub(super) async fn read_up_to(
    body: &mut impl Body,
    limit: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), Cut> {
    while (bytes.len() as u64) < limit {
        match body.next().await? {
            Some(more) => bytes.extend_from_slice(&more),
            None => break,
        }
    }
    Ok(())
}

/// Asks until there is an answer that asking again would not change.
async fn contact<N: Net>(
    net: &N,
    url: &str,
    range: Option<std::ops::Range<u64>>,
) -> Result<(Head, N::Body), Failure> {
    let mut retry = Retry::first_contact();
    loop {
        let answer = net.get(url, range.clone()).await;
        let wished = match &answer {
            Ok((head, _)) if head.is_passing() => head.retry_after,
            Ok(_) => return answer.map_err(|cut| lost(url, &cut)),
            Err(_) => None,
        };
        match (retry.pause(wished), answer) {
            (Some(ms), _) => net.sleep(ms).await,
            (None, Ok(answer)) => return Ok(answer),
            (None, Err(cut)) => return Err(unreachable(url, &cut)),
        }
    }
}

/// Whether an answer is a part of the file's own bytes.
fn by_parts(head: &Head) -> bool {
    head.status == 206 && head.plain()
}

fn absent(head: &Head) -> bool {
    matches!(head.status, 404 | 410)
}

fn network(message: String) -> Failure {
    Failure {
        kind: FailureKind::Network,
        message,
    }
}

fn unreachable(url: &str, cut: &Cut) -> Failure {
    network(format!(
        "{url} cannot be reached ({}): there is no network, no such server, or the server does not let other sites read it \
         (CORS: it has to send Access-Control-Allow-Origin)",
        cut.0
    ))
}

pub(super) fn lost(url: &str, cut: &Cut) -> Failure {
    network(format!(
        "the connection to {url} was lost ({}) and did not come back; what has arrived is kept where the browser allows it: \
         load it again to go on from there",
        cut.0
    ))
}

pub(super) fn refused(url: &str, head: &Head) -> Failure {
    let why = match head.status {
        401 | 403 => "it is not public",
        429 => "the server is asked too often; wait a little",
        500.. => "the server is in trouble; try again later",
        _ => "that is no file",
    };
    network(format!("{url}: the server answered {}: {why}", head.status))
}

fn unmeasured(url: &str) -> Failure {
    network(format!(
        "{url}: the server says neither how long the file is nor sends parts of it. It has to answer range requests (and let \
         other sites see Content-Range: Access-Control-Expose-Headers), or to send Content-Length"
    ))
}
