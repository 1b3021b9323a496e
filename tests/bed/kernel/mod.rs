//! Kernels that are made for tests.

pub mod signed;
pub mod stub;
