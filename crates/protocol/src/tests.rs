use crate::*;
use bytes::Bytes;
use rasker_graph::*;

fn page() -> Page {
    Page {
        templates: vec![TemplateId(7)],
        template: vec![0, 0],
        keys: vec![Key(1), Key(2)],
        arg_ends: vec![1, 3],
        args: b"abc".to_vec(),
        blobs: vec![(1, Blob::Bytes(Bytes::from(vec![5; 5000])))],
        dependency_ends: vec![0, 1],
        dependencies: vec![TaskId::new(LayerId(9), 4)],
        ..Page::default()
    }
}

fn submit() -> FromClient {
    let layer = Layer {
        id: LayerId::new(ClientId(3), 1),
        count: 2,
        work: Work::Page(Box::new(page())),
        options: Default::default(),
        wants_values: true,
    };
    FromClient::Submit(Submit { templates: vec![], layers: vec![layer] })
}

#[test]
fn messages_survive_the_codec() {
    let message = submit();
    let (head, attachments) = encode(&message).unwrap();
    assert_eq!(decode::<FromClient>(&head, attachments).unwrap(), message);

    // Parts of an exchange: where they are, who asks for them, and what comes.
    let task = TaskId::new(LayerId(9), 4);
    let source = Source { run: task.run(), worker: WorkerId(3), nbytes: 100 };
    let message = ToWorker::Compute {
        templates: vec![],
        calls: vec![],
        peers: vec![],
        exchanges: vec![OpenExchange { exchange: task, writers: [source].into() }],
    };
    let (head, attachments) = encode(&message).unwrap();
    assert_eq!(decode::<ToWorker>(&head, attachments).unwrap(), message);
    let parts = PartRange { start: 3, end: 5 };
    let message = ToHolder::GetParts { id: 1, reads: vec![(task.run(), parts)] };
    let (head, attachments) = encode(&message).unwrap();
    assert_eq!(decode::<ToHolder>(&head, attachments).unwrap(), message);
    let data = Blob::Bytes(Bytes::from(vec![7; 5000]));
    let piece = Ok(Some(Piece { ends: [64, 5000].to_vec().into(), data }));
    let message = FromHolder::GotParts { id: 1, pieces: vec![GotPiece { task, parts, piece }] };
    let (head, attachments) = encode(&message).unwrap();
    assert_eq!(attachments.len(), 1);
    assert_eq!(decode::<FromHolder>(&head, attachments).unwrap(), message);
}

#[test]
fn large_values_travel_beside_the_message() {
    let (head, attachments) = encode(&submit()).unwrap();
    assert!(head.len() < 200, "{} bytes", head.len());
    assert_eq!(attachments.len(), 1);
    assert!(decode::<FromClient>(&head, vec![]).is_err());
}

#[test]
fn a_layer_of_ten_million_is_a_few_hundred_bytes() {
    let work = MapWork {
        template: TemplateId(7),
        key: Key(u128::MAX),
        name: "inc".into(),
        inputs: vec![Input::Values(Column::range(0, 1, 10_000_000))],
        constants: Blob::EMPTY,
    };
    let layer = Layer {
        id: LayerId::new(ClientId(3), 1),
        count: 10_000_000,
        work: Work::Map(work),
        options: Default::default(),
        wants_values: true,
    };
    let message = FromClient::Submit(Submit { templates: vec![], layers: vec![layer] });
    assert!(encode(&message).unwrap().0.len() < 200);
}

#[test]
fn garbage_is_refused() {
    let (head, attachments) = encode(&submit()).unwrap();
    let mut refused = 0;
    for at in 0..head.len() {
        for flip in [1u8, 0x80, 0xFF] {
            let mut bytes = head.to_vec();
            bytes[at] ^= flip;
            // Whatever is accepted must be sound or say that it is not.
            match decode::<FromClient>(&bytes, attachments.clone()) {
                Err(_) => refused += 1,
                Ok(FromClient::Submit(submit)) => {
                    for layer in &submit.layers {
                        let _ = layer.is_sound();
                    }
                }
                Ok(_) => {}
            }
        }
    }
    assert!(refused > 0);
    assert!(decode::<FromClient>(&[0xFF; 64], vec![]).is_err());
}

#[test]
fn a_cut_run_keeps_its_inputs() {
    let mut calls = Calls {
        run: Run::new(LayerId(1), 100, 10),
        attempt: 0,
        priority: Priority::default(),
        template: TemplateId(7),
        fused: Default::default(),
        label: Label { name: "f".into(), key: Key(1), layer: true, text: None },
        work: CallWork::Map {
            inputs: vec![
                Input::Values(Column::range(0, 2, 10)),
                Input::Tasks(TaskId::new(LayerId(2), 50)),
            ],
            constants: Blob::EMPTY,
        },
        sources: Default::default(),
        alone: false,
        reads: Default::default(),
    };
    let front = calls.split_front(3);
    assert_eq!((front.run.start, front.run.count), (100, 3));
    assert_eq!((calls.run.start, calls.run.count), (103, 7));
    assert_eq!(front.dependencies(102)[0].index, 52);
    assert_eq!(calls.dependencies(103)[0].index, 53);
    let CallWork::Map { inputs, .. } = &calls.work else { panic!("a map") };
    let Input::Values(column) = &inputs[0] else { panic!("values") };
    assert_eq!(column.int(0), Some(6));
}

#[test]
fn an_answer_nested_too_deeply_is_refused() {
    let answer = |depth: usize| {
        // An answer, its id, and lists of one list.
        let mut bytes = vec![1, 0];
        bytes.extend([6, 1].repeat(depth));
        bytes.push(0);
        decode::<FromWorker>(&bytes, vec![])
    };
    assert!(answer(100).is_ok());
    for depth in [101, 1_000_000] {
        assert!(answer(depth).is_err(), "{depth} levels");
    }
    // What was refused leaves nothing behind.
    assert!(answer(100).is_ok());
}
