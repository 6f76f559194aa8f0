//! Tests of the format as a whole: the constants of upstream's tests, real files, and properties.

mod constants;
mod vectors;
