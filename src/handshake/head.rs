//! Challenges that come before anything is proven: by GET, HEAD or OPTIONS, or by a POST whose query says so.

use http::Method;
use http::header::{ALLOW, HeaderName, HeaderValue};

use super::answer::{Answer, Answered, Refusal, check};
use super::ask::{field, of_query, parameter, query};
use super::rule::{Rule, Token};
use crate::form;
use crate::request::Head;

/// The method by which a rule is challenged; `None` if it is challenged otherwise.
pub(super) fn method(rule: &Rule) -> Option<Method> {
    match rule {
        Rule::Dropbox | Rule::Meta(_) | Rule::WebSub { .. } | Rule::Okta => Some(Method::GET),
        #[cfg(feature = "signature")]
        Rule::X(_) => Some(Method::GET),
        Rule::Trello => Some(Method::HEAD),
        Rule::CloudEvents { .. } => Some(Method::OPTIONS),
        _ => None,
    }
}

/// Answers a request of that method.
pub(super) fn answer(rule: &Rule, head: Head<'_>) -> Answered {
    match rule {
        Rule::Dropbox => echo_parameter(head, "challenge"),
        Rule::Meta(token) => meta(head, token),
        Rule::WebSub { topics, token } => web_sub(head, topics, token.as_ref()),
        Rule::Okta => okta(head),
        Rule::Trello => Ok(Answer::empty()),
        Rule::CloudEvents { origins, rate } => cloud_events(head, origins, *rate),
        #[cfg(feature = "signature")]
        Rule::X(keys) => super::keyed::x(head, keys),
        _ => Err(Refusal::Forbidden),
    }
}

/// Answers a POST whose query is the challenge: Microsoft Graph asks so, without a credential. `None` if it is none.
pub(super) fn answer_post(rule: &Rule, head: Head<'_>) -> Option<Answered> {
    const TOKEN: &str = "validationToken";
    let is_challenge = || form::fields(query(head)).any(|field| field.name().is_ok_and(|name| name == TOKEN));
    (matches!(rule, Rule::Graph) && is_challenge()).then(|| echo_parameter(head, TOKEN))
}

/// The challenge of Meta: a sender that knows the token may subscribe.
fn meta(head: Head<'_>, token: &Token) -> Answered {
    let mode = parameter(head, "hub.mode")?;
    let sent = parameter(head, "hub.verify_token")?;
    let challenge = parameter(head, "hub.challenge")?;
    match mode == "subscribe" && token.is(&sent) {
        true => Answer::echo(&challenge, "the parameter `hub.challenge`"),
        false => Err(Refusal::Forbidden),
    }
}

/// The subscriber's part of WebSub (W3C, 5.3): the hub asks whether the subscription is meant.
fn web_sub(head: Head<'_>, topics: &[String], token: Option<&Token>) -> Answered {
    let mode = parameter(head, "hub.mode")?;
    let topic = parameter(head, "hub.topic")?;
    let challenge = parameter(head, "hub.challenge")?;
    let knows = match token {
        Some(token) => token.is(&parameter(head, "hub.verify_token")?),
        None => true,
    };
    let is_meant = matches!(&*mode, "subscribe" | "unsubscribe") && topics.iter().any(|meant| *meant == topic);
    match is_meant && knows {
        true => Answer::echo(&challenge, "the parameter `hub.challenge`"),
        false => Err(Refusal::Forbidden),
    }
}

fn okta(head: Head<'_>) -> Answered {
    const FIELD: HeaderName = HeaderName::from_static("x-okta-verification-challenge");
    let challenge = field(head.headers, &FIELD)?;
    check(challenge, "the header x-okta-verification-challenge")?;
    Ok(Answer::json(&[("verification", challenge)]))
}

/// The consent of a receiver (CloudEvents, HTTP 1.1 Web Hooks 1.0.2, section 4). A callback is not called.
fn cloud_events(head: Head<'_>, origins: &[String], rate: Option<u32>) -> Answered {
    const ASKED: HeaderName = HeaderName::from_static("webhook-request-origin");
    const ALLOWED: HeaderName = HeaderName::from_static("webhook-allowed-origin");
    const ASKED_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
    const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
    let origin = field(head.headers, &ASKED)?;
    check(origin, "the header webhook-request-origin")?;
    if !origins.is_empty() && !origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
        return Err(Refusal::Forbidden);
    }
    let value = |text: &str, name| HeaderValue::from_str(text).map_err(|_| Refusal::malformed(name, "is no text"));
    let allow = HeaderValue::from_static("POST, OPTIONS");
    let answer = Answer::empty().with(ALLOW, allow).with(ALLOWED, value(origin, "the header webhook-request-origin")?);
    if !head.headers.contains_key(ASKED_RATE) {
        return Ok(answer);
    }
    let asked = field(head.headers, &ASKED_RATE)?.parse::<u32>().ok().filter(|rate| *rate > 0);
    let asked = asked.ok_or_else(|| Refusal::malformed("the header webhook-request-rate", "is no number above 0"))?;
    Ok(answer.with(ALLOWED_RATE, HeaderValue::from(rate.map_or(asked, |most| most.min(asked)))))
}

fn echo_parameter(head: Head<'_>, name: &str) -> Answered {
    Answer::echo(&parameter(head, name)?, &of_query(name))
}
