use crate::*;

#[test]
fn slices_of_a_column_share_its_bytes() {
    let column = Column::ints(&[1000, 1001, 1500, -7]);
    let slice = column.slice(1, 3);
    assert_eq!((0..3).map(|i| slice.int(i).unwrap()).collect::<Vec<_>>(), [1001, 1500, -7]);
    let (Items::Ints { data: a, .. }, Items::Ints { data: b, .. }) =
        (column.items(), slice.items())
    else {
        panic!("integer columns")
    };
    assert_eq!(a.as_ptr(), b.as_ptr());
}

#[test]
fn integers_take_as_few_bytes_as_they_need() {
    for (values, width) in [
        (vec![7i64; 9], 0),
        (vec![0, 255], 1),
        (vec![-1, 65_000], 2),
        (vec![0, 1 << 31], 4),
        (vec![i64::MIN, i64::MAX, 0], 8),
    ] {
        let column = Column::ints(&values);
        assert!(matches!(column.items(), Items::Ints { width: w, .. } if *w == width));
        let back: Vec<i64> = (0..column.len()).map(|i| column.int(i).unwrap()).collect();
        assert_eq!(back, values);
    }
}

#[test]
fn packed_columns_keep_values_apart() {
    let column = Column::packed(&[1, 1, 4], b"abcd".to_vec());
    assert_eq!(column.slice(1, 2).encoded(0), Some(&b""[..]));
    assert_eq!(column.slice(1, 2).encoded(1), Some(&b"bcd"[..]));
    assert!(column.is_sound());
    assert!(!Column::packed(&[9], b"abc".to_vec()).is_sound());
    assert!(!Column::packed(&[3, 1], b"abc".to_vec()).is_sound());
}

#[test]
fn order_puts_dependencies_first_at_any_depth() {
    let n = 1_000_000u32;
    let mut graph = Adjacency::default();
    graph.push([]);
    for i in 1..n {
        graph.push([i - 1]);
    }
    assert_eq!(order(&graph, &[n - 1]).unwrap(), (0..n).collect::<Vec<_>>());
}

#[test]
fn order_finishes_one_branch_of_a_tree_before_the_next() {
    // 0 and 1 make 4; 2 and 3 make 5; 4 and 5 make 6.
    let mut graph = Adjacency::default();
    for dependencies in [vec![], vec![], vec![], vec![], vec![0, 1], vec![2, 3], vec![4, 5]] {
        graph.push(dependencies);
    }
    assert_eq!(order(&graph, &[6]).unwrap(), [0, 1, 4, 2, 3, 5, 6]);
}

#[test]
fn order_computes_the_demanding_dependency_first() {
    // 5 needs a leaf (0) and a pair of pairs (4): the leaf must not wait for the pairs.
    let mut graph = Adjacency::default();
    for dependencies in [vec![], vec![], vec![], vec![], vec![1, 2, 3], vec![0, 4]] {
        graph.push(dependencies);
    }
    assert_eq!(order(&graph, &[5]).unwrap(), [1, 2, 3, 4, 0, 5]);
}

#[test]
fn a_ring_is_named() {
    let mut graph = Adjacency::default();
    for dependencies in [vec![2], vec![0], vec![1], vec![0]] {
        graph.push(dependencies);
    }
    let Cycle(mut ring) = order(&graph, &[3]).unwrap_err();
    ring.sort_unstable();
    assert_eq!(ring, [0, 1, 2]);
}

#[test]
fn cull_keeps_what_the_outputs_need() {
    let mut graph = Adjacency::default();
    for dependencies in [vec![], vec![0], vec![], vec![1]] {
        graph.push(dependencies);
    }
    assert_eq!(cull(&graph, &[3]), [true, true, false, true]);
}
