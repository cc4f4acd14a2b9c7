//! Stages that read each other in a circle.
//! Owns finding and telling them; refuses to order the others, which is the plan's work.

use std::collections::HashMap;

use crate::diagnostic::{Code, Diagnostic};
use crate::span::Span;
use crate::stage::{Source, Stage};

/// A stage that another reads, and where it says so.
type Edge = (usize, Option<Span>);

/// Reports each circle once, at the first stage of the file that is in it.
pub(crate) fn report(stages: &[Stage], faults: &mut Vec<Diagnostic>) {
    let by_name: HashMap<&str, usize> =
        stages.iter().enumerate().map(|(at, stage)| (stage.name.as_str(), at)).collect();
    let edges: Vec<Vec<Edge>> = stages
        .iter()
        .map(|stage| {
            let read = stage.kind.inputs().into_iter().filter_map(|input| match input.source {
                Source::Stage(from) => Some((*by_name.get(from.stage.as_str())?, input.place)),
                _ => None,
            });
            read.collect()
        })
        .collect();
    let mut state = vec![State::New; stages.len()];
    for start in 0..stages.len() {
        for circle in circles_from(start, &edges, &mut state) {
            faults.push(describe(&circle, stages));
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Open,
    Done,
}

/// Walks depth first without recursion, since a chain may be long.
fn circles_from(start: usize, edges: &[Vec<Edge>], state: &mut [State]) -> Vec<Vec<Edge>> {
    let mut circles = Vec::new();
    if state[start] != State::New {
        return circles;
    }
    state[start] = State::Open;
    // Each step of the path: a stage, how many of its edges are done, and the place that led to it.
    let mut path: Vec<(usize, usize, Option<Span>)> = vec![(start, 0, None)];
    while let Some((at, n_done, _)) = path.last_mut() {
        let Some(&(next, place)) = edges[*at].get(*n_done) else {
            state[*at] = State::Done;
            path.pop();
            continue;
        };
        *n_done += 1;
        match state[next] {
            State::New => {
                state[next] = State::Open;
                path.push((next, 0, place));
            }
            State::Open => {
                let from = path.iter().position(|(at, ..)| *at == next).unwrap_or(0);
                let mut circle: Vec<Edge> = path[from + 1..].iter().map(|(at, _, place)| (*at, *place)).collect();
                circle.push((next, place));
                circles.push(circle);
            }
            State::Done => {}
        }
    }
    circles
}

/// `circle` holds, in order, each stage read and where; its last one is where it closes.
fn describe(circle: &[Edge], stages: &[Stage]) -> Diagnostic {
    let name = |at: usize| stages[at].name.as_str();
    let Some(&(last, closing)) = circle.last() else {
        return Diagnostic::new(Code::Cycle, Span::START, "stages read each other in a circle");
    };
    if circle.len() == 1 {
        let message = format!("stage `{}` reads itself", name(last));
        return Diagnostic::new(Code::Cycle, closing.unwrap_or(Span::START), message);
    }
    let chain = std::iter::once(last).chain(circle.iter().map(|(at, _)| *at));
    let chain = chain.map(|at| format!("`{}`", name(at))).collect::<Vec<_>>().join(" ← ");
    let message = format!("stages read each other in a circle: {chain}");
    let first = circle.first().and_then(|(_, place)| *place);
    let mut fault = Diagnostic::new(Code::Cycle, first.unwrap_or(Span::START), message);
    for (at, place) in &circle[1..] {
        if let Some(place) = place {
            fault = fault.related(*place, format!("`{}` is read here", name(*at)));
        }
    }
    fault.help("a stage can only read what is made before it")
}
