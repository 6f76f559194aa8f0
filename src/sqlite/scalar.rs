//! Scalar functions: arguments and results as Rust values, errors as messages, panics kept in.

use super::connection::Connection;
use crate::error::{Error, Result};
use crate::panic::guard;
use sqlite_loadable::scalar::{FunctionFlags, define_scalar_function};
use sqlite_loadable::{api, prelude::*};

/// A value of SQL.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

/// One arity of a scalar function.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its number of arguments.
    pub arguments: i32,
    /// What it does, on the calling thread.
    pub call: fn(Connection, &[Value]) -> Result<Value>,
}

/// Defines it on a connection. Not to be called from triggers and views (DIRECTONLY): it has effects outside.
pub fn define_function(db: Connection, function: &'static Function) -> Result<()> {
    let body = |context: *mut sqlite3_context, values: &[*mut sqlite3_value]| {
        let db = Connection::new(api::context_db_handle(context).cast());
        let outcome = guard(|| {
            let values = values.iter().map(value_of).collect::<Result<Vec<_>>>()?;
            (function.call)(db, &values)
        });
        match outcome.and_then(|r| r) {
            Ok(value) => give(context, &value),
            Err(error) => Err(sqlite_loadable::Error::new_message(error.to_string())),
        }
    };
    let flags = FunctionFlags::UTF8 | FunctionFlags::DIRECTONLY;
    define_scalar_function(db.raw().cast(), function.name, function.arguments, body, flags)
        .map_err(|e| Error::bug(format!("{}: {}", function.name, e.result_error_message())))
}

/// An argument as a value; a blob is taken as text.
pub(super) fn value_of(value: &*mut sqlite3_value) -> Result<Value> {
    Ok(match api::value_type(value) {
        api::ValueType::Null => Value::Null,
        api::ValueType::Integer => Value::Integer(api::value_int64(value)),
        api::ValueType::Float => Value::Real(api::value_double(value)),
        api::ValueType::Text | api::ValueType::Blob => {
            Value::Text(api::value_text(value).map_err(|_| Error::invalid("an argument is not UTF-8"))?.to_owned())
        }
    })
}

/// Sets a result.
pub(super) fn give(context: *mut sqlite3_context, value: &Value) -> sqlite_loadable::Result<()> {
    match value {
        Value::Null => api::result_null(context),
        Value::Integer(i) => api::result_int64(context, *i),
        Value::Real(r) => api::result_double(context, *r),
        Value::Text(text) => api::result_text(context, text)?,
    }
    Ok(())
}
