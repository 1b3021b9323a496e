//! Extracts the hook's messages from its sources: every string that is a sentence or a part of one.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Expr, ExprLit, Lit, LitStr};

/// A string of the sources.
#[derive(Clone, Debug)]
pub struct Literal {
    /// The text, with `{}` for each placeholder.
    pub text: String,
    /// `info`, `warn` or `error`, if the string is in that macro or announces an act.
    pub level: Option<&'static str>,
    /// File and line, for messages to a person.
    pub at: String,
}

impl Literal {
    /// Returns whether the string is meant for a person: it has more than one word, or a level. A placeholder
    /// alone does not count; its text comes from elsewhere.
    pub fn is_sentence(&self) -> bool {
        let words = self.text.replace("{}", "");
        let words = words.trim();
        words.contains(char::is_alphabetic) && (words.contains(' ') || self.level.is_some())
            || self.level.is_some() && self.text.trim_matches(['{', '}']).contains(' ')
    }
}

/// Returns every Rust file at and below a path of the repository.
pub fn files_below(path: &str) -> Vec<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path);
    if path.is_file() {
        return vec![path];
    }
    let mut files = Vec::new();
    let mut directories = vec![path];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns the strings of these files, except for those in tests and attributes.
pub fn literals_below(path: &str) -> Vec<Literal> {
    let mut found = Vec::new();
    for file in files_below(path) {
        let syntax = syn::parse_file(&fs::read_to_string(&file).unwrap()).unwrap();
        let mut reader =
            Reader { file: file.file_name().unwrap().to_string_lossy().into_owned(), found: Vec::new() };
        reader.visit_file(&syntax);
        found.extend(reader.found);
    }
    found
}

struct Reader {
    file: String,
    found: Vec<Literal>,
}

impl Reader {
    fn take(&mut self, text: &str, level: Option<&'static str>, span: Span) {
        let at = format!("{}:{}", self.file, span.start().line);
        self.found.push(Literal { text: with_bare_placeholders(text), level, at });
    }

    fn tokens(&mut self, tokens: TokenStream, mut level: Option<&'static str>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream(), None),
                TokenTree::Literal(literal) => {
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.take(&text.value(), level.take(), literal.span());
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }

    // HELP is the text of --help, which is compared elsewhere.
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        if item.ident != "HELP" {
            visit::visit_item_const(self, item);
        }
    }

    fn visit_item_macro(&mut self, _: &'ast syn::ItemMacro) {}

    // The strings that format the plan's file are not sentences.
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let is_plan = matches!(&*item.self_ty, syn::Type::Path(path)
            if path.path.segments.last().is_some_and(|last| last.ident == "Plan"));
        let is_display = item.trait_.as_ref().and_then(|(path, ..)| path.segments.last());
        if !(is_plan && is_display.is_some_and(|last| last.ident == "Display")) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_lit_str(&mut self, literal: &'ast LitStr) {
        self.take(&literal.value(), None, literal.span());
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let says = ["act", "look", "say"].iter().any(|name| call.method == name);
        match call.args.first() {
            Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) if says => {
                self.take(&text.value(), Some("info"), text.span());
                self.visit_expr(&call.receiver);
                call.args.iter().skip(1).for_each(|argument| self.visit_expr(argument));
            }
            Some(Expr::Macro(format)) if says => {
                self.tokens(format.mac.tokens.clone(), Some("info"));
                self.visit_expr(&call.receiver);
                call.args.iter().skip(1).for_each(|argument| self.visit_expr(argument));
            }
            _ => visit::visit_expr_method_call(self, call),
        }
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        if called.path.segments.last().is_some_and(|last| last.ident.to_string().ends_with("asm")) {
            return;
        }
        let level = ["info", "warn", "error"].into_iter().find(|name| called.path.is_ident(name));
        self.tokens(called.tokens.clone(), level);
    }
}

/// Returns a format string with `{}` for each placeholder, whatever it contains.
fn with_bare_placeholders(text: &str) -> String {
    let mut bare = String::new();
    let mut inside = false;
    for character in text.chars() {
        match character {
            '{' => {
                inside = true;
                bare.push('{');
            }
            '}' => {
                inside = false;
                bare.push('}');
            }
            _ if inside => {}
            other => bare.push(other),
        }
    }
    bare
}
