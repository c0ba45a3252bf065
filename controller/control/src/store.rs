//! What is kept: one SQLite database in the server's folder. Whatever changes who is to have what is on disk before it is done.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::{
    fleet::Member,
    problem::Problem,
    rollout::Rollout,
    token::{Role, Token},
};

/// The form of the tables; a newer one is not touched.
const FORM: i64 = 1;
/// Entries of the audit log that are kept of what was done, and as many of what was refused or agents have caused: the one does not
/// push out the other.
const AUDIT_ENTRIES: i64 = 50_000;
/// After so many new ones the oldest are deleted.
const AUDIT_TRIM: i64 = 64;
/// What was refused, or agents have caused.
macro_rules! caused {
    () => {
        "(outcome = 'refused' OR action IN ('agent.enrol', 'agent.rename', 'config.failed'))"
    };
}
/// Entries of a list that are given at once.
pub const PAGE: usize = 1000;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, role TEXT NOT NULL, hash BLOB NOT NULL,
    created INTEGER NOT NULL, author TEXT NOT NULL, revoked INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS revisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, text TEXT NOT NULL, hash TEXT NOT NULL,
    created INTEGER NOT NULL, author TEXT NOT NULL, note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS agents (uid TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    hash TEXT NOT NULL, uid TEXT NOT NULL, error TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (hash, uid)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollouts (id INTEGER PRIMARY KEY AUTOINCREMENT, document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
    object TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
";
const INDEXES: &str = concat!(
    "CREATE INDEX IF NOT EXISTS audit_caused ON audit (id) WHERE ",
    caused!(),
    "; CREATE INDEX IF NOT EXISTS audit_done ON audit (id) WHERE NOT ",
    caused!(),
    "; CREATE INDEX IF NOT EXISTS revisions_name ON revisions (name, id);"
);

/// The database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// A configuration as it was saved once. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// Its number, among all configurations.
    pub id: i64,
    /// The configuration that it is a revision of.
    pub name: String,
    /// What agents get.
    pub text: String,
    /// SHA-256 of the text, in hexadecimal: what agents report.
    pub hash: String,
    /// When it was saved, ms since 1970.
    pub created: i64,
    /// By whom.
    pub by: String,
    /// Why.
    pub note: String,
}

/// An agent that reported FAILED for a configuration, which it is not offered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Of the configuration's text.
    pub hash: String,
    /// The agent.
    pub uid: String,
    /// What it said.
    pub error: String,
    /// When, ms since 1970.
    pub at: i64,
}

/// Something that somebody did, or was not let do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number.
    pub id: i64,
    /// When, ms since 1970.
    pub at: i64,
    /// Who.
    pub who: String,
    /// What.
    pub action: String,
    /// To what.
    pub object: String,
    /// `done`, or `refused`.
    pub outcome: String,
    /// More, for people.
    pub detail: String,
}

impl Store {
    /// The database at `path`, which is made if it is not there. One process has it at a time.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let failed = |error: rusqlite::Error| {
            let way = match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                    ": another `profiler control serve` has it"
                }
                _ => "",
            };
            Problem::Internal(format!("{} cannot be used: {error}{way}", path.display()))
        };
        let connection = Connection::open(path).map_err(failed)?;
        Self::with(connection).map_err(failed)?.checked(path)
    }

    fn with(connection: Connection) -> rusqlite::Result<Self> {
        // A power cut loses nothing that was said to be done.
        connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN EXCLUSIVE; COMMIT;",
        )?;
        Ok(Self { connection })
    }

    fn checked(self, path: &Path) -> Result<Self, Problem> {
        let form: i64 = self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if form > FORM {
            let text =
                format!("{} was written by a newer version (form {form}, this one knows {FORM})", path.display());
            return Err(Problem::Internal(text));
        }
        self.connection.execute_batch(&format!("BEGIN; {TABLES} {INDEXES} PRAGMA user_version = {FORM}; COMMIT;"))?;
        Ok(self)
    }

    /// Has the audit log take nothing any more, or again.
    #[cfg(test)]
    pub(crate) fn break_audit(&self, is_broken: bool) {
        let (from, to) = if is_broken { ("audit", "away") } else { ("away", "audit") };
        self.connection.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).unwrap();
    }

    /// Has all of `act` on disk, or nothing.
    ///
    /// # Errors
    /// Those of `act`, or the database's.
    pub fn whole<T>(&self, act: impl FnOnce(&Self) -> Result<T, Problem>) -> Result<T, Problem> {
        let transaction = self.connection.unchecked_transaction()?;
        let result = act(self)?;
        transaction.commit()?;
        Ok(result)
    }

    fn all<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Problem> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(parameters, read)?.collect::<Result<_, _>>()?;
        Ok(rows)
    }

    /// Keeps a new token; its number.
    pub(crate) fn add_token(
        &self,
        name: &str,
        role: Role,
        hash: &[u8; 32],
        by: &str,
        now: i64,
    ) -> Result<i64, Problem> {
        let sql = "INSERT INTO tokens (name, role, hash, created, author) VALUES (?, ?, ?, ?, ?)";
        self.connection.execute(sql, params![name, role.name(), hash.as_slice(), now, by])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub(crate) fn revoke_token(&self, id: i64, now: i64) -> Result<(), Problem> {
        self.connection.execute("UPDATE tokens SET revoked = ? WHERE id = ? AND revoked IS NULL", params![now, id])?;
        Ok(())
    }

    pub(crate) fn tokens(&self) -> Result<Vec<Token>, Problem> {
        self.all("SELECT id, name, role, hash, created, author, revoked FROM tokens ORDER BY id", [], |row| {
            let role: String = row.get(2)?;
            // What is no role allows nothing that people may do.
            let role = Role::ALL.iter().find(|(name, _)| *name == role).map_or(Role::Agent, |(_, role)| *role);
            Ok(Token {
                id: row.get(0)?,
                name: row.get(1)?,
                role,
                hash: row.get(3)?,
                created: row.get(4)?,
                by: row.get(5)?,
                revoked: row.get(6)?,
            })
        })
    }

    /// Keeps a new revision; its number.
    pub(crate) fn add_revision(&self, revision: &Revision) -> Result<i64, Problem> {
        let Revision { name, text, hash, created, by, note, .. } = revision;
        let sql = "INSERT INTO revisions (name, text, hash, created, author, note) VALUES (?, ?, ?, ?, ?, ?)";
        self.connection.execute(sql, params![name, text, hash, created, by, note])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub(crate) fn revision(&self, id: i64) -> Result<Option<Revision>, Problem> {
        let sql = "SELECT id, name, text, hash, created, author, note FROM revisions WHERE id = ?";
        Ok(self.connection.prepare_cached(sql)?.query_row([id], revision).optional()?)
    }

    /// The newest first, without their texts; of one configuration, if it is named.
    pub(crate) fn revisions(&self, name: Option<&str>) -> Result<Vec<Revision>, Problem> {
        let of = if name.is_some() { "name = ?1" } else { "?1 IS NULL" };
        let sql = format!(
            "SELECT id, name, '', hash, created, author, note FROM revisions WHERE {of} ORDER BY id DESC LIMIT ?2"
        );
        self.all(&sql, params![name, PAGE as i64], revision)
    }

    /// The number of the newest of a configuration; 0 if there is none.
    pub(crate) fn newest_revision(&self, name: &str) -> Result<i64, Problem> {
        let sql = "SELECT coalesce(max(id), 0) FROM revisions WHERE name = ?";
        Ok(self.connection.prepare_cached(sql)?.query_row([name], |row| row.get(0))?)
    }

    /// How many there are, of all configurations. None is ever deleted.
    pub(crate) fn revision_count(&self) -> Result<i64, Problem> {
        let sql = "SELECT count(*) FROM revisions";
        Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// Writes what is there already: whether something can be written.
    pub(crate) fn try_write(&self) -> Result<(), Problem> {
        Ok(self.connection.pragma_update(None, "user_version", FORM)?)
    }

    /// Whether the database answers.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        Ok(self.connection.prepare_cached("SELECT 1 FROM sqlite_schema")?.query_row([], |_| Ok(()))?)
    }

    /// How many bytes that is.
    pub(crate) fn put_agent(&self, uid: &str, member: &Member) -> Result<usize, Problem> {
        let document = text(member)?;
        let sql = "INSERT INTO agents (uid, document) VALUES (?1, ?2) ON CONFLICT (uid) DO UPDATE SET document = ?2";
        self.connection.prepare_cached(sql)?.execute(params![uid, document])?;
        Ok(document.len())
    }

    pub(crate) fn remove_agent(&self, uid: &str) -> Result<(), Problem> {
        self.connection.execute("DELETE FROM agents WHERE uid = ?", [uid])?;
        self.connection.execute("DELETE FROM failures WHERE uid = ?", [uid])?;
        Ok(())
    }

    /// Has what is known of agent `from` known of `to`, in one go.
    pub(crate) fn rename_agent(&self, from: &str, to: &str, member: &Member) -> Result<(), Problem> {
        self.whole(|store| {
            store.put_agent(to, member)?;
            store.connection.execute("UPDATE OR REPLACE failures SET uid = ?2 WHERE uid = ?1", [from, to])?;
            store.remove_agent(from)
        })
    }

    pub(crate) fn agents(&self) -> Result<Vec<(String, Member)>, Problem> {
        let rows = self.all("SELECT uid, document FROM agents", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.into_iter().map(|(uid, document): (String, String)| Ok((uid, parsed(&document)?))).collect()
    }

    pub(crate) fn add_failure(&self, failure: &Failure) -> Result<(), Problem> {
        let Failure { hash, uid, error, at } = failure;
        let sql = "INSERT INTO failures (hash, uid, error, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
        self.connection.execute(sql, params![hash, uid, error, at])?;
        Ok(())
    }

    pub(crate) fn failures(&self) -> Result<Vec<Failure>, Problem> {
        self.all("SELECT hash, uid, error, at FROM failures", [], |row| {
            Ok(Failure { hash: row.get(0)?, uid: row.get(1)?, error: row.get(2)?, at: row.get(3)? })
        })
    }

    /// A number for a new rollout.
    pub(crate) fn next_rollout(&self) -> Result<i64, Problem> {
        self.connection.execute("INSERT INTO rollouts (document) VALUES ('')", [])?;
        Ok(self.connection.last_insert_rowid())
    }

    pub(crate) fn put_rollout(&self, rollout: &Rollout) -> Result<(), Problem> {
        let sql = "UPDATE rollouts SET document = ?2 WHERE id = ?1";
        self.connection.execute(sql, params![rollout.id, text(rollout)?])?;
        Ok(())
    }

    pub(crate) fn rollouts(&self) -> Result<Vec<Rollout>, Problem> {
        let rows: Vec<String> =
            self.all("SELECT document FROM rollouts WHERE document != '' ORDER BY id", [], |row| row.get(0))?;
        rows.iter().map(|document| parsed(document)).collect()
    }

    pub(crate) fn note(&self, entry: &Entry) -> Result<(), Problem> {
        let Entry { at, who, action, object, outcome, detail, .. } = entry;
        let sql = "INSERT INTO audit (at, who, action, object, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)";
        self.connection.prepare_cached(sql)?.execute(params![at, who, action, object, outcome, detail])?;
        if self.connection.last_insert_rowid() % AUDIT_TRIM == 0 {
            self.trim_audit(AUDIT_ENTRIES)?;
        }
        Ok(())
    }

    /// Deletes the oldest entries of each of the two kinds, but for `kept`.
    pub(crate) fn trim_audit(&self, kept: i64) -> Result<(), Problem> {
        for sql in [
            concat!(
                "DELETE FROM audit WHERE ",
                caused!(),
                " AND id <= (SELECT id FROM audit WHERE ",
                caused!(),
                " ORDER BY id DESC LIMIT 1 OFFSET ?)"
            ),
            concat!(
                "DELETE FROM audit WHERE NOT ",
                caused!(),
                " AND id <= (SELECT id FROM audit WHERE NOT ",
                caused!(),
                " ORDER BY id DESC LIMIT 1 OFFSET ?)"
            ),
        ] {
            self.connection.prepare_cached(sql)?.execute([kept])?;
        }
        Ok(())
    }

    /// The newest first, of those before number `before`.
    pub(crate) fn audit(&self, before: i64, limit: usize) -> Result<Vec<Entry>, Problem> {
        let sql =
            "SELECT id, at, who, action, object, outcome, detail FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?";
        self.all(sql, params![before, i64::try_from(limit.min(PAGE)).unwrap_or_default()], |row| {
            Ok(Entry {
                id: row.get(0)?,
                at: row.get(1)?,
                who: row.get(2)?,
                action: row.get(3)?,
                object: row.get(4)?,
                outcome: row.get(5)?,
                detail: row.get(6)?,
            })
        })
    }
}

fn revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        id: row.get(0)?,
        name: row.get(1)?,
        text: row.get(2)?,
        hash: row.get(3)?,
        created: row.get(4)?,
        by: row.get(5)?,
        note: row.get(6)?,
    })
}

fn text(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| Problem::Internal(format!("it cannot be kept: {error}")))
}

fn parsed<T: serde::de::DeserializeOwned>(document: &str) -> Result<T, Problem> {
    serde_json::from_str(document).map_err(|error| Problem::Internal(format!("the database has what is none: {error}")))
}
