//! One model's answer: text as it streams, or class probabilities, and how fast it came.

use leptos::prelude::*;

use crate::protocol::Finish;
use crate::state::chart::BarInput;
use crate::state::compare::{Answer, Slot, Standing};
use crate::state::diff::{Run, marked};
use crate::state::{Section, State, numbers};
use crate::ui::charts::BarsChart;
use crate::ui::store::Store;

/// Answer number `column` of exchange number `at`.
#[component]
pub(super) fn AnswerView(
    /// The page's state.
    store: Store,
    /// The exchange.
    at: usize,
    /// The answer.
    column: usize,
) -> impl IntoView {
    let answer = move |s: &State| {
        s.compare
            .exchanges
            .get(at)
            .and_then(|e| e.answers.get(column))
            .cloned()
    };
    let head = store.memo(Section::Compare, move |s| {
        answer(s).map(|a| (a.model.label.clone(), thread(a.model.slot)))
    });
    let runs = store.memo(Section::Compare, move |s| runs(s, at, column));
    let bars = store.memo(Section::Compare, move |s| bars(s, at, column));
    let foot = store.memo(Section::Compare, move |s| foot(s, at, column));
    let busy = store.memo(Section::Compare, move |s| {
        answer(s).is_some_and(|a| !a.over())
    });
    let text = move || {
        let piece = |run: Run| match run.differs {
            true => view! { <mark>{run.text}</mark> }.into_any(),
            false => view! { <span>{run.text}</span> }.into_any(),
        };
        runs.get().into_iter().map(piece).collect_view()
    };
    let chart = move || {
        bars.get()
            .map(|bars| view! { <BarsChart title="Class probabilities" bars /> })
    };
    let name = move || head.get().map(|h| h.0).unwrap_or_default();
    let class = move || format!("column thread-{}", head.get().map_or(0, |h| h.1));
    view! {
        <section class=class aria-busy=move || busy.get().to_string()>
            <h3>{name}</h3>
            <p class="answer" class:waiting=move || busy.get()>{text}</p>
            {chart}
            <p class="foot numbers">{move || foot.get()}</p>
        </section>
    }
    .into_any()
}

/// Which thread of the page's pattern a column is drawn with.
fn thread(slot: Slot) -> usize {
    match slot {
        Slot::Base => 0,
        Slot::A => 1,
        Slot::B => 2,
        Slot::Merge => 3,
        Slot::Stacked => 4,
    }
}

/// The answer's text, marked against the base's once both are complete.
fn runs(state: &State, at: usize, column: usize) -> Vec<Run> {
    let Some(exchange) = state.compare.exchanges.get(at) else {
        return Vec::new();
    };
    let Some(answer) = exchange.answers.get(column) else {
        return Vec::new();
    };
    let base = exchange.answers.iter().find(|a| a.model.slot == Slot::Base);
    match base.filter(|b| answer.model.slot != Slot::Base && b.over() && answer.over()) {
        Some(base) => marked(&base.text, &answer.text),
        None if answer.text.is_empty() => Vec::new(),
        None => vec![Run {
            text: answer.text.clone(),
            differs: false,
        }],
    }
}

fn bars(state: &State, at: usize, column: usize) -> Option<Vec<BarInput>> {
    let exchange = state.compare.exchanges.get(at)?;
    let answer = exchange
        .answers
        .get(column)
        .filter(|a| !a.probabilities.is_empty())?;
    let bar = |(label, value): (&String, &f64)| BarInput {
        name: label.clone(),
        value: *value,
        interval: None,
        kind: thread(answer.model.slot),
    };
    Some(
        exchange
            .labels
            .iter()
            .zip(&answer.probabilities)
            .map(bar)
            .collect(),
    )
}

/// How the answer stands, and how fast it came.
fn foot(state: &State, at: usize, column: usize) -> String {
    let Some(exchange) = state.compare.exchanges.get(at) else {
        return String::new();
    };
    match exchange.answers.get(column) {
        Some(answer)
            if exchange.labels.is_empty() || !matches!(answer.standing, Standing::Done(_)) =>
        {
            pace(answer)
        }
        Some(answer) if answer.probabilities.is_empty() => {
            "This model has no classification head.".to_owned()
        }
        _ => String::new(),
    }
}

fn pace(answer: &Answer) -> String {
    let how = match &answer.standing {
        Standing::Waiting => return "waiting".to_owned(),
        Standing::Streaming => return "writing".to_owned(),
        Standing::Failed => return "failed".to_owned(),
        Standing::Stopped => return "stopped".to_owned(),
        Standing::Done(Finish::EndToken) => "complete",
        Standing::Done(Finish::StopString) => "stop string",
        Standing::Done(Finish::Length) => "cut at the limit",
    };
    format!(
        "{} tokens, {}; first token after {}; {how}",
        answer.tokens,
        numbers::tokens_per_second(answer.tokens_per_s),
        numbers::duration(answer.first_token_ms / 1e3)
    )
}
