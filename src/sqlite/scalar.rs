//! Scalar functions: arguments and results as Rust values, errors as messages, panics kept in.

use super::api::call;
use super::connection::Connection;
use crate::error::{Error, Result};
use crate::panic::guard;
use sqlite_loadable::{api, prelude::*};
use sqlite3ext_sys as ffi;
use std::ffi::{CString, c_int, c_void};

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
    /// It has effects outside, so it is not to be called from triggers and views (DIRECTONLY).
    pub has_effects: bool,
}

/// Defines it on a connection. By SQLite's own routine: that of `sqlite_loadable` boxes a closure, which is never freed.
pub fn define_function(db: Connection, function: &'static Function) -> Result<()> {
    let name = CString::new(function.name).map_err(|_| Error::bug("a function's name"))?;
    let direct_only = if function.has_effects { ffi::SQLITE_DIRECTONLY } else { 0 };
    let flags = (ffi::SQLITE_UTF8 | direct_only) as c_int;
    let data = std::ptr::from_ref(function).cast_mut().cast::<c_void>();
    // SAFETY: the connection is open; the user data is static.
    let rc = unsafe {
        call!(create_function_v2(db.raw(), name.as_ptr(), function.arguments, flags, data, Some(run), None, None, None))
    };
    if rc == 0 { Ok(()) } else { Err(Error::bug(format!("{}: SQLite result {rc}", function.name))) }
}

unsafe extern "C" fn run(context: *mut ffi::sqlite3_context, count: c_int, values: *mut *mut ffi::sqlite3_value) {
    let outcome = guard(|| {
        // SAFETY: called by SQLite for a function that was defined above, with `count` values.
        let (function, db, values) = unsafe {
            let function = &*call!(user_data(context)).cast::<Function>();
            let values = if count > 0 { std::slice::from_raw_parts(values, count as usize) } else { &[] };
            (function, Connection::new(call!(context_db_handle(context))), values)
        };
        let values = values.iter().map(|value| value_of(&value.cast())).collect::<Result<Vec<_>>>()?;
        (function.call)(db, &values)
    });
    let _ = guard(|| match outcome.and_then(|r| r) {
        Ok(value) => {
            let _ = give(context.cast(), &value);
        }
        Err(error) => {
            let text = error.to_string();
            // SAFETY: SQLite copies the text of that length.
            unsafe { call!(result_error(context, text.as_ptr().cast(), text.len() as c_int)) };
        }
    });
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
