//! Templates of the signed content: `{header:X-Time}.{body}`.

use http::HeaderName;

use super::fields::{header_name, pointer, scalar};
use super::form;
use super::key::Message;
use super::presented::Presented;
use crate::auth::AuthError;
use crate::auth::schemes::only;
use crate::config::{CompileError, PublicUrl, did_you_mean};
use crate::json::Pointer;
use crate::request::Head;

/// The signed content of a request.
#[derive(Clone, Debug)]
pub(super) struct Content(Box<[Part]>);

#[derive(Clone, Debug)]
enum Part {
    Text(Box<str>),
    Body,
    /// Its checksum, in decimal.
    Crc32,
    Method,
    Url(PublicUrl),
    /// A field, and the text that follows it. A value that contains this text would be ambiguous.
    Header(HeaderName, Option<Box<str>>),
    /// A value of the pairs of the signature's field.
    Pair(Box<str>),
    Json(Pointer),
    Form(Box<str>),
    /// All names and values of a form, by name.
    FormSorted,
}

const VARIABLES: [&str; 10] =
    ["body", "url", "method", "header:", "kv:", "json:", "form:", "form_sorted", "param:", "body_crc32"];

impl Content {
    /// `param` looks up the value of `{param:x}`.
    pub(super) fn parse(
        text: &str,
        url: Option<&PublicUrl>,
        param: &dyn Fn(&str) -> Result<String, CompileError>,
    ) -> Result<Self, CompileError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            push_text(&mut parts, before);
            let Some((variable, behind)) = behind.split_once('}') else {
                return Err(CompileError::new("expected a `}` behind each `{`, found none"));
            };
            match variable.strip_prefix("param:") {
                Some(name) => push_text(&mut parts, &param(name)?),
                None => parts.push(Part::parse(variable, url)?),
            }
            rest = behind;
        }
        push_text(&mut parts, rest);
        for at in 1..parts.len() {
            let (before, behind) = parts.split_at_mut(at);
            if let ([.., Part::Header(_, behind)], [Part::Text(text), ..]) = (before, behind) {
                *behind = Some(text.clone());
            }
        }
        match parts.iter().all(|part| matches!(part, Part::Text(_))) {
            true => {
                Err(CompileError::new("expected a variable such as `{body}`, found none: anything would be signed"))
            }
            false => Ok(Self(parts.into())),
        }
    }

    /// Whether the body must be there.
    pub(super) fn needs_body(&self) -> bool {
        let of_head = |part: &Part| {
            matches!(part, Part::Text(_) | Part::Method | Part::Url(_) | Part::Header(..) | Part::Pair(_))
        };
        !self.0.iter().all(of_head)
    }

    /// Whether no byte of the body can be changed.
    pub(super) fn covers_body(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Body | Part::FormSorted))
    }

    pub(super) fn has_header(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Header(other, _) if other == name))
    }

    pub(super) fn has_pair(&self, key: &str) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Pair(other) if **other == *key))
    }

    pub(super) fn has_pointer(&self, pointer: &Pointer) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Json(other) if other == pointer))
    }

    /// The keys of pairs that it is made of.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| if let Part::Pair(key) = part { Some(&**key) } else { None })
    }

    /// Checks that the head has the fields and pairs of the template.
    pub(super) fn check_head(&self, head: Head<'_>, presented: &Presented<'_>) -> Result<(), AuthError> {
        self.0.iter().try_for_each(|part| match part {
            Part::Header(name, behind) => header(head, name, behind.as_deref()).map(drop),
            Part::Pair(key) => presented.pair(key).map(drop),
            _ => Ok(()),
        })
    }

    /// The content that a genuine sender has signed.
    pub(super) fn render<'a>(
        &'a self,
        head: Head<'a>,
        presented: &Presented<'a>,
        body: &'a [u8],
    ) -> Result<Message<'a>, AuthError> {
        let mut message = Message::default();
        for part in &self.0 {
            match part {
                Part::Text(text) => message.add(text.as_bytes()),
                Part::Body => message.add(body),
                Part::Crc32 => message.add(crc32fast::hash(body).to_string().into_bytes()),
                Part::Method => message.add(head.method.as_str().as_bytes()),
                Part::Url(url) => message.add(url.of(head.uri).into_bytes()),
                Part::Header(name, behind) => message.add(header(head, name, behind.as_deref())?),
                Part::Pair(key) => message.add(presented.pair(key)?),
                Part::Json(pointer) => message.add(scalar(pointer, body)?.into_bytes()),
                Part::Form(name) => message.add(form::field(body, name.as_bytes())?),
                Part::FormSorted => message.add(form::sorted(body)?),
            }
        }
        Ok(message)
    }
}

impl Part {
    fn parse(variable: &str, url: Option<&PublicUrl>) -> Result<Self, CompileError> {
        let (kind, name) = variable.split_once(':').unwrap_or((variable, ""));
        Ok(match (kind, name) {
            ("body", "") => Self::Body,
            ("body_crc32", "") => Self::Crc32,
            ("method", "") => Self::Method,
            ("form_sorted", "") => Self::FormSorted,
            ("url", "") => Self::Url(known_url(url)?),
            ("header", name) if !name.is_empty() => Self::Header(header_name(name)?, None),
            ("kv", name) if !name.is_empty() => Self::Pair(name.into()),
            ("json", path) => Self::Json(pointer(path)?),
            ("form", name) if !name.is_empty() => Self::Form(name.into()),
            _ => {
                let nearest = did_you_mean(variable, VARIABLES.into_iter());
                let known = VARIABLES.join("`, `");
                return Err(CompileError::new(format!("found an unknown variable{nearest}; known are `{known}`")));
            }
        })
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => *before = format!("{before}{text}").into(),
        _ => parts.push(Part::Text(text.into())),
    }
}

/// The URL that senders sign.
pub(super) fn known_url(url: Option<&PublicUrl>) -> Result<PublicUrl, CompileError> {
    let unknown = "the sender signs the URL, and it is not known: add the key `public_url` to the webhook, with the URL as its \
                   sender knows it, or set it for all webhooks; for the gateway, set PUBLIC_URL";
    url.cloned().ok_or_else(|| CompileError::new(unknown))
}

fn header<'a>(head: Head<'a>, name: &HeaderName, behind: Option<&str>) -> Result<&'a [u8], AuthError> {
    let value = only(head.headers, name)?;
    let holds = |text: &str| value.windows(text.len()).any(|at| at == text.as_bytes());
    if behind.is_some_and(holds) { Err(AuthError::Malformed) } else { Ok(value) }
}
