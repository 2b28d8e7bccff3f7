//! **The** table of known providers. A preset is a row; a provider that does not fit into a row has its own file.
//!
//! `Row::proof` names the evidence for a row, besides the provider's documentation.

use super::key::{Algorithm, Encoding, KeyForm, Written};
use super::plan::Dialect;
use super::presented::{Form, Source};
use super::timestamp::{Format, Rule, TimeFrom};

/// A provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The value of `preset`.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) algorithm: Algorithm,
    pub(super) key: KeyForm<'static>,
    pub(super) how: How,
    /// The names of the `params` that it needs.
    pub(super) params: &'static [&'static str],
    /// Whether the operator chooses the header field.
    pub(super) has_own_header: bool,
    /// The pointer that `dedup` must have, for a provider whose signatures do not cover the event.
    pub(super) dedup: Option<&'static str>,
    pub(super) proof: &'static str,
}

/// How its requests are verified.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    Dialect(Dialect<'static>),
    Adyen,
    Contentful,
    MsGraph,
    Twilio,
}

/// The row of this name.
pub(super) fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// Known providers that have no preset, and the reason or the alternative.
pub(super) const UNSUPPORTED: [(&str, &str); 9] = [
    ("aws-sns", "it is not supported yet"),
    ("cloudevents", "it sends a token: use the key `authorization`"),
    ("http-message-signatures", "it is not supported yet"),
    ("netlify", "it is not supported yet"),
    ("paypal", "it is not supported yet"),
    ("plaid", "it is not supported yet"),
    ("rfc9421", "it is not supported yet"),
    ("shipstation", "it is not supported yet"),
    ("websub", "its hub chooses the algorithm: spell the dialect out, with the header `X-Hub-Signature`"),
];

const TEXT: KeyForm<'static> = KeyForm { strip: "", written: Written::Text };
const WHSEC: KeyForm<'static> = KeyForm { strip: "whsec_", written: Written::Base64 };
const HEX: KeyForm<'static> = KeyForm { strip: "", written: Written::Hex };

const UNPROVEN: &str = "unproven: documentation only";

const fn row(name: &'static str, title: &'static str, how: How, proof: &'static str) -> Row {
    let algorithm = Algorithm::HmacSha256;
    Row { name, title, algorithm, key: TEXT, how, params: &[], has_own_header: false, dedup: None, proof }
}

/// A row with a single HMAC-SHA256 of the body in a header field, after a prefix.
const fn plain(
    name: &'static str,
    title: &'static str,
    headers: &'static [&'static str],
    prefix: &'static str,
    encoding: Encoding,
    proof: &'static str,
) -> Row {
    let (source, form) = (Source::Headers(headers), Form::Plain { prefix });
    row(name, title, How::Dialect(Dialect { source, form, encoding, content: "{body}", timestamp: None }), proof)
}

/// A row with a hexadecimal HMAC-SHA256 among pairs.
const fn pairs(
    name: &'static str,
    title: &'static str,
    header: &'static [&'static str],
    separator: &'static str,
    keys: &'static [&'static str],
    content: &'static str,
    proof: &'static str,
) -> Row {
    let form = Form::Pairs { separator, equals: "=", keys };
    let (source, timestamp) = (Source::Headers(header), None);
    row(name, title, How::Dialect(Dialect { source, form, encoding: Encoding::SmallHex, content, timestamp }), proof)
}

/// A row of Standard Webhooks, whose fields begin with `webhook-`.
const fn standard(name: &'static str, title: &'static str, proof: &'static str) -> Row {
    let dialect = Dialect {
        source: Source::Headers(&["webhook-signature"]),
        form: Form::List { separator: " ", prefix: "v1," },
        encoding: Encoding::Base64,
        content: "{header:webhook-id}.{header:webhook-timestamp}.{body}",
        timestamp: Some(unix(TimeFrom::Header("webhook-timestamp"))),
    };
    Row { key: WHSEC, ..row(name, title, How::Dialect(dialect), proof) }
}

/// A row of Svix, whose fields begin with `svix-`.
const fn svix(name: &'static str, title: &'static str, proof: &'static str) -> Row {
    let dialect = Dialect {
        source: Source::Headers(&["svix-signature"]),
        form: Form::List { separator: " ", prefix: "v1," },
        encoding: Encoding::Base64,
        content: "{header:svix-id}.{header:svix-timestamp}.{body}",
        timestamp: Some(unix(TimeFrom::Header("svix-timestamp"))),
    };
    Row { key: WHSEC, ..row(name, title, How::Dialect(dialect), proof) }
}

const fn unix(from: TimeFrom<'static>) -> Rule<'static> {
    Rule { from, format: Format::Unix, past: 300, future: 300 }
}

impl Row {
    const fn signs(self, content: &'static str) -> Self {
        match self.how {
            How::Dialect(dialect) => Self { how: How::Dialect(Dialect { content, ..dialect }), ..self },
            _ => self,
        }
    }

    const fn at(self, timestamp: Rule<'static>) -> Self {
        match self.how {
            How::Dialect(dialect) => {
                Self { how: How::Dialect(Dialect { timestamp: Some(timestamp), ..dialect }), ..self }
            }
            _ => self,
        }
    }

    const fn from(self, source: Source<'static>, form: Form<'static>) -> Self {
        match self.how {
            How::Dialect(dialect) => Self { how: How::Dialect(Dialect { source, form, ..dialect }), ..self },
            _ => self,
        }
    }

    /// The header fields that it reads.
    #[cfg(any(fuzzing, test))]
    pub(super) fn fields(&self) -> Vec<&'static str> {
        let How::Dialect(dialect) = self.how else {
            return vec![
                "X-Twilio-Signature",
                "x-contentful-signature",
                "x-contentful-signed-headers",
                "x-contentful-timestamp",
            ];
        };
        let signed = dialect.content.split("{header:").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        let signatures = match dialect.source {
            Source::Headers(names) => names.to_vec(),
            Source::Numbered(..) => vec!["X-DocuSign-Signature-1", "X-DocuSign-Signature-100"],
            Source::Json(_) | Source::Form(_) => Vec::new(),
        };
        signatures.into_iter().chain(signed).collect()
    }

    const fn made_with(self, algorithm: Algorithm, key: KeyForm<'static>) -> Self {
        Self { algorithm, key, ..self }
    }
}

use Algorithm::{EcdsaP256, Ed25519, HmacSha1, HmacSha256, Token};
use Encoding::{Base64, SmallHex};

/// All of them, by name.
pub(super) const ROWS: &[Row] = &[
    row(
        "adyen",
        "Adyen, standard notifications",
        How::Adyen,
        "npm @adyen/api-library 32.1.0, PyPI Adyen 16.0.0, published vector",
    )
    .made_with(HmacSha256, HEX),
    plain(
        "adyen-platform",
        "Adyen, banking and management",
        &["HmacSignature"],
        "",
        Base64,
        "npm @adyen/api-library 32.1.0, PyPI Adyen 16.0.0",
    )
    .made_with(HmacSha256, HEX),
    plain("asana", "Asana", &["X-Hook-Signature"], "", SmallHex, UNPROVEN),
    plain("bitbucket", "Bitbucket", &["X-Hub-Signature"], "sha256=", SmallHex, "published vector"),
    Row {
        params: &["public_key"],
        ..plain("braintree", "Braintree", &[], "", SmallHex, "npm braintree 3.40.0")
            .from(
                Source::Form("bt_signature"),
                Form::Pairs { separator: "&", equals: "|", keys: &["{param:public_key}"] },
            )
            .signs("{form:bt_payload}")
            .made_with(HmacSha1, KeyForm { strip: "", written: Written::Sha1 })
    },
    pairs("buildkite", "Buildkite", &["X-Buildkite-Signature"], ",", &["signature"], "{kv:timestamp}.{body}", UNPROVEN)
        .at(unix(TimeFrom::Pair("timestamp"))),
    pairs("calendly", "Calendly", &["Calendly-Webhook-Signature"], ",", &["v1"], "{kv:t}.{body}", UNPROVEN).at(Rule {
        from: TimeFrom::Pair("t"),
        format: Format::Unix,
        past: 180,
        future: 180,
    }),
    plain("circleci", "CircleCI", &[], "", SmallHex, "published vectors")
        .from(Source::Headers(&["circleci-signature"]), Form::List { separator: ",", prefix: "v1=" }),
    svix("clerk", "Clerk", "npm @clerk/backend 3.25.0"),
    plain("cloudflare-notifications", "Cloudflare Notifications", &["cf-webhook-auth"], "", SmallHex, UNPROVEN)
        .made_with(Token, TEXT),
    pairs(
        "cloudflare-stream",
        "Cloudflare Stream",
        &["Webhook-Signature"],
        ",",
        &["sig1"],
        "{kv:time}.{body}",
        UNPROVEN,
    )
    .at(unix(TimeFrom::Pair("time"))),
    plain(
        "coinbase-commerce",
        "Coinbase Commerce",
        &["X-CC-Webhook-Signature"],
        "",
        SmallHex,
        "npm coinbase-commerce-node 1.0.4",
    ),
    row("contentful", "Contentful", How::Contentful, "npm @contentful/node-apps-toolkit 3.16.1"),
    plain("discord", "Discord", &["X-Signature-Ed25519"], "", SmallHex, "npm discord-interactions 4.4.0, PyPI 0.4.0")
        .signs("{header:X-Signature-Timestamp}{body}")
        .at(unix(TimeFrom::Header("X-Signature-Timestamp")))
        .made_with(Ed25519, HEX),
    plain("docusign", "DocuSign Connect", &[], "", Base64, UNPROVEN)
        .from(Source::Numbered("X-DocuSign-Signature-", 100), Form::Plain { prefix: "" }),
    plain("dropbox", "Dropbox", &["X-Dropbox-Signature"], "", SmallHex, UNPROVEN),
    plain(
        "github",
        "GitHub",
        &["X-Hub-Signature-256"],
        "sha256=",
        SmallHex,
        "npm @octokit/webhooks-methods 6.0.0, published vector",
    ),
    standard("gitlab", "GitLab, signing token", "npm standardwebhooks 1.1.1, PyPI 1.1.0"),
    plain("gitlab-token", "GitLab, secret token", &["X-Gitlab-Token"], "", SmallHex, "npm @hookflo/tern 4.1.0")
        .made_with(Token, TEXT),
    plain("gocardless", "GoCardless", &["Webhook-Signature"], "", SmallHex, "npm gocardless-nodejs 10.1.2"),
    plain("heroku", "Heroku", &["Heroku-Webhook-Hmac-SHA256"], "", Base64, UNPROVEN),
    plain(
        "hookdeck",
        "Hookdeck",
        &["x-hookdeck-signature", "x-hookdeck-signature-2"],
        "",
        Base64,
        "npm @hookdeck/sdk 0.4.0",
    ),
    plain("hubspot", "HubSpot, version 3", &["X-HubSpot-Signature-v3"], "", Base64, "npm @hubspot/api-client 14.0.1")
        .signs("{method}{url}{body}{header:X-HubSpot-Request-Timestamp}")
        .at(Rule {
            from: TimeFrom::Header("X-HubSpot-Request-Timestamp"),
            format: Format::UnixMs,
            past: 300,
            future: 300,
        }),
    plain("intercom", "Intercom", &["X-Hub-Signature"], "sha1=", SmallHex, UNPROVEN).made_with(HmacSha1, TEXT),
    plain("jira", "Jira", &["X-Hub-Signature"], "sha256=", SmallHex, "published vector"),
    plain("line", "LINE", &["x-line-signature"], "", Base64, "npm @line/bot-sdk 11.0.0"),
    plain("linear", "Linear", &["Linear-Signature"], "", SmallHex, "npm @linear/sdk 98.0.0").at(Rule {
        from: TimeFrom::Json("/webhookTimestamp"),
        format: Format::UnixMs,
        past: 60,
        future: 60,
    }),
    Row {
        dedup: Some("/signature/token"),
        ..plain("mailgun", "Mailgun", &[], "", SmallHex, "npm mailgun-js 0.22.0, PyPI django-anymail 15.2")
            .from(Source::Json("/signature/signature"), Form::Plain { prefix: "" })
            .signs("{json:/signature/timestamp}{json:/signature/token}")
            .at(Rule { from: TimeFrom::Json("/signature/timestamp"), format: Format::Unix, past: 86_400, future: 300 })
    },
    plain(
        "meta",
        "Meta: Facebook, Instagram, WhatsApp",
        &["X-Hub-Signature-256"],
        "sha256=",
        SmallHex,
        "npm whatsapp-api-js 6.3.0",
    ),
    row("msgraph", "Microsoft Graph", How::MsGraph, UNPROVEN).made_with(Token, TEXT),
    pairs("mux", "Mux", &["Mux-Signature"], ",", &["v1"], "{kv:t}.{body}", "npm @mux/mux-node 15.3.0")
        .at(unix(TimeFrom::Pair("t"))),
    plain("notion", "Notion", &["X-Notion-Signature"], "sha256=", SmallHex, "npm @notionhq/client 5.26.0"),
    Row {
        has_own_header: true,
        ..plain("okta", "Okta event hooks", &["Authorization"], "", SmallHex, UNPROVEN).made_with(Token, TEXT)
    },
    standard("openai", "OpenAI", "npm openai 6.49.0"),
    pairs(
        "paddle",
        "Paddle Billing",
        &["Paddle-Signature"],
        ";",
        &["h1"],
        "{kv:ts}:{body}",
        "npm @paddle/paddle-node-sdk 3.10.0",
    )
    .at(unix(TimeFrom::Pair("ts"))),
    plain("pagerduty", "PagerDuty, version 3", &[], "", SmallHex, "the provider's samples in JavaScript and Python")
        .from(Source::Headers(&["X-PagerDuty-Signature"]), Form::List { separator: ",", prefix: "v1=" }),
    plain("razorpay", "Razorpay", &["X-Razorpay-Signature"], "", SmallHex, "npm razorpay 2.9.8"),
    svix("resend", "Resend", "npm resend 6.38.0"),
    plain(
        "sendgrid",
        "SendGrid",
        &["X-Twilio-Email-Event-Webhook-Signature"],
        "",
        Base64,
        "npm @sendgrid/eventwebhook 8.0.0",
    )
    .signs("{header:X-Twilio-Email-Event-Webhook-Timestamp}{body}")
    .at(unix(TimeFrom::Header("X-Twilio-Email-Event-Webhook-Timestamp")))
    .made_with(EcdsaP256, KeyForm { strip: "", written: Written::Base64 }),
    plain(
        "sentry",
        "Sentry",
        &["Sentry-Hook-Signature", "Sentry-App-Signature"],
        "",
        SmallHex,
        "npm @hookflo/tern 4.1.0",
    ),
    plain(
        "shopify",
        "Shopify",
        &["X-Shopify-Hmac-Sha256", "shopify-hmac-sha256"],
        "",
        Base64,
        "npm @shopify/shopify-api 15.0.0",
    ),
    plain(
        "slack",
        "Slack",
        &["X-Slack-Signature"],
        "v0=",
        SmallHex,
        "npm @slack/bolt 5.1.0, PyPI slack_sdk 3.48.0, published vector",
    )
    .signs("v0:{header:X-Slack-Request-Timestamp}:{body}")
    .at(unix(TimeFrom::Header("X-Slack-Request-Timestamp"))),
    plain("square", "Square", &["x-square-hmacsha256-signature"], "", Base64, "npm square 46.0.0").signs("{url}{body}"),
    standard("standard-webhooks", "Standard Webhooks", "npm standardwebhooks 1.1.1, PyPI 1.1.0, published vector"),
    standard("standard-webhooks-v1a", "Standard Webhooks with Ed25519", UNPROVEN)
        .from(Source::Headers(&["webhook-signature"]), Form::List { separator: " ", prefix: "v1a," })
        .made_with(Ed25519, KeyForm { strip: "whpk_", written: Written::Base64 }),
    pairs("stripe", "Stripe", &["Stripe-Signature"], ",", &["v1"], "{kv:t}.{body}", "npm stripe 23.1.0, PyPI 16.1.0")
        .at(unix(TimeFrom::Pair("t"))),
    svix("svix", "Svix", "npm svix 2.5.0, PyPI 2.9.1"),
    row("twilio", "Twilio", How::Twilio, "npm twilio 6.2.0, PyPI 9.13.0, published vector").made_with(HmacSha1, TEXT),
    plain(
        "twitch",
        "Twitch EventSub",
        &["Twitch-Eventsub-Message-Signature"],
        "sha256=",
        SmallHex,
        "npm @twurple/eventsub-http 8.1.4",
    )
    .signs("{header:Twitch-Eventsub-Message-Id}{header:Twitch-Eventsub-Message-Timestamp}{body}")
    .at(Rule {
        from: TimeFrom::Header("Twitch-Eventsub-Message-Timestamp"),
        format: Format::Rfc3339,
        past: 600,
        future: 600,
    }),
    plain("typeform", "Typeform", &["Typeform-Signature"], "sha256=", Base64, UNPROVEN),
    plain("vercel", "Vercel", &["x-vercel-signature"], "", SmallHex, UNPROVEN).made_with(HmacSha1, TEXT),
    pairs("workos", "WorkOS", &["WorkOS-Signature"], ",", &["v1"], "{kv:t}.{body}", "npm @workos-inc/node 8.13.0")
        .at(Rule { from: TimeFrom::Pair("t"), format: Format::UnixMs, past: 180, future: 180 }),
    plain("x", "X (Twitter)", &["x-twitter-webhooks-signature"], "sha256=", Base64, "npm twitter-autohook 1.7.2"),
    plain("xero", "Xero", &["x-xero-signature"], "", Base64, UNPROVEN),
    plain("zendesk", "Zendesk", &["X-Zendesk-Webhook-Signature"], "", Base64, UNPROVEN)
        .signs("{header:X-Zendesk-Webhook-Signature-Timestamp}{body}")
        .at(Rule {
            from: TimeFrom::Header("X-Zendesk-Webhook-Signature-Timestamp"),
            format: Format::Rfc3339,
            past: 300,
            future: 300,
        }),
    plain("zoom", "Zoom", &["x-zm-signature"], "v0=", SmallHex, "npm @zoom/rivet 0.4.0")
        .signs("v0:{header:x-zm-request-timestamp}:{body}")
        .at(unix(TimeFrom::Header("x-zm-request-timestamp"))),
];
