//! One model from the hub into the local cache, in the layout of the hub's own tools, so that all of them share it.
//!
//! Owns what is asked for in which order, and what each answer means to a user. A token is sent to the hub alone, and not to
//! the host that it may send us on to. A file goes on where an earlier fetch stopped, and it is a file of the cache once
//! its length and its digest are those that the hub tells.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use sluice_lm::checkpoint::{HubError, HubModel, Snapshot, shards};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use crate::hub::sum::{Digest, Sum};
use crate::hub::{Hub, Step, Tell};
use crate::secret::Found;

/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(30);
/// Time within which something has to come over a connection.
const SILENCE: Duration = Duration::from_secs(60);
/// Attempts in a row that bring nothing, before a fetch is given up.
const MAX_IDLE_ATTEMPTS: u32 = 4;
/// Time before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 256 << 10;
/// Far above any list of files.
const MAX_LIST_BYTES: u64 = 64 << 20;

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("`{model}`: {endpoint} cannot be reached; what is in the local cache works without it")]
    Unreachable { model: HubModel, endpoint: String, source: Box<ureq::Error> },
    #[error("`{model}`: {message}")]
    Refused { model: HubModel, message: String },
    #[error("`{model}`: the hub answers {status} for {what}; try again later")]
    Status { model: HubModel, what: String, status: StatusCode },
    #[error("`{model}`: the hub's list of files {message}")]
    List { model: HubModel, message: String },
    #[error("`{model}`: it has no weights in safetensors ({SINGLE}, or shards with {INDEX}); it has {}", listed(found))]
    NoWeights { model: HubModel, found: Vec<String> },
    #[error("`{model}`: {file} ended after {done} of {bytes} bytes; run again, and it goes on from there")]
    Cut { model: HubModel, file: String, done: u64, bytes: u64, source: Option<io::Error> },
    #[error("`{model}`: {file} should have {bytes} bytes by the hub's list, and is sent with {found}")]
    Length { model: HubModel, file: String, bytes: u64, found: u64 },
    #[error(
        "`{model}`: {file} came with the digest {found}, and should have {expected} by the hub's list; it is thrown away: \
         run again"
    )]
    Content { model: HubModel, file: String, expected: String, found: String },
    #[error("{operation} {}", path.display())]
    Disk { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cache(#[from] HubError),
}

/// Fetches what the cache lacks of a model.
pub fn fetch(hub: &Hub, model: &HubModel, token: Option<&Found>, tell: Tell<'_>) -> Result<Snapshot, FetchError> {
    let order = Order::new(hub, model, token);
    let list = order.list()?;
    let files = order.wanted(&list, tell)?;
    let bytes_there = files.iter().map(|file| order.bytes_there(file)).sum();
    tell(Step::Begin {
        model,
        commit: &list.commit,
        n_files: files.len(),
        bytes: files.iter().map(|file| file.bytes).sum(),
        bytes_there,
        folder: order.repository.clone(),
    });
    let mut done = 0;
    for file in &files {
        order.obtain(&list.commit, file, done, tell)?;
        done += file.bytes;
        tell(Step::Bytes { done });
    }
    // The name of the revision comes last: until then there is no snapshot by that name.
    if model.revision() != list.commit {
        order.name(&list.commit)?;
    }
    tell(Step::End);
    Ok(hub.find(model)?)
}

/// One model, and whom to ask for it.
struct Order<'a> {
    model: &'a HubModel,
    endpoint: &'a str,
    token: Option<&'a Found>,
    agent: Agent,
    /// The cache's `hub` folder.
    cache: &'a Path,
    /// The model's folder in it.
    repository: PathBuf,
}

/// What the hub says of a model.
struct List {
    commit: String,
    files: Vec<Remote>,
    /// The names of all files.
    names: Vec<String>,
}

/// A file of the hub.
struct Remote {
    name: String,
    bytes: u64,
    digest: Digest,
}

impl<'a> Order<'a> {
    fn new(hub: &'a Hub, model: &'a HubModel, token: Option<&'a Found>) -> Self {
        let config = Agent::config_builder()
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // A packed body has another length than the file, and cannot be gone on with.
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build();
        let repository = model.repository_folder(&hub.cache);
        Order { model, endpoint: &hub.endpoint, token, agent: config.into(), cache: &hub.cache, repository }
    }

    /// The files of the revision, at the commit it stands for now.
    fn list(&self) -> Result<List, FetchError> {
        let odd = |message: String| FetchError::List { model: self.model.clone(), message };
        let revision = self.model.revision().replace('/', "%2F");
        let url = format!("{}/api/models/{}/revision/{revision}?blobs=true", self.endpoint, self.model.id());
        let response = self.expect_success(self.get(&url, None)?, "the list of its files")?;
        let body = response.into_body().into_with_config().limit(MAX_LIST_BYTES).read_to_string();
        let text = body.map_err(|source| self.unreachable(source))?;
        let told: Value = serde_json::from_str(&text).map_err(|error| odd(format!("is not JSON: {error}")))?;
        let commit = told["sha"].as_str().filter(|sha| Digest::parse(sha).is_some());
        let commit = commit.ok_or_else(|| odd("names no commit".to_owned()))?.to_owned();
        let entries = told["siblings"].as_array().ok_or_else(|| odd("has no files".to_owned()))?;
        let names = entries.iter().filter_map(|entry| entry["rfilename"].as_str()).map(str::to_owned).collect();
        let mut files = Vec::new();
        for entry in entries {
            let Some(name) = entry["rfilename"].as_str().filter(|name| is_of_a_model(name)) else { continue };
            let large = &entry["lfs"];
            let bytes = large["size"].as_u64().or(entry["size"].as_u64());
            let digest = large["sha256"].as_str().or(entry["blobId"].as_str()).and_then(Digest::parse);
            let (Some(bytes), Some(digest)) = (bytes, digest) else {
                return Err(odd(format!("says no size and digest of {name}")));
            };
            files.push(Remote { name: name.to_owned(), bytes, digest });
        }
        Ok(List { commit, files, names })
    }

    /// The files that a model is read from: all that describe it, and its weights. An index says which those are, so it
    /// is fetched here.
    fn wanted<'l>(&self, list: &'l List, tell: Tell<'_>) -> Result<Vec<&'l Remote>, FetchError> {
        let find = |name: &str| list.files.iter().find(|file| file.name == name);
        let weights: Vec<&Remote> = match (find(SINGLE), find(INDEX)) {
            (Some(single), _) => vec![single],
            (None, Some(index)) => {
                self.obtain(&list.commit, index, 0, tell)?;
                let text = fs::read_to_string(self.blob(index)).map_err(disk("read", &self.blob(index)))?;
                let named = shards(&text);
                let absent = named.iter().find(|name| find(name).is_none());
                if let Some(absent) = absent {
                    let message = format!("lacks {absent}, which {INDEX} names");
                    return Err(FetchError::List { model: self.model.clone(), message });
                }
                named.iter().filter_map(|name| find(name)).collect()
            }
            (None, None) => Vec::new(),
        };
        if weights.is_empty() {
            return Err(FetchError::NoWeights { model: self.model.clone(), found: list.names.clone() });
        }
        let is_weights = |file: &&Remote| file.name.ends_with(".safetensors");
        Ok(list.files.iter().filter(|file| !is_weights(file)).chain(weights).collect())
    }

    /// Has a file in the snapshot of a commit. `before` counts the bytes of the files before it.
    fn obtain(&self, commit: &str, file: &Remote, before: u64, tell: Tell<'_>) -> Result<(), FetchError> {
        let blob = self.blob(file);
        if !self.is_there(file) {
            make_folder(parent(&blob))?;
            let _lock = self.lock(file, tell)?;
            if !self.is_there(file) {
                tell(Step::File { name: &file.name });
                Transfer::new(self, commit, file, before, tell)?.run()?;
            }
        }
        let snapshot = self.repository.join("snapshots").join(commit);
        make_folder(&snapshot)?;
        let pointer = snapshot.join(&file.name);
        if pointer.exists() {
            return Ok(());
        }
        // A pointer to nothing is what a cache that was cleaned by hand leaves.
        let _ = fs::remove_file(&pointer);
        let target = Path::new("../../blobs").join(file.digest.hex());
        match std::os::unix::fs::symlink(target, &pointer) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked.map_err(disk("link", &pointer)),
        }
    }

    /// Waits for whoever else is fetching the file. The lock is the operating system's, and that of the hub's own tools.
    fn lock(&self, file: &Remote, tell: Tell<'_>) -> Result<File, FetchError> {
        let folder = self.repository.file_name().unwrap_or_default();
        let path = self.cache.join(".locks").join(folder).join(format!("{}.lock", file.digest.hex()));
        make_folder(parent(&path))?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(disk("open the lock", &path))?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => tell(Step::Waits { name: &file.name }),
            Err(TryLockError::Error(source)) => return Err(disk("lock", &path)(source)),
        }
        lock.lock().map_err(disk("lock", &path))?;
        Ok(lock)
    }

    fn blob(&self, file: &Remote) -> PathBuf {
        self.repository.join("blobs").join(file.digest.hex())
    }

    /// Where a file's bytes are gathered; the hub's own tools use the same name, and go on from it too.
    fn partial(&self, file: &Remote) -> PathBuf {
        self.blob(file).with_extension("incomplete")
    }

    fn is_there(&self, file: &Remote) -> bool {
        fs::metadata(self.blob(file)).is_ok_and(|blob| blob.len() == file.bytes)
    }

    fn bytes_there(&self, file: &Remote) -> u64 {
        if self.is_there(file) {
            return file.bytes;
        }
        fs::metadata(self.partial(file)).map_or(0, |partial| partial.len().min(file.bytes))
    }

    /// Writes down what the revision stands for. Readers see a whole commit or the one before.
    fn name(&self, commit: &str) -> Result<(), FetchError> {
        let file = self.repository.join("refs").join(self.model.revision());
        make_folder(parent(&file))?;
        let private = self.repository.join(format!(".ref.{}", std::process::id()));
        fs::write(&private, commit).map_err(disk("write", &private))?;
        fs::rename(&private, &file).map_err(disk("write", &file))
    }

    /// Asks for what is at an address, from a byte on.
    fn get(&self, url: &str, from: Option<u64>) -> Result<Response<Body>, FetchError> {
        let mut request = self.agent.get(url);
        if let Some(Found { secret, .. }) = self.token {
            request = request.header("Authorization", format!("Bearer {}", secret.reveal()));
        }
        if let Some(from) = from {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|source| self.unreachable(source))
    }

    fn unreachable(&self, source: ureq::Error) -> FetchError {
        let (model, endpoint) = (self.model.clone(), self.endpoint.to_owned());
        FetchError::Unreachable { model, endpoint, source: Box::new(source) }
    }

    /// The response, or what its status means.
    fn expect_success(&self, response: Response<Body>, what: &str) -> Result<Response<Body>, FetchError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        // The hub's own word for it, such as `GatedRepo`.
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let model = self.model.clone();
        Err(match status.as_u16() {
            401 | 403 => FetchError::Refused { model, message: self.refusal(status, code) },
            404 => FetchError::Refused { model, message: self.absence(what, code) },
            _ => FetchError::Status { model, what: what.to_owned(), status },
        })
    }

    /// What to do about an access that is refused.
    fn refusal(&self, status: StatusCode, code: Option<&str>) -> String {
        let (status, page) = (status.as_u16(), format!("{}/{}", self.endpoint, self.model.id()));
        let gated = code == Some("GatedRepo");
        match self.token {
            Some(Found { origin, .. }) => format!(
                "the hub refuses access to it with the token of {origin} ({status}); accept the licence on {page} with the \
                 account that the token is of, and see that the token may read gated models"
            ),
            None => {
                let may_be = if gated { "it is gated" } else { "it is gated, private or not there" };
                format!(
                    "the hub refuses access to it ({status}): {may_be}; accept the licence on {page}, and give a token: \
                     `token: ${{env:HF_TOKEN}}` beside the model's `from`, or HF_TOKEN in the environment"
                )
            }
        }
    }

    fn absence(&self, what: &str, code: Option<&str>) -> String {
        let page = format!("{}/{}", self.endpoint, self.model.id());
        match code {
            Some("RevisionNotFound") => {
                format!(
                    "the hub has no revision `{}` of it (404); {page}/tree/main lists its branches",
                    self.model.revision()
                )
            }
            Some("EntryNotFound") => {
                format!("the hub lists {what} and does not have it (404); look at {page}/tree/main")
            }
            _ => format!(
                "the hub has no such model or revision (404); look on {page} whether owner, name and revision are right"
            ),
        }
    }
}

/// One file on its way.
struct Transfer<'a> {
    order: &'a Order<'a>,
    commit: &'a str,
    remote: &'a Remote,
    /// Bytes of the files before it.
    before: u64,
    tell: Tell<'a>,
    file: File,
    sum: Sum,
    done: u64,
}

/// How an attempt ended early, and that another may go on.
struct Early(Option<io::Error>);

impl<'a> Transfer<'a> {
    /// Goes on where an earlier fetch stopped.
    fn new(
        order: &'a Order<'a>,
        commit: &'a str,
        remote: &'a Remote,
        before: u64,
        tell: Tell<'a>,
    ) -> Result<Self, FetchError> {
        let path = order.partial(remote);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(disk("open", &path))?;
        let done = file.metadata().map_err(disk("read", &path))?.len();
        let sum = remote.digest.begin(remote.bytes);
        let mut transfer = Transfer { order, commit, remote, before, tell, file, sum, done };
        if done > remote.bytes {
            transfer.start_over()?;
        } else {
            transfer.sum.update_from(&mut transfer.file).map_err(disk("read", &path))?;
        }
        Ok(transfer)
    }

    /// All bytes, checked, under the name they are found by.
    fn run(mut self) -> Result<(), FetchError> {
        let mut n_idle = 0;
        while self.done < self.remote.bytes {
            self.told();
            let before = self.done;
            let Err(Early(source)) = self.attempt()? else { continue };
            n_idle = if self.done > before { 0 } else { n_idle + 1 };
            if n_idle == MAX_IDLE_ATTEMPTS {
                let Remote { name, bytes, digest: _ } = self.remote;
                let (model, file) = (self.order.model.clone(), name.clone());
                return Err(FetchError::Cut { model, file, done: self.done, bytes: *bytes, source });
            }
            thread::sleep(PAUSE * 2_u32.pow(n_idle));
        }
        let Transfer { order, remote, file, sum, .. } = self;
        let (partial, blob) = (order.partial(remote), order.blob(remote));
        file.sync_all().map_err(disk("sync", &partial))?;
        let (expected, found) = (remote.digest.hex().to_owned(), sum.finish());
        if expected != found {
            fs::remove_file(&partial).map_err(disk("remove", &partial))?;
            return Err(FetchError::Content { model: order.model.clone(), file: remote.name.clone(), expected, found });
        }
        fs::rename(&partial, &blob).map_err(disk("rename", &partial))
    }

    /// Asks for what is missing and takes what comes. The inner error is one that another attempt may do without.
    fn attempt(&mut self) -> Result<Result<(), Early>, FetchError> {
        let Order { endpoint, model, .. } = self.order;
        let url = format!("{endpoint}/{}/resolve/{}/{}", model.id(), self.commit, self.remote.name);
        let response = match self.order.get(&url, Some(self.done)) {
            Ok(response) => response,
            Err(FetchError::Unreachable { source, .. }) => return Ok(Err(Early(Some(source.into_io())))),
            Err(error) => return Err(error),
        };
        let status = response.status();
        match told_range(&response) {
            _ if status == StatusCode::OK => self.start_over()?,
            Some((start, bytes)) if status == StatusCode::PARTIAL_CONTENT && start == self.done => {
                self.expect(bytes)?
            }
            // Something else than what was asked for: the whole file is, next time.
            _ if [StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE].contains(&status) => {
                self.start_over()?;
                return Ok(Err(Early(None)));
            }
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Err(Early(Some(io::Error::other(format!("the hub answers {status}"))))));
            }
            _ => {
                self.order.expect_success(response, &self.remote.name)?;
                let (model, what) = (self.order.model.clone(), self.remote.name.clone());
                return Err(FetchError::Status { model, what, status });
            }
        }
        if let Some(length) = response.body().content_length() {
            self.expect(self.done + length)?;
        }
        self.take(response.into_body())
    }

    /// Takes what comes, up to the end that was told.
    fn take(&mut self, body: Body) -> Result<Result<(), Early>, FetchError> {
        let path = self.order.partial(self.remote);
        let mut body = body.into_with_config().limit(u64::MAX).reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        while self.done < self.remote.bytes {
            let n = match body.read(&mut chunk) {
                Ok(0) => return Ok(Err(Early(None))),
                Ok(n) => n,
                Err(error) => return Ok(Err(Early(Some(error)))),
            };
            let end = self.done + n as u64;
            if end > self.remote.bytes {
                self.expect(end)?;
            }
            self.file.write_all(&chunk[..n]).map_err(disk("write", &path))?;
            self.sum.update(&chunk[..n]);
            self.done = end;
            self.told();
        }
        Ok(Ok(()))
    }

    /// Refuses a file of another length than the list has.
    fn expect(&self, found: u64) -> Result<(), FetchError> {
        let Remote { name, bytes, digest: _ } = self.remote;
        if found == *bytes {
            return Ok(());
        }
        Err(FetchError::Length { model: self.order.model.clone(), file: name.clone(), bytes: *bytes, found })
    }

    fn start_over(&mut self) -> Result<(), FetchError> {
        let path = self.order.partial(self.remote);
        self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(disk("empty", &path))?;
        (self.sum, self.done) = (self.remote.digest.begin(self.remote.bytes), 0);
        Ok(())
    }

    fn told(&self) {
        (self.tell)(Step::Bytes { done: self.before + self.done });
    }
}

/// Where a part begins and how long the whole is, from `Content-Range: bytes 100-199/200`.
fn told_range(response: &Response<Body>) -> Option<(u64, u64)> {
    let range = response.headers().get("content-range")?.to_str().ok()?;
    let (part, whole) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((part.split_once('-')?.0.parse().ok()?, whole.parse().ok()?))
}

/// Whether a file is one that a model is read from, or may be. Folders are for other uses of a model. A name is part of a
/// path and of an address.
fn is_of_a_model(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json", INDEX];
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let described = NAMES.contains(&name) || name.starts_with("tokenizer") || name.starts_with("chat_template");
    plain && (described || name.ends_with(".safetensors"))
}

fn make_folder(path: &Path) -> Result<(), FetchError> {
    fs::create_dir_all(path).map_err(disk("create the folder", path))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn disk(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError + use<> {
    let path = path.to_owned();
    move |source| FetchError::Disk { operation, path, source }
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 if names.is_empty() => "no files".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
