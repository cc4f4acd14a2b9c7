//! The verbs, one file each, and the way from a parsed command line to one of them.

mod check;
mod completions;
mod dag;
mod diff;
mod fsck;
mod gc;
mod generate;
mod logprobs;
mod model;
mod plan;
mod run;
mod runs;
mod score;
mod show;
mod sql;
mod status;
mod tag;
mod test;
mod verify;
mod why;

use crate::args::{Cli, Model, Verb};
use crate::exit::Outcome;
use crate::session::Session;
use crate::world::World;

/// Does what the command line asks for.
pub fn run(cli: Cli, world: World) -> Outcome {
    let Cli { global, verb } = cli;
    match verb {
        Verb::Run(args) => run::run(&Session::open(global, world)?, &args),
        Verb::Plan(args) => plan::run(&Session::open(global, world)?, &args),
        Verb::Status(args) => status::run(&Session::open(global, world)?, &args),
        Verb::Why(args) => why::run(&Session::open(global, world)?, &args),
        Verb::Dag(args) => dag::run(&Session::open(global, world)?, &args),
        Verb::Show(args) => show::run(&Session::open(global, world)?, &args),
        Verb::Sql(args) => sql::run(&Session::open(global, world)?, &args),
        Verb::Runs(args) => runs::run(&Session::open(global, world)?, &args),
        Verb::Fsck(args) => fsck::run(global, world, &args),
        Verb::Gc(args) => gc::run(&Session::open(global, world)?, &args),
        Verb::Diff(args) => diff::run(&Session::open(global, world)?, &args),
        Verb::Tag(args) => tag::run(&Session::open(global, world)?, &args),
        Verb::Test(args) => test::run(&Session::open(global, world)?, &args),
        Verb::Verify(args) => verify::run(&Session::open(global, world)?, &args),
        Verb::Check(args) => check::run(&Session::open(global, world)?, &args),
        Verb::Generate(args) => generate::run(&global, &world, &args),
        Verb::Score(args) => score::run(&global, &world, &args),
        Verb::Logprobs(args) => logprobs::run(&global, &world, &args),
        Verb::Model(Model::Inspect(args)) => model::inspect(&global, &world, &args),
        Verb::Model(Model::Fetch { reference }) => model::fetch(&global, &world, &reference),
        Verb::Completions { shell } => completions::run(shell),
    }
}
