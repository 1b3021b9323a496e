//! The day of nextkernel: everything that can be decided is decided while a person can read an error. The folders are
//! layers, the lowest first here; each uses its own files and those of the layers before it (tests/layers.rs).

pub mod words;

pub mod machine;

pub mod image;

pub mod request;

pub mod entries;

pub mod freeing;

pub mod report;

pub mod loading;

pub mod staging;

pub mod check;

pub mod commands;

pub mod cli;
