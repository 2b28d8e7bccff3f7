//! The operator's page: files that are part of the program. They are the only paths that nobody guards.

use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};

use super::answer::{Answer, Problem, of};
use super::routes::wrong_method;

/// Nothing but the page's own files, and requests to the server that it comes from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// The files: name, content type and bytes.
const FILES: &[(&str, &str, &[u8])] = &[
    ("index.html", HTML, include_bytes!("ui/index.html")),
    ("inspector.css", STYLE, include_bytes!("ui/inspector.css")),
    ("sprite.svg", IMAGE, include_bytes!("ui/sprite.svg")),
    ("theme.js", SCRIPT, include_bytes!("ui/theme.js")),
    ("api.js", SCRIPT, include_bytes!("ui/api.js")),
    ("app.js", SCRIPT, include_bytes!("ui/app.js")),
    ("body.js", SCRIPT, include_bytes!("ui/body.js")),
    ("charts.js", SCRIPT, include_bytes!("ui/charts.js")),
    ("dead.js", SCRIPT, include_bytes!("ui/dead.js")),
    ("dom.js", SCRIPT, include_bytes!("ui/dom.js")),
    ("event.js", SCRIPT, include_bytes!("ui/event.js")),
    ("events.js", SCRIPT, include_bytes!("ui/events.js")),
    ("format.js", SCRIPT, include_bytes!("ui/format.js")),
    ("live.js", SCRIPT, include_bytes!("ui/live.js")),
    ("parts.js", SCRIPT, include_bytes!("ui/parts.js")),
    ("signin.js", SCRIPT, include_bytes!("ui/signin.js")),
    ("system.js", SCRIPT, include_bytes!("ui/system.js")),
    ("webhooks.js", SCRIPT, include_bytes!("ui/webhooks.js")),
];

/// The part of a path below `/ui`; `None` if the path is another one. An empty part is `/ui` itself.
pub(super) fn below(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/ui")?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

pub(super) fn answer(head: &Parts, below: &str) -> Result<Answer, Problem> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(wrong_method([Method::GET].iter()));
    }
    let Some(name) = below.strip_prefix('/') else { return Ok(to_the_page()) };
    let name = if name.is_empty() { "index.html" } else { name };
    let at = FILES.iter().position(|(known, ..)| *known == name).ok_or_else(|| Problem::not_found("Not Found"))?;
    let (_, content_type, bytes) = FILES.get(at).ok_or_else(|| Problem::not_found("Not Found"))?;
    let tag = tags().get(at);
    let is_known = head.headers.get(header::IF_NONE_MATCH).is_some_and(|known| Some(known) == tag);
    let mut answer = match is_known {
        true => of(StatusCode::NOT_MODIFIED, HeaderValue::from_static(content_type), Bytes::new()),
        false => of(StatusCode::OK, HeaderValue::from_static(content_type), Bytes::from_static(bytes)),
    };
    let fields = answer.headers_mut();
    if let Some(tag) = tag {
        fields.insert(header::ETAG, tag.clone());
    }
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    fields.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(answer)
}

/// `/ui` is sent on to `/ui/`: the page's addresses are relative, since it does not know where it is mounted.
fn to_the_page() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("ui/"));
    answer
}

/// The tag of each file.
fn tags() -> &'static [HeaderValue] {
    static TAGS: OnceLock<Vec<HeaderValue>> = OnceLock::new();
    TAGS.get_or_init(|| {
        let tag = |bytes: &[u8]| {
            let digest: String = Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            HeaderValue::from_str(&format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""))
        };
        FILES.iter().map(|(_, _, bytes)| tag(bytes)).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn the_table_has_every_file_of_the_page() {
        let folder =
            fs::read_dir("src/admin/ui").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let table = FILES.iter().map(|(name, ..)| (*name).to_owned());
        assert_eq!(table.collect::<BTreeSet<_>>(), folder.collect::<BTreeSet<_>>());
    }
}
