//! The page, in Leptos, rendered in the browser. What it knows and how that changes lies in [`crate::state`]; here it is
//! shown, and what the visitor does is handed on. All work is done by the worker, through [`link`].
//!
//! Texts of manifests, files and models only ever become text nodes, and nothing sets a `style` attribute, so that the
//! page's Content-Security-Policy can forbid inline scripts and styles.

// The component macro writes the visibility of a function anew, in a way the lint does not see through.
#![allow(unreachable_pub)]

mod about;
mod adapters;
mod app;
mod base;
mod charts;
mod compare;
mod evaluate;
mod examples;
mod files;
mod header;
mod link;
mod merge;
mod results;
mod save;
mod share;
mod site;
mod store;
mod train;
mod widgets;

/// Shows the page in place of the shell's loading state, and starts the worker.
pub fn mount() {
    let document = leptos::prelude::document();
    if let Some(shell) = document.get_element_by_id("shell") {
        shell.remove();
    }
    leptos::mount::mount_to_body(app::App);
}
