//! A configured password: plain, or as a hash.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD_NO_PAD};
use subtle::ConstantTimeEq;

use crate::base::secret::SecretDigest;
use crate::config::BuildError;

/// The most memory that a check may take, in KiB.
const MAX_MEMORY: u32 = 64 << 10;

/// The most rounds and lanes of argon2id.
const MAX_ROUNDS: u32 = 4;
const MAX_LANES: u32 = 4;

/// The greatest cost of bcrypt.
const MAX_COST: u32 = 12;

/// bcrypt ignores the rest of a longer password, in bytes.
const MAX_BCRYPT: usize = 72;

/// A password of a user.
pub(super) enum Password {
    /// Only its digest is kept.
    Plain(SecretDigest),
    Argon2id(Box<Argon2id>),
    Bcrypt(Box<Bcrypt>),
}

pub(super) struct Argon2id {
    params: Params,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

pub(super) struct Bcrypt {
    cost: u32,
    salt: [u8; 16],
    hash: [u8; 23],
}

/// The memory of a check. The next check uses it again.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Password {
    /// Reads a plain password or a hash. A text that begins like a hash must be a valid one.
    pub(super) fn read(text: &str) -> Result<Self, BuildError> {
        if let Some(rest) = text.strip_prefix("$argon2id$") {
            return Argon2id::read(rest).map(|hash| Self::Argon2id(Box::new(hash)));
        }
        if let Some(rest) = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix)) {
            return Bcrypt::read(rest).map(|hash| Self::Bcrypt(Box::new(hash)));
        }
        // Taken as a plain password, the hash itself would let requests in.
        if let Some(kind) = OTHER_HASHES.into_iter().find(|prefix| text.starts_with(prefix)) {
            return Err(
                format!("expected a password, or its hash by argon2id or bcrypt, found a hash `{kind}…`").into()
            );
        }
        Ok(Self::Plain(SecretDigest::new(text)?))
    }

    /// Whether a separate thread must check it, because that takes long.
    pub(super) fn is_hash(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    pub(super) fn matches(&self, password: &[u8], memory: &mut Memory) -> bool {
        match self {
            Self::Plain(digest) => digest.matches(password),
            Self::Argon2id(hash) => hash.matches(password, memory),
            Self::Bcrypt(hash) => hash.matches(password),
        }
    }
}

/// How other hashes of passwords begin.
const OTHER_HASHES: [&str; 15] = [
    "$argon2d$",
    "$argon2i$",
    "$2$",
    "$2x$",
    "$1$",
    "$5$",
    "$6$",
    "$7$",
    "$y$",
    "$apr1$",
    "$scrypt$",
    "$pbkdf2",
    "{SHA}",
    "{SSHA}",
    "{CRYPT}",
];

impl Argon2id {
    /// Reads what follows `$argon2id$`: `v=19$m=…,t=…,p=…$salt$hash`.
    fn read(text: &str) -> Result<Self, BuildError> {
        const FORM: &str = "expected a hash of the form `$argon2id$v=19$m=65536,t=3,p=4$salt$hash`, found another";
        let parts: Vec<_> = text.split('$').collect();
        let [version, params, salt, hash] = *parts else { return Err(FORM.into()) };
        if version != "v=19" {
            return Err("expected a hash by argon2id of version 19, found another version".into());
        }
        let params: Vec<_> = params.split(',').collect();
        let [memory, rounds, lanes] = *params else { return Err(FORM.into()) };
        let number = |text: &str, name: &str, most: u32| -> Result<u32, BuildError> {
            let found = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
            let digits = found.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            match digits.and_then(|digits| digits.parse().ok()) {
                Some(found) if found <= most => Ok(found),
                Some(found) => Err(format!("expected `{name}` of at most {most} in the hash, found {found}").into()),
                None => Err(FORM.into()),
            }
        };
        let memory = number(memory, "m", MAX_MEMORY)?;
        let (rounds, lanes) = (number(rounds, "t", MAX_ROUNDS)?, number(lanes, "p", MAX_LANES)?);
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| FORM);
        let (salt, hash) = (decode(salt)?, decode(hash)?);
        if !(8..=64).contains(&salt.len()) || !(16..=64).contains(&hash.len()) {
            return Err("expected a salt of 8 to 64 bytes and a hash of 16 to 64, found other lengths".into());
        }
        let params = Params::new(memory, rounds, lanes, Some(hash.len()));
        let params =
            params.map_err(|_| "expected an `m` of at least 8 times `p`, and at least 1 for each, found less")?;
        Ok(Self { params, salt, hash })
    }

    fn matches(&self, password: &[u8], memory: &mut Memory) -> bool {
        let blocks = self.params.block_count();
        if memory.0.len() < blocks {
            memory.0.resize(blocks, Block::new());
        }
        let Some(memory) = memory.0.get_mut(..blocks) else { return false };
        let mut hash = vec![0; self.hash.len()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let is_made = argon2.hash_password_into_with_memory(password, &self.salt, &mut hash, memory).is_ok();
        is_made && hash.ct_eq(&self.hash).into()
    }
}

impl Bcrypt {
    /// Reads what follows `$2b$`: the cost, and 53 characters of salt and hash.
    fn read(text: &str) -> Result<Self, BuildError> {
        const FORM: &str = "expected a hash of the form `$2b$12$` and 53 characters behind it, found another";
        // Some programs set unused bits of the last character.
        const BASE64: GeneralPurpose =
            GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));
        let (cost, rest) = text.split_once('$').filter(|(cost, _)| cost.len() == 2).ok_or(FORM)?;
        let (salt, hash) = rest.split_at_checked(22).filter(|(_, hash)| hash.len() == 31).ok_or(FORM)?;
        if !cost.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(FORM.into());
        }
        let cost = cost.parse().map_err(|_| FORM)?;
        if !(4..=MAX_COST).contains(&cost) {
            return Err(format!("expected a cost of 4 to {MAX_COST} in the hash, found {cost}").into());
        }
        let decode = |text: &str| BASE64.decode(text).map_err(|_| FORM);
        let salt = decode(salt)?.try_into().map_err(|_| FORM)?;
        let hash = decode(hash)?.try_into().map_err(|_| FORM)?;
        Ok(Self { cost, salt, hash })
    }

    /// Refuses a password of which bcrypt would ignore a part: many other passwords would match too.
    fn matches(&self, password: &[u8]) -> bool {
        let is_seen = password.len() <= MAX_BCRYPT && !password.contains(&0);
        // A refused password takes the same work.
        let password = if is_seen { password } else { &[] };
        let mut terminated = password.to_vec();
        terminated.push(0);
        terminated.truncate(MAX_BCRYPT);
        let hash = bcrypt::bcrypt(self.cost, self.salt, &terminated);
        let is_right: bool = hash.split_at(self.hash.len()).0.ct_eq(&self.hash).into();
        is_right && is_seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with argon2-cffi 25.1.0 and bcrypt 5.0.0 of Python. `$2y$` is `$2b$` by another name.
    const HASHES: &[(&str, &str)] = &[
        ("hunter2", "$argon2id$v=19$m=64,t=1,p=1$DjA2W7z6q1McXH6VNTyifw$GBAmlrc3lOCQhvsKvhlRzACM7SDDVv33vqcSD3o5Fj4"),
        ("hunter2", "$argon2id$v=19$m=256,t=3,p=4$NNvGvQUq7BrGrC78SzxILg$I55eoqlTomtCucRAwy3Aq3Cn8xLOfg9XjaJDWDhK9C8"),
        ("correct horse battery staple", "$argon2id$v=19$m=1024,t=2,p=2$GQFUP/xooa4$7isVdUnGi7sPpp7smsMqRA"),
        (
            "pässwörd£",
            "$argon2id$v=19$m=32,t=4,p=1$B2z2NvlBm/OxUTBN2VK0raFZyGF7RCkMsAUfhxJudoQ$4obaAtnovOp9MxsqICDd16m7jSOCzAD8PRnwpPZkslKNpUmuknCs5Nz1GDH8NguiWTgfslROh3e/zb1JuSFnnQ",
        ),
        ("hunter2", "$2b$04$HTjZAQWvQus73sumvr2P5e6XMFHn1RmKQFLTxwUBAm3KNnidZ0kXW"),
        ("hunter2", "$2a$04$j4BG.UwcVzUkN/z4bcG6n.Y7GS9obnrPJw9ZkUuXxB4rs07bRD/Qq"),
        ("pässwörd£", "$2b$04$dWsqPtJVkA43HzmxJkIpzuL8j5GPx5g/T/A.FZDC5pGrPTP/UL1eK"),
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$2b$04$t3xbVYgk3pn0XneLG1BpbOhwTkqgcFG9aU/NrDUfSe9trJRZ3USuK",
        ),
        (
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "$2b$04$.Ep6jZmk7t3XImyG5sqsvu7kyoFMz7KuxFzAvfOV/S2dNjTaw12ey",
        ),
        ("x1", "$2y$04$LdGsjcurZWO17MqTVEfEQetOJwcdJ/.uyixX3FwpfAICIbQiTzeia"),
    ];

    fn matches(hash: &str, password: &[u8]) -> bool {
        Password::read(hash).unwrap().matches(password, &mut Memory::default())
    }

    #[test]
    fn a_password_matches_its_hash_and_no_other() {
        for (password, hash) in HASHES {
            assert!(Password::read(hash).unwrap().is_hash());
            assert!(matches(hash, password.as_bytes()), "{hash}");
            let mut others = vec![password.to_uppercase() + "x", format!("{password} "), format!(" {password}")];
            others.push(password.chars().skip(1).collect());
            for other in others {
                assert!(!matches(hash, other.as_bytes()), "{other:?} {hash}");
            }
            assert!(!matches(hash, b"") || password.is_empty(), "{hash}");
            assert!(!matches(hash, hash.as_bytes()), "{hash}");
        }
    }

    #[test]
    fn bcrypt_does_not_let_in_what_it_does_not_see() {
        let long = "a".repeat(73);
        let hash = HASHES.iter().find(|(password, _)| password.len() == 72).unwrap().1;
        assert!(matches(hash, &long.as_bytes()[..72]));
        assert!(!matches(hash, long.as_bytes()));
        let hash = HASHES.iter().find(|(password, hash)| *password == "hunter2" && hash.starts_with("$2")).unwrap().1;
        assert!(matches(hash, b"hunter2"));
        // bcrypt repeats a password, and a zero between: to bcrypt these are the same.
        assert!(!matches(hash, b"hunter2\0hunter2"));
        let of_nothing = "$2b$04$SPOnKvrfHIfEu6jQwtvOL.B1YqV/GVvZRhFbumBldzOgIUIxB9XGm";
        assert!(matches(of_nothing, b"") && !matches(of_nothing, long.as_bytes()));
    }

    #[test]
    fn the_memory_of_one_check_serves_another() {
        let hashes: Vec<_> = HASHES.iter().filter(|(_, hash)| hash.starts_with("$argon2id$")).collect();
        let mut memory = Memory::default();
        for (password, hash) in hashes.iter().chain(hashes.iter().rev()) {
            let hash = Password::read(hash).unwrap();
            assert!(hash.matches(password.as_bytes(), &mut memory));
            assert!(!hash.matches(b"another", &mut memory));
        }
    }

    #[test]
    fn a_hash_that_would_cost_too_much_is_refused() {
        let argon2 =
            |params: &str| format!("$argon2id$v=19${params}$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
        assert!(Password::read(&argon2("m=65536,t=4,p=4")).is_ok());
        for (params, error) in [
            ("m=65537,t=1,p=1", "expected `m` of at most 65536 in the hash, found 65537"),
            ("m=8,t=5,p=1", "expected `t` of at most 4 in the hash, found 5"),
            ("m=64,t=1,p=5", "expected `p` of at most 4 in the hash, found 5"),
            ("m=8,t=1,p=2", "expected an `m` of at least 8 times `p`"),
            ("m=8,t=0,p=1", "expected an `m` of at least"),
            ("m=8,t=1,p=0", "expected an `m` of at least"),
            ("t=1,m=8,p=1", "expected a hash of the form"),
            ("m=8,t=1", "expected a hash of the form"),
            ("m=8,t=1,p=1,keyid=x", "expected a hash of the form"),
            ("m=+8,t=1,p=1", "expected a hash of the form"),
            ("m=99999999999,t=1,p=1", "expected a hash of the form"),
        ] {
            let found = Password::read(&argon2(params)).err().unwrap().to_string();
            assert!(found.starts_with(error), "{params}: {found}");
        }
        let bcrypt = |cost: &str| format!("$2b${cost}$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABCDE");
        assert!(Password::read(&bcrypt("12")).is_ok() && Password::read(&bcrypt("04")).is_ok());
        for (cost, error) in [
            ("13", "expected a cost of 4 to 12 in the hash, found 13"),
            ("31", "expected a cost of 4 to 12 in the hash, found 31"),
            ("03", "expected a cost of 4 to 12 in the hash, found 3"),
            ("4", "expected a hash of the form"),
            ("+4", "expected a hash of the form"),
        ] {
            let found = Password::read(&bcrypt(cost)).err().unwrap().to_string();
            assert!(found.starts_with(error), "{cost}: {found}");
        }
    }

    #[test]
    fn a_hash_that_nobody_checks_is_no_password() {
        for text in [
            "$argon2id$",
            "$argon2id$v=16$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA",
            "$argon2id$v=19$m=8,t=1,p=1$c29t$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ=$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ",
            "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$argon2d$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$2b$10$abc",
            "$2b$10$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABCDEF",
            "$2b$10$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABCD=",
            "$2b$10$äbcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABC",
            "$2x$10$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyzABCDE",
            "$apr1$salt$hash",
            "$6$salt$hash",
            "{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=",
            "",
            " ",
            "${PASSWORD}",
        ] {
            assert!(Password::read(text).is_err(), "{text}");
        }
        for text in ["p", "$", "$money", "2b$10$x", "{sha}", "pa$$word"] {
            assert!(!Password::read(text).unwrap().is_hash(), "{text}");
        }
    }
}
