//! Rows of examples with the models' answers: searched, filtered, sorted, a page at a time. For evaluations made here and
//! for opened `per_example.csv` files.

use leptos::prelude::*;

use crate::protocol::EvalRow;
use crate::state::results::Examples;
use crate::state::table::{Keep, Order, PAGE, View, value, value_names};
use crate::state::{Section, State, numbers};

use super::store::Store;

/// Whose rows.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The evaluation's.
    Evaluation,
    /// Those of an opened file.
    File(String),
}

impl Source {
    fn section(&self) -> Section {
        match self {
            Self::Evaluation => Section::Evaluate,
            Self::File(_) => Section::Results,
        }
    }

    fn with<T>(
        &self,
        state: &State,
        f: impl FnOnce(&[String], &[EvalRow], &View) -> T,
    ) -> Option<T> {
        match self {
            Self::Evaluation => {
                let labels: Vec<String> = state
                    .evaluate
                    .columns
                    .iter()
                    .map(|c| c.label.clone())
                    .collect();
                Some(f(&labels, &state.evaluate.rows, &state.evaluate.view))
            }
            Self::File(name) => {
                let file = state.results.files.iter().find(|file| file.name == *name)?;
                let Examples { models, rows, view } = file.examples.as_ref()?;
                Some(f(models, rows, view))
            }
        }
    }

    fn view<'a>(&self, state: &'a mut State) -> Option<&'a mut View> {
        match self {
            Self::Evaluation => Some(&mut state.evaluate.view),
            Self::File(name) => {
                let file = state
                    .results
                    .files
                    .iter_mut()
                    .find(|file| file.name == *name)?;
                Some(&mut file.examples.as_mut()?.view)
            }
        }
    }
}

/// What is shown of the rows.
#[derive(Clone, Default, PartialEq)]
struct Page {
    models: Vec<String>,
    values: Vec<String>,
    rows: Vec<EvalRow>,
    left: usize,
    all: usize,
    view: View,
}

fn page(models: &[String], rows: &[EvalRow], view: &View) -> Page {
    let left = view.of(rows);
    Page {
        models: models.to_vec(),
        values: value_names(rows),
        rows: left
            .iter()
            .take(view.shown)
            .map(|at| rows[*at].clone())
            .collect(),
        left: left.len(),
        all: rows.len(),
        view: view.clone(),
    }
}

/// The table with its controls; nothing where there are no rows.
#[component]
pub(super) fn ExampleTable(
    /// The page's state.
    store: Store,
    /// Whose rows.
    source: Source,
) -> impl IntoView {
    let section = source.section();
    let read = source.clone();
    let shown = store.memo(section, move |s| read.with(s, page).unwrap_or_default());
    let source = StoredValue::new(source);
    let edit = move |change: &dyn Fn(&mut View)| {
        store.edit(section, |s| {
            if let Some(view) = source.with_value(|source| source.view(s)) {
                change(view);
            }
        });
    };
    let keep = move |name: String| edit(&|view| view.keep = keep_of(&name));
    let search = move |text: String| {
        edit(&|view| {
            view.search.clone_from(&text);
            view.shown = PAGE;
        });
    };
    let more = move |_| edit(&|view| view.shown += PAGE);
    let sort = move |order: Order| edit(&|view| view.sort(order.clone()));
    let count = move || {
        shown.with(|p| {
            format!(
                "{} of {} examples",
                numbers::count(p.left as u64),
                numbers::count(p.all as u64)
            )
        })
    };
    let table = move || shown.with(|p| draw(p, sort));
    view! {
        <Show when=move || shown.with(|p| p.all > 0)>
            <div class="filters">
                <label class="field">
                    <span class="field-name">"Search"</span>
                    <input type="search" prop:value=move || shown.with(|p| p.view.search.clone()) on:input=move |e| search(event_target_value(&e)) />
                </label>
                <label class="field">
                    <span class="field-name">"Show"</span>
                    <select on:change=move |e| keep(event_target_value(&e))>
                        <option value="all">"all examples"</option>
                        <option value="differing">"where answers differ"</option>
                        <option value="wrong">"where some model is wrong"</option>
                        <option value="gained">"wrong at first, right later"</option>
                        <option value="lost">"right at first, wrong later"</option>
                    </select>
                </label>
                <p class="hint" role="status">{count}</p>
            </div>
            {table}
            <Show when=move || shown.with(|p| p.rows.len() < p.left)>
                <button type="button" class="quiet" on:click=more>"Show more"</button>
            </Show>
        </Show>
    }
    .into_any()
}

fn keep_of(name: &str) -> Keep {
    match name {
        "differing" => Keep::Differing,
        "wrong" => Keep::Wrong,
        "gained" => Keep::Gained,
        "lost" => Keep::Lost,
        _ => Keep::All,
    }
}

fn draw(page: &Page, sort: impl Fn(Order) + Copy + 'static) -> AnyView {
    let heading = |name: String, order: Order| {
        let direction = match (page.view.order == order, page.view.descending) {
            (false, _) => "none",
            (true, true) => "descending",
            (true, false) => "ascending",
        };
        view! {
            <th scope="col" aria-sort=direction>
                <button type="button" class="sort" on:click=move |_| sort(order.clone())>{name}</button>
            </th>
        }
    };
    let answers = page
        .models
        .iter()
        .map(|m| view! { <th scope="col">{m.clone()}</th> })
        .collect_view();
    let values: Vec<(usize, &String)> = (0..page.models.len())
        .flat_map(|c| page.values.iter().map(move |v| (c, v)))
        .collect();
    let sorted = values.iter().map(|(column, name)| {
        let order = Order::Value {
            column: *column,
            metric: (*name).clone(),
        };
        heading(
            format!("{} {}", page.models[*column], name.replace('_', " ")),
            order,
        )
    });
    let rows = page.rows.iter().map(|row| {
        let answer = |column: usize| {
            let class = match value(row, column, "correct").or_else(|| value(row, column, "exact_match")) {
                Some(v) if v > 0.5 => "text good",
                Some(_) => "text bad",
                None => "text",
            };
            view! { <td class=class>{row.answers.get(column).cloned().flatten().unwrap_or_else(|| "-".to_owned())}</td> }
        };
        let cell = |(column, name): &(usize, &String)| {
            view! { <td class="numbers">{value(row, *column, name).map_or("-".to_owned(), numbers::score)}</td> }
        };
        view! {
            <tr>
                <th scope="row">{row.line}</th>
                <td class="text">{row.prompt.clone()}</td>
                <td class="text">{row.reference.clone()}</td>
                {(0..page.models.len()).map(answer).collect_view()}
                {values.iter().map(cell).collect_view()}
            </tr>
        }
    });
    view! {
        <div class="scroll tall" role="group" tabindex="0" aria-label="Examples">
            <table class="examples">
                <caption>"Examples; a tick stands before right answers, a cross before wrong ones"</caption>
                <thead>
                    <tr>
                        {heading("line".to_owned(), Order::File)}
                        <th scope="col">"prompt"</th>
                        <th scope="col">"reference"</th>
                        {answers}
                        {sorted.collect_view()}
                    </tr>
                </thead>
                <tbody>{rows.collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}
