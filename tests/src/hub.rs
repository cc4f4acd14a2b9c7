//! A hub of models on this machine: the few addresses that a model is fetched from, over plain HTTP, and the ways in which
//! such a fetch goes wrong.
//!
//! Owns the answers and a list of what was asked. Knows nothing of who asks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use ring::digest;
use serde_json::{Value, json};

/// The commit of the branch `main`.
pub const COMMIT: &str = "11c9b309abf73637e4b6f9a3fa1e92e615547819";

/// A hub with one model, `someone/model`.
pub struct Hub {
    port: u16,
    state: Arc<State>,
    stalled: Receiver<()>,
}

struct State {
    port: u16,
    /// By name; those that are large are kept elsewhere, as the real hub does it.
    files: BTreeMap<String, Vec<u8>>,
    asked: Mutex<Vec<Asked>>,
    trouble: Mutex<Vec<Trouble>>,
    stalls: Mutex<Sender<()>>,
    /// Answered only with this token.
    token: Option<String>,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    /// The name in the address, without the port.
    pub host: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

/// What goes wrong, with a file by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The connection ends after so many bytes of the body, each time.
    Cut { file: &'static str, after: usize },
    /// The connection stays open, and nothing comes any more after so many bytes of the body.
    Stalls { file: &'static str, after: usize },
    /// The body is a byte longer than the list says.
    Longer { file: &'static str },
    /// The last byte of the body is another one.
    Differs { file: &'static str },
    /// Whatever range is asked for, the whole comes.
    IgnoresRanges,
    /// This status, and the hub's own word for it, for a file or (`""`) for the list.
    Answers { what: &'static str, status: &'static str, code: &'static str },
}

/// Files of this size and more are kept elsewhere.
const LARGE_BYTES: usize = 50_000;

impl Hub {
    /// A hub with these files.
    ///
    /// # Panics
    /// If no port is free.
    pub fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>, token: Option<&str>) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let (sender, stalled) = channel();
        let state = Arc::new(State {
            port,
            files: files.into_iter().collect(),
            asked: Mutex::default(),
            trouble: Mutex::default(),
            stalls: Mutex::new(sender),
            token: token.map(str::to_owned),
        });
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = shared.clone();
                // Whoever hangs up early is no fault of the hub.
                thread::spawn(move || drop(state.serve(&stream)));
            }
        });
        Hub { port, state, stalled }
    }

    /// What HF_ENDPOINT should say.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on only this goes wrong.
    pub fn trouble(&self, trouble: impl IntoIterator<Item = Trouble>) {
        *lock(&self.state.trouble) = trouble.into_iter().collect();
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.state.asked))
    }

    /// Waits until a body has stalled.
    ///
    /// # Panics
    /// If the hub is gone.
    pub fn wait_for_stall(&self) {
        self.stalled.recv().expect("the hub serves");
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream);
        while let Some(asked) = read(&mut lines)? {
            lock(&self.asked).push(asked.clone());
            if !self.answer(stream, &asked)? {
                break;
            }
        }
        Ok(())
    }

    /// Answers a request; false when the connection is to end.
    fn answer(&self, stream: &TcpStream, asked: &Asked) -> std::io::Result<bool> {
        let path = asked.path.split('?').next().unwrap_or_default();
        if let Some(name) = path.strip_prefix("/elsewhere/") {
            return self.send(stream, asked, name);
        }
        let revision = path.strip_prefix("/api/models/someone/model/revision/");
        let resolved = path.strip_prefix("/someone/model/resolve/").and_then(|rest| rest.split_once('/'));
        let what = resolved.map_or("", |(_, name)| name);
        let answers = lock(&self.trouble).iter().find_map(|trouble| match trouble {
            Trouble::Answers { what: of, status, code } if *of == what => Some((*status, *code)),
            _ => None,
        });
        let wanted = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let known = |revision: &str| ["main", COMMIT].contains(&revision);
        match (answers, revision, resolved) {
            (Some((status, code)), ..) => plain(stream, status, &[("X-Error-Code", code)], b"{}"),
            _ if wanted.is_some() && asked.authorization != wanted => {
                plain(stream, "401 Unauthorized", &[("X-Error-Code", "GatedRepo")], b"{}")
            }
            (None, Some(revision), _) if known(revision) => {
                plain(stream, "200 OK", &[("Content-Type", "application/json")], self.list().to_string().as_bytes())
            }
            (None, Some(_), _) => plain(stream, "404 Not Found", &[("X-Error-Code", "RevisionNotFound")], b"{}"),
            (None, None, Some((revision, name))) if known(revision) => match self.files.get(name) {
                None => plain(stream, "404 Not Found", &[("X-Error-Code", "EntryNotFound")], b"{}"),
                Some(bytes) if bytes.len() >= LARGE_BYTES => {
                    let elsewhere = format!("http://localhost:{}/elsewhere/{name}?signature=1", self.port);
                    plain(stream, "302 Found", &[("Location", &elsewhere)], b"")
                }
                Some(_) => self.send(stream, asked, name),
            },
            _ => plain(stream, "404 Not Found", &[], b"{}"),
        }
    }

    fn list(&self) -> Value {
        let entry = |(name, bytes): (&String, &Vec<u8>)| match bytes.len() >= LARGE_BYTES {
            true => json!({
                "rfilename": name, "size": bytes.len(), "blobId": git_sha1(b"a pointer"),
                "lfs": {"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134},
            }),
            false => json!({"rfilename": name, "size": bytes.len(), "blobId": git_sha1(bytes)}),
        };
        json!({"id": "someone/model", "sha": COMMIT, "siblings": self.files.iter().map(entry).collect::<Vec<_>>()})
    }

    fn send(&self, mut stream: &TcpStream, asked: &Asked, name: &str) -> std::io::Result<bool> {
        let trouble = lock(&self.trouble).clone();
        let has = |wanted: Trouble| trouble.contains(&wanted);
        let file = |of: &&'static str| *of == name;
        let mut bytes = self.files.get(name).cloned().unwrap_or_default();
        let known: Vec<&'static str> = trouble.iter().filter_map(Trouble::file).filter(file).collect();
        if let Some(file) = known.first() {
            if has(Trouble::Longer { file }) {
                bytes.push(0);
            }
            if has(Trouble::Differs { file })
                && let Some(last) = bytes.last_mut()
            {
                *last ^= 1;
            }
        }
        let start =
            asked.range.as_ref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let start = start.filter(|_| !has(Trouble::IgnoresRanges));
        let whole = bytes.len();
        let body = bytes.split_off(start.unwrap_or(0).min(whole));
        let mut head = format!("Content-Length: {}\r\n", body.len());
        let status = match start {
            Some(start) if start >= whole => return plain(stream, "416 Range Not Satisfiable", &[], b""),
            Some(start) => {
                head += &format!("Content-Range: bytes {start}-{}/{whole}\r\n", whole - 1);
                "206 Partial Content"
            }
            None => "200 OK",
        };
        write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n")?;
        for trouble in &trouble {
            match trouble {
                Trouble::Cut { file, after } if *file == name => {
                    stream.write_all(&body[..body.len().min(*after)])?;
                    return Ok(false);
                }
                Trouble::Stalls { file, after } if *file == name => {
                    stream.write_all(&body[..body.len().min(*after)])?;
                    let _ = lock(&self.stalls).send(());
                    // Until the other side hangs up.
                    let mut nothing = String::new();
                    BufReader::new(stream).read_line(&mut nothing)?;
                    return Ok(false);
                }
                _ => {}
            }
        }
        stream.write_all(&body)?;
        Ok(true)
    }
}

impl Trouble {
    fn file(&self) -> Option<&'static str> {
        match self {
            Trouble::Cut { file, .. }
            | Trouble::Stalls { file, .. }
            | Trouble::Longer { file }
            | Trouble::Differs { file } => Some(file),
            Trouble::IgnoresRanges | Trouble::Answers { .. } => None,
        }
    }
}

/// The next request of a connection.
fn read(lines: &mut impl BufRead) -> std::io::Result<Option<Asked>> {
    let mut first = String::new();
    if lines.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut asked = Asked { path, host: String::new(), authorization: None, range: None };
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Ok(Some(asked)) };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => asked.authorization = Some(value.to_owned()),
            "range" => asked.range = Some(value.to_owned()),
            "host" => asked.host = value.split(':').next().unwrap_or_default().to_owned(),
            _ => {}
        }
    }
}

fn plain(mut stream: &TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<bool> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
    stream.write_all(body)?;
    Ok(true)
}

/// The digest that a large file is named by.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// The digest that a small file is named by: that of Git.
pub fn git_sha1(bytes: &[u8]) -> String {
    let mut content = format!("blob {}\0", bytes.len()).into_bytes();
    content.extend(bytes);
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &content).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
