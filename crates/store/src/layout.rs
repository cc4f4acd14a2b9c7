//! Where everything lies inside the store's folder, and the version of that arrangement. It refuses to
//! know what the files hold.

use std::path::{Path, PathBuf};

use crate::digest::{ContentHash, RowScope, StageKey};
use crate::disk;
use crate::error::StoreError;
use crate::runs::RunId;
use crate::tags::TagName;

/// Version of the folder's layout. An older program refuses a newer store; a newer program upgrades an older
/// store at its first write. Version 1 is the first.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_PREFIX: &str = "sluice-store ";
const FORMAT: &str = "format";
const GITIGNORE: &str = ".gitignore";
const STAT_CACHE: &str = "stat-cache.json";
const FOLDERS: [&str; 11] =
    ["objects", "checkpoints", "records", "divergences", "rows", "resume", "runs", "tags", "damaged", "locks", "tmp"];

/// Whether a name is one under which a file is written before it gets its own: `.NAME.PID.N`.
pub(crate) fn is_private(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u64>().is_ok());
    name.starts_with('.') && is_number(parts.next()) && is_number(parts.next())
}

/// Whether a name stands in the store's folder itself.
pub(crate) fn is_of_root(name: &str) -> bool {
    FOLDERS.contains(&name) || [FORMAT, GITIGNORE, STAT_CACHE].contains(&name)
}

/// What a folder holds, by name, of which `read` makes something; sorted by name.
fn named<T>(folder: &Path, read: impl Fn(&str) -> Option<T>) -> Result<Vec<(T, PathBuf)>, StoreError> {
    let mut names = disk::list(folder)?;
    names.sort();
    Ok(names.iter().filter_map(|name| Some((read(name)?, folder.join(name)))).collect())
}

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the store at `root`, whose version is checked when the folder exists.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let layout = Self { root: root.to_owned() };
        let path = layout.format();
        let Some(bytes) = disk::get(&path)? else {
            let names = layout.names()?;
            // Somebody has just created it.
            if names.iter().any(|name| name == FORMAT) {
                return Self::open(root);
            }
            return layout.refuse_taken(&names).map(|()| layout);
        };
        let version = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.trim_end().strip_prefix(FORMAT_PREFIX))
            .and_then(|text| text.parse::<u32>().ok());
        match version {
            Some(found) if found > FORMAT_VERSION => {
                Err(StoreError::NewerFormat { root: layout.root, found, supported: FORMAT_VERSION })
            }
            Some(_) => Ok(layout),
            None => Err(StoreError::NotAStore { path }),
        }
    }

    /// A layout in a folder that is the caller's own.
    pub fn private(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// What stands in the folder; nothing if there is none, or a file in its place.
    fn names(&self) -> Result<Vec<String>, StoreError> {
        if self.root.is_file() { Ok(Vec::new()) } else { disk::list(&self.root) }
    }

    /// Refuses to spread a store over a folder that has something else in it. What an interrupted [`Layout::create`]
    /// left is no such thing.
    fn refuse_taken(&self, names: &[String]) -> Result<(), StoreError> {
        let taken = |what| Err(StoreError::Taken { root: self.root.clone(), what });
        if self.root.is_file() {
            return taken("a file");
        }
        let is_ours = |name: &String| FOLDERS.contains(&name.as_str()) || name.starts_with('.') || name == STAT_CACHE;
        if names.iter().all(is_ours) { Ok(()) } else { taken("a folder with other files in it") }
    }

    /// The layout of a store whose version is not looked at.
    pub fn unchecked(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether a folder is a store by its folders, whatever its format file says.
    pub fn looks_like_one(root: &Path) -> bool {
        ["objects", "records", "runs"].iter().all(|folder| root.join(folder).is_dir())
    }

    /// What the format file says.
    pub fn format_text() -> Vec<u8> {
        format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n").into_bytes()
    }

    /// Create the folders and the format file. Called before the first write, so that opening, planning and
    /// reading never write.
    pub fn create(&self) -> Result<(), StoreError> {
        // A user may have taken one of the folders away.
        if self.format().exists() && FOLDERS.iter().all(|folder| self.root.join(folder).is_dir()) {
            return Ok(());
        }
        self.create_folders()?;
        // A version-control system should not offer to take gigabytes of artifacts along.
        disk::write_if_absent(&self.root.join(GITIGNORE), b"*\n")?;
        disk::write_if_absent(&self.format(), &Self::format_text())?;
        Ok(())
    }

    /// Create the folders alone.
    pub fn create_folders(&self) -> Result<(), StoreError> {
        FOLDERS.iter().try_for_each(|folder| disk::create_folder(&self.root.join(folder)))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is a store, as far as its format file says.
    pub fn exists(&self) -> bool {
        self.format().exists()
    }

    pub fn format(&self) -> PathBuf {
        self.root.join(FORMAT)
    }

    pub fn object(&self, hash: ContentHash) -> PathBuf {
        let hex = hash.to_string();
        self.root.join("objects").join(&hex[..2]).join(&hex[2..])
    }

    pub fn checkpoint(&self, hash: ContentHash) -> PathBuf {
        self.root.join("checkpoints").join(hash.to_string())
    }

    pub fn record(&self, key: StageKey) -> PathBuf {
        self.root.join("records").join(format!("{key}.json"))
    }

    /// The `n`-th different result for a key, counted from 1.
    pub fn divergence(&self, key: StageKey, n: usize) -> PathBuf {
        self.root.join("divergences").join(format!("{key}.{n}.json"))
    }

    /// The journal of the rows of a scope.
    pub fn rows(&self, scope: RowScope) -> PathBuf {
        self.root.join("rows").join(scope.to_string())
    }

    /// What there is of a key's unfinished work.
    pub fn resume(&self, key: StageKey) -> PathBuf {
        self.root.join("resume").join(key.to_string())
    }

    /// The keys with unfinished work.
    pub fn resumes(&self) -> Result<Vec<StageKey>, StoreError> {
        Ok(disk::list(&self.root.join("resume"))?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    pub fn run(&self, run: RunId) -> PathBuf {
        self.runs().join(format!("{run}.json"))
    }

    pub fn lock(&self, key: StageKey) -> PathBuf {
        self.root.join("locks").join(key.to_string())
    }

    /// The lock that says that a run is alive.
    pub fn run_lock(&self, run: RunId) -> PathBuf {
        self.root.join("locks").join(run.to_string())
    }

    /// The lock of those who add, against those who take away.
    pub fn store_lock(&self) -> PathBuf {
        self.root.join("locks").join("store")
    }

    pub fn tags(&self) -> PathBuf {
        self.root.join("tags")
    }

    pub fn tag(&self, name: &TagName) -> PathBuf {
        self.tags().join(format!("{name}.json"))
    }

    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub fn stat_cache(&self) -> PathBuf {
        self.root.join(STAT_CACHE)
    }

    pub fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    pub fn records_folder(&self) -> PathBuf {
        self.root.join("records")
    }

    pub fn divergences_folder(&self) -> PathBuf {
        self.root.join("divergences")
    }

    /// All records with their keys, sorted.
    pub fn records(&self) -> Result<Vec<(StageKey, PathBuf)>, StoreError> {
        named(&self.records_folder(), |name| name.strip_suffix(".json")?.parse().ok())
    }

    /// All divergences with their keys, sorted.
    pub fn divergences(&self) -> Result<Vec<(StageKey, PathBuf)>, StoreError> {
        named(&self.divergences_folder(), |name| {
            let (key, n) = name.strip_suffix(".json")?.split_once('.')?;
            n.parse::<usize>().ok()?;
            key.parse().ok()
        })
    }

    /// All tables with their digests, sorted.
    pub fn objects(&self) -> Result<Vec<(ContentHash, PathBuf)>, StoreError> {
        let mut objects = Vec::new();
        for (prefix, folder) in named(&self.root.join("objects"), |name| (name.len() == 2).then(|| name.to_owned()))? {
            objects.extend(named(&folder, |name| format!("{prefix}{name}").parse().ok())?);
        }
        Ok(objects)
    }

    /// All checkpoints with their digests, sorted.
    pub fn checkpoints(&self) -> Result<Vec<(ContentHash, PathBuf)>, StoreError> {
        named(&self.root.join("checkpoints"), |name| name.parse().ok())
    }

    /// All row journals with their scopes, sorted.
    pub fn scopes(&self) -> Result<Vec<(RowScope, PathBuf)>, StoreError> {
        named(&self.root.join("rows"), |name| name.parse().ok())
    }

    /// Lock files of keys and runs, sorted. That of the store is none of them.
    pub fn locks(&self) -> Result<Vec<PathBuf>, StoreError> {
        let is_known = |name: &str| name.parse::<StageKey>().is_ok() || name.parse::<RunId>().is_ok();
        let locks = named(&self.root.join("locks"), |name| is_known(name).then_some(()))?;
        Ok(locks.into_iter().map(|((), path)| path).collect())
    }

    /// Files and folders that somebody wrote, or is writing, to give them another name: `.NAME.PID.N`.
    pub fn private_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let prefixes = named(&self.root.join("objects"), |name| (name.len() == 2).then_some(()))?;
        let folders = ["", "records", "divergences", "runs", "tags", "checkpoints"].map(|name| self.root.join(name));
        let mut found = Vec::new();
        for folder in folders.into_iter().chain(prefixes.into_iter().map(|((), path)| path)) {
            found.extend(named(&folder, |name| is_private(name).then_some(()))?.into_iter().map(|((), path)| path));
        }
        Ok(found)
    }

    /// Attempt folders with their keys, alive or dead. Only the holder of a key's lock may judge them dead.
    pub fn attempts(&self) -> Result<Vec<(StageKey, PathBuf)>, StoreError> {
        let names = disk::list(&self.tmp())?;
        let keyed = |name: &String| Some((name.split('.').next()?.parse().ok()?, self.tmp().join(name)));
        Ok(names.iter().filter_map(keyed).collect())
    }
}
