//! The page: read once into memory, so that what is served is what was hashed, and no path reaches the disk.

use bytes::Bytes;
use hyper::{
    HeaderMap, Response,
    header::{self, HeaderName, HeaderValue},
    http::StatusCode,
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Most bytes and files of a page; a directory given by mistake does not fill the memory.
const MAX_BYTES: u64 = 64 << 20;
const MAX_FILES: usize = 4096;

/// Why a page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The directory or a file in it cannot be read.
    #[error("the page {} cannot be read: {source}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No `index.html`: most likely not the built page.
    #[error("{} holds no index.html: build the page, and let listen.page name the directory that it is built into", .0.display())]
    NoIndex(PathBuf),
    /// A link could show the world any file of this machine.
    #[error("{} is a symbolic link, which a page may not contain: replace it by the file", .0.display())]
    Link(PathBuf),
    /// More than 64 MiB or 4,096 files.
    #[error("{} holds more than 64 MiB or 4096 files: this is hardly a page", .0.display())]
    TooLarge(PathBuf),
}

/// A directory of static files.
#[derive(Debug)]
pub struct Page {
    files: BTreeMap<String, File>,
    hash: String,
}

#[derive(Debug)]
struct File {
    body: Bytes,
    /// The same under Brotli, from `<name>.br`.
    brotli: Option<Bytes>,
    content_type: &'static str,
    cache: &'static str,
    etag: HeaderValue,
}

impl Page {
    /// Reads a directory.
    pub fn load(directory: &Path) -> Result<Self, PageError> {
        let mut bodies = BTreeMap::new();
        let mut left = MAX_BYTES;
        read_directory(directory, "", &mut bodies, &mut left).map_err(|error| match error {
            PageError::TooLarge(_) => PageError::TooLarge(directory.into()),
            other => other,
        })?;
        if !bodies.contains_key("index.html") {
            return Err(PageError::NoIndex(directory.into()));
        }
        let hash = hash(&bodies);
        let files = bodies
            .iter()
            .filter(|(name, _)| {
                name.strip_suffix(".br")
                    .is_none_or(|plain| !bodies.contains_key(plain))
            })
            .map(|(name, body)| {
                let etag = format!("\"{}\"", hex::encode(&Sha256::digest(body)[..16]));
                let file = File {
                    body: body.clone(),
                    brotli: bodies.get(&format!("{name}.br")).cloned(),
                    content_type: content_type(name),
                    cache: if is_hashed(name) {
                        "public, max-age=31536000, immutable"
                    } else {
                        "no-cache"
                    },
                    etag: HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\"")),
                };
                (name.clone(), file)
            })
            .collect();
        Ok(Self { files, hash })
    }

    /// SHA-256 over all names and contents, in hex: the same for the same build, on every machine.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The answer to a request for `path`; `None` if the page has no such file.
    pub(super) fn get(&self, path: &str, request: &HeaderMap) -> Option<Response<Bytes>> {
        let name = path.strip_prefix('/')?;
        let file = self
            .files
            .get(if name.is_empty() { "index.html" } else { name })?;
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(file.content_type),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(file.cache));
        headers.insert(header::ETAG, file.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if lists(
            request,
            &header::IF_NONE_MATCH,
            file.etag.to_str().unwrap_or_default(),
        ) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Some(response);
        }
        match &file.brotli {
            Some(brotli) if accepts_brotli(request) => {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
                *response.body_mut() = brotli.clone();
            }
            _ => *response.body_mut() = file.body.clone(),
        }
        Some(response)
    }
}

fn read_directory(
    directory: &Path,
    prefix: &str,
    out: &mut BTreeMap<String, Bytes>,
    left: &mut u64,
) -> Result<(), PageError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        |source| PageError::Io { path, source }
    };
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        let path = entry.path();
        // Names that are not UTF-8 cannot be asked for by a URL that we match byte by byte; dot files are not a page's.
        let Some(name) = entry
            .file_name()
            .to_str()
            .filter(|name| !name.starts_with('.'))
            .map(str::to_owned)
        else {
            continue;
        };
        // The entry's own type: links are not followed, so nothing outside the directory can be served.
        let kind = entry.file_type().map_err(failed(&path))?;
        if kind.is_symlink() {
            return Err(PageError::Link(path));
        }
        if kind.is_dir() {
            read_directory(&path, &format!("{prefix}{name}/"), out, left)?;
        } else if kind.is_file() {
            let size = entry.metadata().map_err(failed(&path))?.len();
            if size > *left || out.len() >= MAX_FILES {
                return Err(PageError::TooLarge(path));
            }
            *left -= size;
            out.insert(
                format!("{prefix}{name}"),
                fs::read(&path).map_err(failed(&path))?.into(),
            );
        }
    }
    Ok(())
}

/// Lengths stand before names and contents, so that no two directories are the same string of bytes.
fn hash(bodies: &BTreeMap<String, Bytes>) -> String {
    let mut hasher = Sha256::new();
    for (name, body) in bodies {
        hasher.update((name.len() as u64).to_be_bytes());
        hasher.update(name);
        hasher.update((body.len() as u64).to_be_bytes());
        hasher.update(body);
    }
    hex::encode(hasher.finalize())
}

/// Whether a build tool put a hash of the content into the name: `assets/index-B3xKq9Za.js`.
fn is_hashed(name: &str) -> bool {
    let Some(file) = name.strip_prefix("assets/") else {
        return false;
    };
    let stem = file.split('.').next().unwrap_or_default();
    // The hash may itself hold a hyphen, so it is taken by its length.
    let Some((hash_at, _)) = stem.char_indices().rev().nth(7) else {
        return false;
    };
    let (rest, hash) = stem.split_at(hash_at);
    rest.ends_with('-')
        && hash
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn accepts_brotli(request: &HeaderMap) -> bool {
    request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value.split(',').any(|coding| {
                let mut parts = coding.split(';').map(str::trim);
                parts.next() == Some("br")
                    && parts.all(|parameter| {
                        !matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
                    })
            })
        })
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value
                .split(',')
                .any(|item| item.trim().trim_start_matches("W/") == wanted)
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;

    fn page(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Page, PageError>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, body) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, body).unwrap();
        }
        let page = Page::load(dir.path());
        (dir, page)
    }

    #[test]
    fn only_names_that_carry_a_hash_are_cached_for_ever() {
        for hashed in [
            "assets/index-B3xKq9Za.js",
            "assets/ethers-_a-b1234.js",
            "assets/a-12345678.d.css",
        ] {
            assert!(is_hashed(hashed), "{hashed}");
        }
        for plain in [
            "index.html",
            "worker.js",
            "assets/worker.js",
            "index-B3xKq9Za.js",
            "assets/-1.js",
        ] {
            assert!(!is_hashed(plain), "{plain}");
        }
    }

    #[test]
    fn the_hash_covers_names_and_contents() {
        let hash = |files: &[(&str, &str)]| page(files).1.unwrap().hash;
        let first = hash(&[("index.html", "a"), ("b.js", "c")]);
        assert_eq!(first, hash(&[("b.js", "c"), ("index.html", "a")]));
        assert_ne!(first, hash(&[("index.html", "a"), ("b.js", "d")]));
        assert_ne!(first, hash(&[("index.html", "a"), ("c.js", "c")]));
    }

    #[cfg(unix)]
    #[test]
    fn a_page_with_a_symbolic_link_is_refused() {
        let (dir, _) = page(&[("index.html", "a")]);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("passwd")).unwrap();
        assert!(matches!(Page::load(dir.path()), Err(PageError::Link(_))));
        fs::remove_file(dir.path().join("passwd")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("etc")).unwrap();
        assert!(matches!(Page::load(dir.path()), Err(PageError::Link(_))));
    }

    #[test]
    fn a_directory_without_an_index_is_no_page() {
        let error = page(&[("main.js", "a")]).1.unwrap_err().to_string();
        assert!(error.contains("no index.html"), "{error}");
        assert!(matches!(
            Page::load(Path::new("/nonexistent")),
            Err(PageError::Io { .. })
        ));
    }
}
