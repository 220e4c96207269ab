//! The merge itself: check, merge module by module, measure, put together.

use super::fidelity::{FidelityReport, ModuleFidelity, compare};
use super::group::{Group, Pair, groups};
use super::method::Space;
use super::record::receipt;
use super::source::check_together;
use super::{
    Masks, MergeError, MergeOptions, MergeRecord, Method, Source, cat, factors, union, updates,
};
use crate::adapters::{Adapter, LoraModule, Receipt};

/// Dense updates worked on at once: each takes the memory of a weight per adapter.
const DENSE_AT_ONCE: usize = 4;

/// Above this relative distance a merge on factors says that it only approximates.
const WORTH_SAYING: f64 = 0.01;

/// A merged adapter and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The adapter.
    pub adapter: Adapter,
    /// Its `qloom.json`.
    pub receipt: Receipt,
    /// How it was made, as in the receipt.
    pub record: MergeRecord,
    /// Its distance from the true weighted update.
    pub fidelity: FidelityReport,
    /// What the user should know, one sentence each.
    pub notes: Vec<String>,
}

/// Merges `sources` as `options` say. `progress` is called with (modules done, modules in all).
///
/// # Errors
/// A [`MergeError`]: options that cannot be meant, adapters that do not belong together, damaged values.
pub fn merge(
    sources: &[Source],
    options: &MergeOptions,
    progress: impl FnMut(usize, usize),
) -> Result<Merged, MergeError> {
    merge_with_masks(sources, options, &Masks::Seeded(options.seed), progress)
}

/// [`merge`] with given masks, for comparisons with implementations that draw others.
///
/// # Errors
/// As [`merge`]; [`MergeError::Mask`] where a mask is missing.
pub fn merge_with_masks(
    sources: &[Source],
    options: &MergeOptions,
    masks: &Masks,
    mut progress: impl FnMut(usize, usize),
) -> Result<Merged, MergeError> {
    options.check(sources.len())?;
    let mut notes = check_together(sources, options)?;
    let (saved, said) = union::saved(sources, options)?;
    notes.extend(said);
    let plan = plan(sources, options, &mut notes);
    let modules: Vec<Vec<LoraModule>> = sources
        .iter()
        .map(Source::modules)
        .collect::<Result<_, _>>()?;
    let groups = groups(sources, &modules, &options.weights)?;

    let most = modules.iter().flatten().map(|m| m.rank).max();
    let rank = plan.rank.or(most).unwrap_or(1);
    let job = |group: &Group<'_>| -> Result<(Pair, ModuleFidelity), MergeError> {
        let pair = merge_module(group, rank, sources, &plan, masks)?;
        let fidelity = compare(group, &pair)?;
        Ok((pair, fidelity))
    };
    let dense = !plan.exact && plan.method.truncates() && plan.method.prunes();
    let at_once = if dense { DENSE_AT_ONCE } else { usize::MAX };
    let (pairs, measured): (Vec<Pair>, Vec<ModuleFidelity>) =
        each(&groups, at_once, job, &mut progress)?
            .into_iter()
            .unzip();

    let fidelity = FidelityReport::new(measured);
    let rank = pairs.iter().map(|p| p.rank).max().unwrap_or(1);
    let paths: Vec<&str> = groups.iter().map(|g| g.path).collect();
    let config = union::config(sources, &paths, rank, options);
    let merged: Vec<LoraModule> = groups
        .iter()
        .zip(pairs)
        .map(|(group, pair)| module(group, pair.padded(rank)))
        .collect();
    let adapter = Adapter::new(config, &merged, saved)?;
    let record = MergeRecord::new(sources, &plan, rank, fidelity.overall);
    let (receipt, said) = receipt(sources, &record);
    notes.extend(said);
    notes.extend(approximation(&plan, &fidelity));
    Ok(Merged {
        adapter,
        receipt,
        record,
        fidelity,
        notes,
    })
}

/// The options as they will be carried out: one adapter has nothing to be combined with.
fn plan(sources: &[Source], options: &MergeOptions, notes: &mut Vec<String>) -> MergeOptions {
    let mut plan = options.clone();
    if sources.len() == 1 && !options.exact && options.rank.is_none() && options.clamp.is_none() {
        plan.method = Method::Linear;
        if options.method != Method::Linear {
            notes.push(format!(
                "one adapter has nothing to be combined with: its weight is applied, {} is not, as in PEFT",
                options.method
            ));
        }
    }
    let inherits = sources[0].adapter.config.use_rslora;
    if inherits && options.peft {
        notes.push(
            "as in PEFT, the result inherits rsLoRA and is sqrt(rank) times too large; the distances below leave that factor \
             out"
            .to_owned(),
        );
    }
    plan
}

fn merge_module(
    group: &Group<'_>,
    rank: usize,
    sources: &[Source],
    plan: &MergeOptions,
    masks: &Masks,
) -> Result<Pair, MergeError> {
    if plan.exact {
        return updates::exact(group, plan.rank, plan.clamp);
    }
    match plan.method.space() {
        Space::Stacked => Ok(cat::merge(group)),
        Space::Factors => factors::merge(group, sources, plan, masks),
        Space::Updates => updates::merge(group, rank, plan, masks),
    }
}

fn module(group: &Group<'_>, pair: Pair) -> LoraModule {
    let [out_features, in_features] = group.shape();
    LoraModule {
        path: group.path.to_owned(),
        a: pair.a,
        b: pair.b,
        rank: pair.rank,
        in_features,
        out_features,
        alpha: pair.rank as f64,
        scaling: 1.0,
        dropout: 0.0,
    }
}

/// What to say where the result is far from the weighted sum that a plain sum promises.
fn approximation(plan: &MergeOptions, fidelity: &FidelityReport) -> Option<String> {
    let error = fidelity.overall.relative_error?;
    let plain = plan.method == Method::Linear && !plan.exact;
    (plain && error > WORTH_SAYING).then(|| {
        format!(
            "linear sums the factors, which is not the sum of the updates: the result is {:.0} % away from it; exact or cat \
             give the sum itself",
            100.0 * error
        )
    })
}

type Job<T> = Result<T, MergeError>;

/// Runs `job` for every group, `at_once` side by side where there are threads; the order of results is that of `groups`.
#[cfg(not(target_arch = "wasm32"))]
fn each<T: Send>(
    groups: &[Group<'_>],
    at_once: usize,
    job: impl Fn(&Group<'_>) -> Job<T> + Sync,
    progress: &mut dyn FnMut(usize, usize),
) -> Job<Vec<T>> {
    use rayon::prelude::*;
    let chunk = (2 * rayon::current_num_threads()).min(at_once).max(1);
    let mut done = Vec::with_capacity(groups.len());
    for part in groups.chunks(chunk) {
        let results: Vec<Job<T>> = part.par_iter().map(&job).collect();
        for result in results {
            done.push(result?);
        }
        progress(done.len(), groups.len());
    }
    Ok(done)
}

#[cfg(target_arch = "wasm32")]
fn each<T>(
    groups: &[Group<'_>],
    _at_once: usize,
    job: impl Fn(&Group<'_>) -> Job<T>,
    progress: &mut dyn FnMut(usize, usize),
) -> Job<Vec<T>> {
    let mut done = Vec::with_capacity(groups.len());
    for group in groups {
        done.push(job(group)?);
        progress(done.len(), groups.len());
    }
    Ok(done)
}
