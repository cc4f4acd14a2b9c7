//! Which runs are kept, and the keys they name. It owns the policy, and refuses to look at what the keys lead to.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::digest::StageKey;
use crate::disk;
use crate::error::StoreError;
use crate::gc::{GcPolicy, is_young};
use crate::names::Names;
use crate::runs::{RunId, RunManifest};
use crate::store::Store;

/// What is kept for its own sake.
pub(super) struct Roots {
    /// Keys that kept runs and tags name.
    pub keys: HashSet<StageKey>,
    /// Runs that go, each with its pipeline.
    pub dropped: Vec<(RunId, String)>,
    pub n_kept: usize,
    /// Of all runs, also those that go.
    pub names: Names,
}

impl Roots {
    pub fn find(store: &Store, policy: &GcPolicy) -> Result<Self, StoreError> {
        let mut manifests = BTreeMap::new();
        for run in store.runs()? {
            // One that does not read may name anything.
            if let Some(manifest) = store.run(run)? {
                manifests.insert(run, manifest);
            }
        }
        let mut tagged = BTreeSet::new();
        let mut of_tags = Vec::new();
        for name in store.tag_names()? {
            if let Some(tag) = store.tagged(&name)? {
                tagged.insert(tag.run());
                of_tags.push(tag.manifest);
            }
        }
        let kept = kept(store, policy, &manifests, &tagged)?;
        let mut keys: HashSet<StageKey> = of_tags.iter().flat_map(keys_of).collect();
        keys.extend(manifests.values().filter(|manifest| kept.contains(&manifest.run)).flat_map(keys_of));
        keys.extend(last_results(store, &manifests));
        let mut names = Names::default();
        of_tags.iter().chain(manifests.values()).for_each(|manifest| names.take(manifest));
        let dropped = manifests.into_values().filter(|manifest| !kept.contains(&manifest.run));
        let dropped = dropped.map(|manifest| (manifest.run, manifest.pipeline)).collect();
        Ok(Self { keys, dropped, n_kept: kept.len(), names })
    }
}

fn keys_of(manifest: &RunManifest) -> impl Iterator<Item = StageKey> + '_ {
    // The outcome of a data test is a record of its own, with the rows at fault.
    manifest.stages.iter().flat_map(|stage| stage.key.into_iter().chain(stage.tests.iter().map(|test| test.key)))
}

/// The runs that stay: all of them without a policy. With one: those it names, the last ones of each pipeline and profile,
/// tagged and living ones, and what is too young to go.
fn kept(
    store: &Store,
    policy: &GcPolicy,
    manifests: &BTreeMap<RunId, RunManifest>,
    tagged: &BTreeSet<RunId>,
) -> Result<BTreeSet<RunId>, StoreError> {
    let GcPolicy { keep_runs, keep_since_unix_ms, keep_written_since: _ } = *policy;
    if keep_runs.is_none() && keep_since_unix_ms.is_none() {
        return Ok(manifests.keys().copied().collect());
    }
    let mut kept: BTreeSet<RunId> = tagged.iter().filter(|run| manifests.contains_key(*run)).copied().collect();
    for runs in pipelines(manifests).values() {
        kept.extend(last_runs(runs).map(|manifest| manifest.run));
        if let Some(n) = keep_runs {
            kept.extend(runs.iter().rev().take(n).map(|manifest| manifest.run));
        }
    }
    // By number a run is younger than all before it. A clock that was set back makes it look older, and then it is taken
    // for as young as the youngest of those.
    let mut started = 0;
    for manifest in manifests.values() {
        started = started.max(manifest.started_unix_ms);
        let is_recent = keep_since_unix_ms.is_some_and(|since| started >= since);
        if is_recent || store.is_alive(manifest.run) || is_young(&store.layout().run(manifest.run), policy) {
            kept.insert(manifest.run);
        }
    }
    Ok(kept)
}

/// The runs of each pipeline and profile, ascending.
fn pipelines(manifests: &BTreeMap<RunId, RunManifest>) -> BTreeMap<(&str, Option<&str>), Vec<&RunManifest>> {
    let mut pipelines: BTreeMap<_, Vec<&RunManifest>> = BTreeMap::new();
    for manifest in manifests.values() {
        pipelines.entry((manifest.pipeline.as_str(), manifest.profile.as_deref())).or_default().push(manifest);
    }
    pipelines
}

/// The last run, and the last over all stages: one of a few stages does not stand for the pipeline.
fn last_runs<'m>(runs: &[&'m RunManifest]) -> impl Iterator<Item = &'m RunManifest> {
    let whole = runs.iter().rev().find(|manifest| manifest.targets.is_empty());
    runs.last().into_iter().chain(whole).copied()
}

/// For each stage of the last runs that has no result there, because the run failed or was stopped, the last result it
/// had: nobody loses a result to a run that went wrong.
fn last_results(store: &Store, manifests: &BTreeMap<RunId, RunManifest>) -> Vec<StageKey> {
    let has_record = |key: &StageKey| disk::exists(&store.layout().record(*key));
    let mut results = Vec::new();
    for runs in pipelines(manifests).values() {
        for manifest in last_runs(runs) {
            let lacking = manifest.stages.iter().filter(|stage| !stage.key.as_ref().is_some_and(has_record));
            for stage in lacking {
                let keys = runs.iter().rev().filter_map(|earlier| earlier.key_of(&stage.name));
                results.extend(keys.into_iter().find(has_record));
            }
        }
    }
    results
}
