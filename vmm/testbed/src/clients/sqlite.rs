//! The client of a Linux guest's SQLite database: its service is the shell sqlite3(1), one process for each connection,
//! which executes the lines that it receives.

use super::CounterService;

/// Name of the database's table in counts.
pub const TABLE: &str = "numbers";

/// Inserts a row and answers with its number. The shell executes the query when the insertion is committed and, with
/// `PRAGMA synchronous=FULL`, durable (sqlite.org/pragma.html#pragma_synchronous).
pub const INSERTIONS: CounterService = CounterService {
    port: 6380,
    request: b"INSERT INTO numbers DEFAULT VALUES; SELECT last_insert_rowid();\n",
    answer_prefix: "",
};
