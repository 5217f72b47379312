//! The attribute `#[testkit::test]`.
//!
//! An attribute macro needs its own crate. This one reads only the attribute and the name of the function, so it needs
//! no Rust parser.

use proc_macro::{TokenStream, TokenTree};

/// Registers a function without parameters as a test of this binary. The test is named after the function's path.
///
/// With `#[testkit::test(requires = EXPRESSION)]`, the test is skipped if EXPRESSION, a `Result<(), String>`, is an
/// error. The harness shows the error as the reason. With `#[testkit::test(alone)]` or
/// `#[testkit::test(alone, requires = EXPRESSION)]`, no other test of this binary runs at the same time.
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, function: TokenStream) -> TokenStream {
    let (alone, requirement) = match parse_attribute(attribute) {
        Ok(parsed) => parsed,
        Err(error) => return compile_error(error),
    };
    let Some(name) = function_name(function.clone()) else {
        return compile_error("#[testkit::test] belongs on a function");
    };
    let registration = format!(
        "::testkit::harness::submit! {{
            ::testkit::harness::Test {{
                module: module_path!(),
                name: stringify!({name}),
                alone: {alone},
                requirement: {requirement},
                function: {name},
            }}
        }}"
    );
    let registration: TokenStream = registration.parse().expect("the generated code is valid Rust");
    function.into_iter().chain(registration).collect()
}

/// Returns whether the test runs alone, and Rust code for its requirement: `Some` with a closure, or `None`.
fn parse_attribute(attribute: TokenStream) -> Result<(bool, String), &'static str> {
    const USAGE: &str =
        "expected #[testkit::test], optionally with (alone), (requires = EXPRESSION) or (alone, requires = EXPRESSION)";
    let mut tokens = attribute.into_iter().peekable();
    let alone = tokens.next_if(|token| token.to_string() == "alone").is_some();
    if alone {
        tokens.next_if(|token| token.to_string() == ",");
    }
    let names_requirement = tokens.peek().is_some_and(|token| token.to_string() == "requires");
    match (names_requirement, tokens.next(), tokens.next()) {
        (false, None, _) => Ok((alone, "None".to_owned())),
        (true, _, Some(TokenTree::Punct(equals))) if equals.as_char() == '=' => {
            let expression: TokenStream = tokens.collect();
            Ok((alone, format!("Some(|| {expression})")))
        }
        _ => Err(USAGE),
    }
}

/// Returns the identifier after `fn`.
fn function_name(function: TokenStream) -> Option<String> {
    let mut tokens = function.into_iter();
    tokens.find(|token| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn"))?;
    match tokens.next()? {
        TokenTree::Ident(name) => Some(name.to_string()),
        _ => None,
    }
}

fn compile_error(message: &str) -> TokenStream {
    format!("compile_error!({message:?});").parse().expect("the generated code is valid Rust")
}
