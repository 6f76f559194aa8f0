//! Table-valued functions: rows are made when the scan starts, and then stepped through.

use super::connection::Connection;
use super::scalar::{Value, give, value_of};
use crate::error::{Error, Result};
use crate::panic::guard;
use sqlite_loadable::prelude::*;
use sqlite_loadable::table::{
    BestIndexError, ConstraintOperator, IndexInfo, VTab, VTabArguments, VTabCursor, define_table_function,
};

/// Values in the order of the columns.
pub type Row = Vec<Value>;

/// A table-valued function.
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns with their types, as in CREATE TABLE.
    pub columns: &'static [&'static str],
    /// The name of its argument, if it takes one; a hidden column.
    pub argument: Option<&'static str>,
    /// Makes the rows, on the thread of the connection that asks.
    pub rows: fn(Connection, Option<&Value>) -> Result<Vec<Row>>,
}

/// Defines it on a connection.
pub fn define_table(db: Connection, table: &'static Table) -> Result<()> {
    define_table_function::<Rows>(db.raw().cast(), table.name, Some(table))
        .map_err(|e| Error::bug(format!("{}: {}", table.name, e.result_error_message())))
}

#[repr(C)]
struct Rows {
    base: sqlite3_vtab,
    db: Connection,
    table: &'static Table,
}

impl<'vtab> VTab<'vtab> for Rows {
    type Aux = &'static Table;
    type Cursor = RowsCursor;

    fn connect(
        db: *mut sqlite3,
        aux: Option<&Self::Aux>,
        _args: VTabArguments,
    ) -> sqlite_loadable::Result<(String, Self)> {
        let Some(table) = aux.copied() else { return Err(failed(&Error::bug("a table without its definition"))) };
        let mut columns = table.columns.join(", ");
        if let Some(argument) = table.argument {
            columns.push_str(&format!(", {argument} TEXT HIDDEN"));
        }
        // SAFETY: all-zero is what SQLite expects of a new sqlite3_vtab.
        let base = unsafe { std::mem::zeroed() };
        Ok((format!("CREATE TABLE x({columns})"), Self { base, db: Connection::new(db.cast()), table }))
    }

    fn best_index(&self, mut info: IndexInfo) -> core::result::Result<(), BestIndexError> {
        info.set_estimated_cost(1000.0);
        info.set_estimated_rows(100);
        if self.table.argument.is_none() {
            return Ok(());
        }
        for mut constraint in info.constraints() {
            if constraint.column_idx() as usize == self.table.columns.len()
                && constraint.op() == Some(ConstraintOperator::EQ)
            {
                if !constraint.usable() {
                    return Err(BestIndexError::Constraint);
                }
                constraint.set_argv_index(1);
                constraint.set_omit(true);
                return Ok(());
            }
        }
        Ok(())
    }

    fn open(&'vtab mut self) -> sqlite_loadable::Result<RowsCursor> {
        // SAFETY: as in `connect`.
        let base = unsafe { std::mem::zeroed() };
        Ok(RowsCursor { base, db: self.db, table: self.table, rows: Vec::new(), at: 0 })
    }
}

#[repr(C)]
struct RowsCursor {
    base: sqlite3_vtab_cursor,
    db: Connection,
    table: &'static Table,
    rows: Vec<Row>,
    at: usize,
}

impl VTabCursor for RowsCursor {
    fn filter(
        &mut self,
        _number: std::os::raw::c_int,
        _text: Option<&str>,
        values: &[*mut sqlite3_value],
    ) -> sqlite_loadable::Result<()> {
        let (db, table) = (self.db, self.table);
        let rows = guard(|| {
            let argument = values.first().map(value_of).transpose()?;
            if let (Some(name), None) = (table.argument, &argument) {
                return Err(Error::invalid(format!("{0}: give its {name}, as in {0}('file:///…')", table.name)));
            }
            (table.rows)(db, argument.as_ref())
        });
        self.rows = rows.and_then(|r| r).map_err(|e| failed(&e))?;
        self.at = 0;
        Ok(())
    }

    fn next(&mut self) -> sqlite_loadable::Result<()> {
        self.at += 1;
        Ok(())
    }

    fn eof(&self) -> bool {
        self.at >= self.rows.len()
    }

    fn column(&self, context: *mut sqlite3_context, column: std::os::raw::c_int) -> sqlite_loadable::Result<()> {
        let value = self.rows.get(self.at).and_then(|row| row.get(usize::try_from(column).ok()?));
        give(context, value.unwrap_or(&Value::Null))
    }

    fn rowid(&self) -> sqlite_loadable::Result<i64> {
        Ok(self.at as i64)
    }
}

/// The crate uses a message as a format of sqlite3_mprintf: a per cent sign is doubled.
fn failed(error: &Error) -> sqlite_loadable::Error {
    sqlite_loadable::Error::new_message(error.to_string().replace('%', "%%"))
}
