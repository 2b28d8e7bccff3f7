//! The full-text index, in parts by time.
//!
//! Taking an event out of an index costs as much as putting it in. So the index has parts (generations), and a part is
//! dropped as a whole once few of its events are left; these are put into the current part first. An event that is erased,
//! or whose body expires, is taken out at once, and its bytes are overwritten.

use rusqlite::{Connection, params};

/// The most bytes of a body that are indexed.
const MAX_INDEXED: usize = 4 << 10;

/// A part of the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gen {
    pub(super) number: i64,
    /// When it was begun, in microseconds.
    began: i64,
    /// The bytes of text that were put in.
    bytes: u64,
    /// The texts that were put in.
    events: u64,
    /// The bytes of the texts whose events are left.
    live: u64,
}

/// The parts of the index, oldest first.
#[derive(Debug, Default)]
pub(super) struct Gens {
    gens: Vec<Gen>,
    is_changed: bool,
}

impl Gens {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare("SELECT gen, began, bytes, events, live FROM gens ORDER BY gen")?;
        let count = |row: &rusqlite::Row<'_>, at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.max(0) as u64);
        let gens = statement.query_map([], |row| {
            let (number, began) = (row.get(0)?, row.get(1)?);
            Ok(Gen { number, began, bytes: count(row, 2)?, events: count(row, 3)?, live: count(row, 4)? })
        })?;
        Ok(Self { gens: gens.collect::<Result<_, _>>()?, is_changed: false })
    }

    /// Puts a text into the current part. Returns its number.
    pub(super) fn insert(&mut self, connection: &Connection, n: i64, text: &str) -> rusqlite::Result<i64> {
        let Some(current) = self.gens.last_mut() else { return Ok(0) };
        let insert = format!("INSERT INTO text_{}(rowid, text) VALUES(?, ?)", current.number);
        connection.prepare_cached(&insert)?.execute(params![n, text])?;
        current.bytes += text.len() as u64;
        current.events += 1;
        current.live += text.len() as u64;
        self.is_changed = true;
        Ok(current.number)
    }

    /// Takes a text out of a part, and overwrites it.
    pub(super) fn remove(&mut self, connection: &Connection, gen_: i64, n: i64, text: &str) -> rusqlite::Result<()> {
        if self.gens.iter().any(|gen_of| gen_of.number == gen_) {
            let remove = format!("INSERT INTO text_{gen_}(text_{gen_}, rowid, text) VALUES('delete', ?, ?)");
            connection.prepare_cached(&remove)?.execute(params![n, text])?;
            self.forget(gen_, text.len() as u64);
        }
        Ok(())
    }

    /// Counts a text of a part as gone. Its bytes stay until the part is dropped.
    pub(super) fn forget(&mut self, gen_: i64, bytes: u64) {
        if let Some(found) = self.gens.iter_mut().find(|found| found.number == gen_) {
            found.live = found.live.saturating_sub(bytes);
            self.is_changed = true;
        }
    }

    /// Begins a part, unless the current one is neither full nor old.
    pub(super) fn begin(
        &mut self,
        connection: &Connection,
        now: i64,
        max_bytes: u64,
        max_age: i64,
    ) -> rusqlite::Result<()> {
        let is_fine = |current: &Gen| current.bytes < max_bytes && now.saturating_sub(current.began) < max_age;
        if self.gens.last().is_some_and(|current| is_fine(current) || current.events == 0) {
            return Ok(());
        }
        let number = self.gens.last().map_or(1, |current| current.number + 1);
        connection.execute_batch(&format!(
            "CREATE VIRTUAL TABLE text_{number} USING fts5(text, content='', columnsize=0, tokenize='unicode61 remove_diacritics 2');
             INSERT INTO text_{number}(text_{number}, rank) VALUES('secure-delete', 1);"
        ))?;
        connection.execute("INSERT INTO gens VALUES(?, ?, 0, 0, 0)", [number, now])?;
        self.gens.push(Gen { number, began: now, ..Gen::default() });
        Ok(())
    }

    /// The oldest part of which at most one in `of` bytes is left. Never the current one.
    pub(super) fn sparse(&self, of: u64) -> Option<i64> {
        let past = self.gens.split_last().map_or(&[][..], |(_, past)| past);
        past.iter().find(|found| found.live <= found.bytes / of).map(|found| found.number)
    }

    /// Drops a part. No event may be in it.
    pub(super) fn drop(&mut self, connection: &Connection, gen_: i64) -> rusqlite::Result<()> {
        connection.flush_prepared_statement_cache();
        connection.execute_batch(&format!("DROP TABLE text_{gen_}"))?;
        connection.execute("DELETE FROM gens WHERE gen = ?", [gen_])?;
        self.gens.retain(|found| found.number != gen_);
        Ok(())
    }

    /// Drops all parts: the index is switched off.
    pub(super) fn drop_all(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for found in self.gens.clone() {
            self.drop(connection, found.number)?;
        }
        connection.execute("UPDATE events SET gen = 0 WHERE gen != 0", [])?;
        Ok(())
    }

    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if std::mem::take(&mut self.is_changed) {
            let mut update =
                connection.prepare_cached("UPDATE gens SET bytes = ?, events = ?, live = ? WHERE gen = ?")?;
            for found in &self.gens {
                update.execute([found.bytes as i64, found.events as i64, found.live as i64, found.number])?;
            }
        }
        Ok(())
    }
}

/// The text of an event in the index. The same event has the same text whenever it is asked for: without it, it could not
/// be taken out.
pub(super) fn text(
    id: &str,
    key: &str,
    reason: Option<&str>,
    peer: Option<&str>,
    body: Option<&[u8]>,
    is_form: bool,
) -> String {
    let mut text = format!("{id} {key} {} {} ", reason.unwrap_or(""), peer.unwrap_or(""));
    let body = body.unwrap_or_default();
    let beginning = &body[..body.len().min(MAX_INDEXED)];
    match str::from_utf8(beginning) {
        Ok(beginning) if is_form => text.push_str(&decoded(beginning)),
        Ok(beginning) => text.push_str(beginning),
        // Only its last character is cut off.
        Err(error) if error.error_len().is_none() => {
            text.push_str(str::from_utf8(&beginning[..error.valid_up_to()]).unwrap_or_default());
        }
        // Not a text.
        Err(_) => {}
    }
    // SQLite would take it for the end.
    text.replace('\0', " ")
}

/// A form as it reads: its escapes decoded.
fn decoded(form: &str) -> String {
    let mut bytes = Vec::with_capacity(form.len());
    let mut rest = form.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let digit = |at: usize| behind.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The expression that finds texts with these words, one after the other. The last word may go on, if it is long enough
/// for that not to find nearly everything. Whatever `text` has in it is text, and no syntax.
pub(super) fn expression(text: &str) -> String {
    let text: String = text.chars().take(500).map(|c| if c == '\0' { ' ' } else { c }).collect();
    let last = text.rsplit(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty()).unwrap_or("");
    let star = if last.chars().count() >= 3 { "*" } else { "" };
    format!("\"{}\"{star}", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_one_quoted_phrase() {
        assert_eq!(expression("order 17"), "\"order 17\"");
        assert_eq!(expression("order 1743"), "\"order 1743\"*");
        assert_eq!(expression("a\" OR \"b"), "\"a\"\" OR \"\"b\"");
        assert_eq!(expression("NEAR(abc)"), "\"NEAR(abc)\"*");
        assert_eq!(expression(""), "\"\"");
        assert_eq!(expression(&"x".repeat(10_000)).len(), 503);
    }

    #[test]
    fn the_text_of_an_event_has_what_it_is_searched_by() {
        let form = text("id", "ns/hook", None, Some("::1"), Some(b"a=b+c%20d&e=%C3%A9%zz"), true);
        assert_eq!(form, "id ns/hook  ::1 a=b c d&e=\u{e9}%zz");
        let cut = "\u{e9}".repeat(MAX_INDEXED);
        assert_eq!(text("", "", None, None, Some(&cut.as_bytes()[1..]), false).len(), 4, "not UTF-8");
        assert!(text("", "", None, None, Some(format!("x{cut}").as_bytes()), false).ends_with('\u{e9}'));
        assert_eq!(text("", "", Some("a\0b"), None, None, false), "  a b  ");
    }
}
