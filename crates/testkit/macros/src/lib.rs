//! The attribute `#[testkit::test]`.
//!
//! An attribute macro needs its own crate. This one only reads the name of the function, so it needs no Rust parser.

use proc_macro::{TokenStream, TokenTree};

/// Registers a function without parameters as a test of this binary. The test is named after the function's path.
///
/// With `#[testkit::test(requires = EXPRESSION)]`, the test is skipped if EXPRESSION, a `Result<(), String>`, is an
/// error. The harness shows the error as the reason.
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, function: TokenStream) -> TokenStream {
    let requirement = match requirement(attribute) {
        Ok(requirement) => requirement,
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
                requirement: {requirement},
                function: {name},
            }}
        }}"
    );
    let registration: TokenStream = registration.parse().expect("valid Rust");
    function.into_iter().chain(registration).collect()
}

/// Returns Rust code for the test's requirement: `Some` with a closure, or `None`.
fn requirement(attribute: TokenStream) -> Result<String, &'static str> {
    const USAGE: &str = "write #[testkit::test] or #[testkit::test(requires = EXPRESSION)]";
    let mut tokens = attribute.into_iter();
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok("None".to_owned()),
        (Some(TokenTree::Ident(name)), Some(TokenTree::Punct(equals)))
            if name.to_string() == "requires" && equals.as_char() == '=' =>
        {
            let expression: TokenStream = tokens.collect();
            Ok(format!("Some(|| {expression})"))
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
    format!("compile_error!({message:?});").parse().expect("valid Rust")
}
