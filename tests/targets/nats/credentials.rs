//! An operator, an account and a user of NATS, with JWTs as `nsc` makes them.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

const OPERATOR: u8 = 14 << 3;
const ACCOUNT: u8 = 0;
const USER: u8 = 20 << 3;

/// A key pair with the letter of its kind.
struct Key {
    kind: u8,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(kind: u8) -> Self {
        let mut seed = [0; 32];
        fastrand::fill(&mut seed);
        Self { kind, seed, pair: Ed25519KeyPair::from_seed_unchecked(&seed).unwrap() }
    }

    fn public(&self) -> String {
        encode(&[&[self.kind], self.pair.public_key().as_ref()].concat())
    }

    fn seed(&self) -> String {
        const SEED: u8 = 18 << 3;
        encode(&[&[SEED | self.kind >> 5, (self.kind & 31) << 3], &self.seed[..]].concat())
    }

    /// A JWT about `subject`, signed by this key.
    fn sign(&self, subject: &Self, name: &str, claims: Value) -> String {
        let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
        let claims = json!({
            "jti": name, "iat": 1_700_000_000, "iss": self.public(), "sub": subject.public(), "name": name, "nats": claims,
        });
        let text = [head, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.pair.sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

/// Base32 without padding, of the bytes and their checksum.
fn encode(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0_u16, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 })
    });
    let bytes = [bytes, &sum.to_le_bytes()].concat();
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let digit = |at: usize| (at..at + 5).fold(0, |digit, at| digit << 1 | usize::from(bit(at)));
    (0..bytes.len() * 8).step_by(5).map(|at| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[digit(at)])).collect()
}

/// Settings of a server that trusts one operator, and the credentials of a user.
pub(crate) struct Credentials {
    pub(crate) settings: String,
    pub(crate) user: String,
    /// Of a user of an operator that the server does not know.
    pub(crate) foreign_user: String,
}

impl Credentials {
    pub(crate) fn new() -> Self {
        let (settings, user) = generate();
        Self { settings, user, foreign_user: generate().1 }
    }
}

fn generate() -> (String, String) {
    let [operator, account, user] = [OPERATOR, ACCOUNT, USER].map(Key::new);
    let limits = json!({"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1, "payload": -1, "wildcards": true});
    let operators = operator.sign(&operator, "operator", json!({"type": "operator", "version": 2}));
    let accounts = operator.sign(&account, "account", json!({"type": "account", "version": 2, "limits": limits}));
    let users =
        account.sign(&user, "user", json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let settings =
        format!("operator: {operators}\nresolver: MEMORY\nresolver_preload: {{ {}: {accounts} }}\n", account.public());
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{users}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed()
    );
    (settings, credentials)
}
