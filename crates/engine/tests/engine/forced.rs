//! Stages that are computed although they have a result.

use expect_test::expect;

use crate::fake::{FakeRunner, Workshop};
use crate::{PIPELINE, with};

#[test]
fn a_forced_stage_is_computed_again_and_its_first_result_stays() {
    let shop = Workshop::new();
    let runner = FakeRunner::default();
    shop.run(PIPELINE, &runner);
    // What comes out the same ends there.
    expect![[r#"
        prompts hit
        responses ran: forced (the same)
        scores hit
        pairs ran: forced (the same)
        lengths hit
        tuned hit
        report hit
        run ran
    "#]]
    .assert_eq(&shop.run_forced(PIPELINE, &runner, &["responses", "pairs"]));
    assert_eq!(runner.runs(), 9);
    let first = shop.record(PIPELINE, "pairs");
    // So does what comes out differently: it is kept as evidence, and the first result stays.
    let other = FakeRunner::default().making("pairs", "other pairs");
    expect![[r#"
        prompts hit
        responses hit
        scores hit
        pairs ran: forced (differs)
        lengths hit
        tuned hit
        report hit
        pairs diverged
        run ran
    "#]]
    .assert_eq(&shop.run_forced(PIPELINE, &other, &["pairs"]));
    assert_eq!(shop.record(PIPELINE, "pairs"), first);
    assert!(shop.run(PIPELINE, &FakeRunner::default()).ends_with("run hit\n"));
    // A stage that never ran is not run for another reason.
    let changed = with("ties: drop", "ties: first");
    let told = shop.run_forced(&changed, &runner, &["pairs"]);
    assert!(told.contains("pairs ran: pair.ties drop -> first (p.yaml:7:46)\n"), "{told}");
}

#[test]
fn a_forced_stage_takes_no_rows_of_earlier_runs() {
    let shop = Workshop::new();
    let runner = FakeRunner::default().knowing("responses", 4, 6);
    shop.run(&with("n: 5", "n: 4"), &FakeRunner::default());
    let told = shop.run_forced(PIPELINE, &runner, &["responses"]);
    assert!(told.contains("responses ran: sample.n 4 -> 5 (p.yaml:5:62)\n"), "{told}");
    let told = shop.run_forced(PIPELINE, &runner, &["responses"]);
    assert!(told.contains("responses ran: forced (the same)\n"), "{told}");
}

#[test]
fn others_have_the_result_that_is_there_while_a_stage_is_forced() {
    let shop = Workshop::new();
    shop.run(PIPELINE, &FakeRunner::default());
    let slow = FakeRunner::default().taking_ms(30);
    std::thread::scope(|scope| {
        let forced: Vec<_> = (0..2).map(|_| scope.spawn(|| shop.run_forced(PIPELINE, &slow, &["pairs"]))).collect();
        let other = FakeRunner::default();
        assert!(shop.run(PIPELINE, &other).ends_with("run hit\n"));
        assert_eq!(other.runs(), 0);
        for forced in forced {
            let told = forced.join().expect("a run");
            assert!(told.contains("pairs ran: forced (the same)\n"), "{told}");
        }
    });
    assert_eq!(slow.runs(), 2, "each forced run computes");
}
