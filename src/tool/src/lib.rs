//! nextkernel, the tool. It decides everything that can be decided while the system runs, when a person can
//! read an error. The directories are layers, the lowest first here; each uses its own files and those of the
//! layers before it (tests/layers.rs).

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

pub mod status;

pub mod commands;

pub mod cli;
