//! What `nextkernel` does by day: everything that can be decided is decided while a person can read an
//! error. A command is a file in `commands/`; the folders below it are layers, the lowest first here.

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
