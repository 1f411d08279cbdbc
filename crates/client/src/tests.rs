use crate::{Action, Client, NewTask, WaitId};
use rasker_graph::*;
use rasker_protocol::*;
use std::sync::Arc;

fn client() -> Client {
    let mut client = Client::new(ClientId(1));
    client.add_template(Template {
        id: TemplateId(1),
        kind: Default::default(),
        name: "inc".into(),
        code: Blob::EMPTY,
    });
    client
}

fn submit(client: &mut Client, key: u128) -> TaskId {
    client.submit(NewTask {
        key: Key(key),
        name: None,
        template: TemplateId(1),
        args: &[],
        blob: None,
        dependencies: &[],
        options: None,
        fused: &[],
    })
}

fn map(client: &mut Client, count: u32) -> LayerId {
    let inputs = vec![Input::Values(Column::range(0, 1, count))];
    let (template, key, name) = (TemplateId(1), Key(1), "inc".into());
    let work = MapWork { template, key, name, inputs, constants: Blob::EMPTY };
    client.map(work, count, Arc::default(), &mut vec![])
}

#[derive(Debug, PartialEq)]
enum Said {
    Submit(LayerId),
    Release(Vec<Run>),
}

fn flush(client: &mut Client) -> Vec<Said> {
    let mut out = vec![];
    client.flush(&mut out);
    let said = out.into_iter().map(|action| match action {
        Action::Send(FromClient::Submit(submit)) => Said::Submit(submit.layers[0].id),
        Action::Send(FromClient::Release(runs)) => Said::Release(runs),
        other => panic!("not expected: {other:?}"),
    });
    said.collect()
}

#[test]
fn a_release_never_overtakes_its_submit() {
    let mut client = client();
    let first = submit(&mut client, 1);
    client.drop_task(first);
    // The open page has the key already, so the second task is of another page.
    let second = submit(&mut client, 1);
    assert_ne!(first.layer, second.layer);
    let expected =
        [Said::Submit(first.layer), Said::Release(vec![first.run()]), Said::Submit(second.layer)];
    assert_eq!(flush(&mut client), expected);
    // A key that is used again after it was let go is released before it is submitted.
    client.drop_task(second);
    let third = submit(&mut client, 1);
    let expected = [Said::Release(vec![second.run()]), Said::Submit(third.layer)];
    assert_eq!(flush(&mut client), expected);
    // What is let go without more ado is released after what was submitted before.
    let fourth = submit(&mut client, 2);
    client.drop_task(third);
    let expected = [Said::Submit(fourth.layer), Said::Release(vec![third.run()])];
    assert_eq!(flush(&mut client), expected);
}

fn finished(client: &mut Client, layer: LayerId, start: u32, count: u32) -> Vec<WaitId> {
    let held_as = TaskId::new(layer, start);
    let run = Run::new(layer, start, count);
    let item = Finished { run, held_as, holder: WorkerId(0), nbytes: 8, values: None };
    woken(client, ToClient::Finished(vec![item]))
}

fn woken(client: &mut Client, message: ToClient) -> Vec<WaitId> {
    let mut out = vec![];
    client.handle(message, &mut out);
    let woken = out.into_iter().map(|action| match action {
        Action::Wake(wait) => wait,
        other => panic!("not expected: {other:?}"),
    });
    woken.collect()
}

#[test]
fn a_wait_counts_each_task_once() {
    let mut client = client();
    let layer = map(&mut client, 10);
    let all = client.wait(&[Run::new(layer, 0, 10)], 10).expect("nothing has ended");
    let any = client.wait(&[Run::new(layer, 0, 10)], 1).expect("nothing has ended");
    let one = client.wait(&[Run::new(layer, 4, 1)], 1).expect("nothing has ended");
    assert_eq!(finished(&mut client, layer, 0, 4), [any]);
    // Reported again, and overlapping.
    assert_eq!(finished(&mut client, layer, 0, 4), []);
    assert_eq!(finished(&mut client, layer, 2, 5), [one]);
    // What is pending again is waited for again.
    assert_eq!(woken(&mut client, ToClient::Pending(vec![Run::new(layer, 0, 2)])), []);
    let failure = Arc::new(Failure::new(FailureKind::Exception, "inc", "raised"));
    let failed = ToClient::Failed(vec![(Run::new(layer, 5, 5), failure)]);
    assert_eq!(woken(&mut client, failed), []);
    assert_eq!(finished(&mut client, layer, 0, 1), []);
    assert_eq!(finished(&mut client, layer, 1, 1), [all]);
    assert_eq!(client.wait(&[Run::new(layer, 0, 10)], 10), None);
}

#[test]
fn a_wait_passes_over_what_was_released() {
    let mut client = client();
    let (kept, gone) = (submit(&mut client, 1), submit(&mut client, 2));
    let both = [kept.run(), gone.run()];
    let wait = client.wait(&both, 2).expect("nothing has ended");
    client.drop_task(gone);
    assert_eq!(client.wait(&both, 1), None);
    assert!(client.wait(&both, 2).is_some());
    client.cancel_wait(wait);
    finished(&mut client, kept.layer, kept.index, 1);
    assert_eq!(client.wait(&both, 2), None);
}

#[test]
fn a_dropped_layer_keeps_the_tasks_held_beside_it() {
    let mut client = client();
    let layer = map(&mut client, 10);
    let (kept, gone) = (TaskId::new(layer, 3), TaskId::new(layer, 7));
    client.hold(kept);
    client.hold(gone);
    client.drop_task(gone);
    assert_eq!(flush(&mut client), [], "the layer still holds it");
    client.drop_layer(layer);
    let rest = vec![Run::new(layer, 0, 3), Run::new(layer, 4, 6)];
    assert_eq!(flush(&mut client), [Said::Release(rest)]);
    assert!(client.knows(kept));
    client.drop_task(kept);
    assert_eq!(flush(&mut client), [Said::Release(vec![kept.run()])]);
    assert!(!client.knows(kept));
    client.drop_layer(layer);
    assert_eq!(flush(&mut client), []);
}

#[test]
fn a_cancel_leaves_the_key_of_a_later_task_alone() {
    let (mut client, mut out) = (client(), vec![]);
    let first = submit(&mut client, 1);
    client.cancel(vec![first.run()], "", &mut out);
    let second = submit(&mut client, 1);
    assert_ne!(first, second);
    client.cancel(vec![first.run()], "", &mut out);
    assert_eq!(client.find(Key(1)), Some(second));
}

#[test]
fn a_cancelled_task_stays_so_until_its_client_retries_it() {
    let (mut client, mut out) = (client(), vec![]);
    let task = submit(&mut client, 1);
    client.cancel(vec![task.run()], "", &mut out);
    let (run, held_as, holder) = (task.run(), task, WorkerId(0));
    let finished = Finished { run, held_as, holder, nbytes: 0, values: None };
    // Another client retries the same task.
    for message in [ToClient::Pending(vec![run]), ToClient::Finished(vec![finished.clone()])] {
        client.handle(message, &mut out);
        assert!(matches!(client.ending(task), Some(crate::Ending::Failed(_))));
    }
    client.retry(vec![task], &mut out);
    client.handle(ToClient::Finished(vec![finished]), &mut out);
    assert!(matches!(client.ending(task), Some(crate::Ending::Finished { .. })));
}

#[test]
fn a_run_of_results_leaves_what_was_cancelled_within_it() {
    let (mut client, mut out) = (client(), vec![]);
    let layer = map(&mut client, 5);
    client.cancel(vec![Run::new(layer, 1, 1), Run::new(layer, 3, 1)], "", &mut out);
    let (run, held_as, holder) = (Run::new(layer, 0, 5), TaskId::new(layer, 0), WorkerId(0));
    let values = Some(Value::Column(Column::range(0, 1, 5)));
    let finished = Finished { run, held_as, holder, nbytes: 40, values };
    client.handle(ToClient::Finished(vec![finished]), &mut out);
    for index in 0..5 {
        let ending = client.ending(TaskId::new(layer, index));
        let is_finished = matches!(ending, Some(crate::Ending::Finished { .. }));
        assert_eq!(is_finished, index % 2 == 0, "{index}: {ending:?}");
    }
}

#[test]
fn inner_tasks_outlive_a_page_that_is_sealed_between_them_and_their_readers() {
    let mut client = client();
    let new = |key, dependencies| NewTask {
        key: Key(key),
        name: None,
        template: TemplateId(1),
        args: &[],
        blob: None,
        dependencies,
        options: None,
        fused: &[],
    };
    let first = submit(&mut client, 1);
    client.drop_task(first);
    let inner = client.submit_inner(new(2, &[]));
    // The open page has this key already, so that it is sealed.
    client.submit(new(1, &[inner]));
    let mut out = vec![];
    client.flush(&mut out);
    let sent: Vec<&FromClient> = out
        .iter()
        .map(|action| match action {
            Action::Send(message) => message,
            other => panic!("not expected: {other:?}"),
        })
        .collect();
    let [FromClient::Submit(a), FromClient::Release(_), FromClient::Submit(_), last] = sent[..]
    else {
        panic!("not expected: {sent:?}")
    };
    let Work::Page(page) = &a.layers[0].work else { panic!("a page") };
    assert_eq!(page.unwanted, [] as [u32; 0]);
    assert_eq!(*last, FromClient::Release(vec![inner.run()]));
}
