use std::io::Read;

use super::*;

fn record(token: u8) -> Arc<SeedRecord> {
    Arc::new(SeedRecord {
        id: SeedId::random(),
        token: PrepareToken([token; 16]),
        fork_key: ForkKey([1; 32]),
        read_key: ReadKey([2; 16]),
        pid: 1,
        user: 0,
        created: Instant::now(),
    })
}

fn published() -> Published {
    Published {
        slabs: 0,
        clock_offset: Clocks::default(),
        descriptor: Arc::from([1u8, 2].as_slice()),
        files: Arc::from([].as_slice()),
        exe: "python3".to_owned(),
        parent_pid: 2,
        generation: 1,
        pages: 3,
    }
}

/// Whether the seed's side of the connection has seen its end.
fn has_ended(seed: &UnixStream) -> bool {
    seed.set_nonblocking(true).unwrap();
    matches!((&*seed).read(&mut [0u8; 1]), Ok(0))
}

#[test]
fn a_seed_is_found_by_key_alone() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, _seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    assert_eq!(seeds.fetch(record.id, &ForkKey([1; 32])).unwrap_err().kind, FailureKind::SeedGone);
    seeds.publish(record.id, Ok(published()));
    assert!(seeds.fetch(record.id, &ForkKey([1; 32])).is_ok());
    assert_eq!(
        seeds.fetch(record.id, &ForkKey([9; 32])).unwrap_err().kind,
        FailureKind::KeyRefused
    );
    assert_eq!(seeds.wait_published(record.token).unwrap().id, record.id);
}

#[test]
fn a_failed_publication_reaches_the_parent() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, _seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    seeds.publish(record.id, Err(fail(FailureKind::NotForkable, "a reason")));
    seeds.forget(record.id);
    assert_eq!(seeds.wait_published(record.token).unwrap_err().message, "a reason");
}

#[test]
fn a_seed_that_ended_before_its_parent_asked_is_told_of_at_once() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, _seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    seeds.publish(record.id, Ok(published()));
    seeds.forget(record.id);
    let begun = Instant::now();
    let failure = seeds.wait_published(record.token).unwrap_err();
    assert!(failure.message.starts_with("the seed has ended: it was killed"), "{failure}");
    assert!(begun.elapsed() < REPORT_DEADLINE / 2, "{:?}", begun.elapsed());
}

#[test]
fn a_refused_report_reaches_the_parent_at_once_also_one_that_waits() {
    let seeds = Arc::new(Seeds::default());
    let token = PrepareToken([7; 16]);
    let begun = Instant::now();
    let waiting = {
        let seeds = seeds.clone();
        std::thread::spawn(move || seeds.wait_published(token).unwrap_err().message)
    };
    std::thread::sleep(Duration::from_millis(20));
    seeds.refuse(token, fail(FailureKind::Protocol, "a reason"));
    assert_eq!(waiting.join().unwrap(), "a reason");
    assert_eq!(seeds.wait_published(token).unwrap_err().message, "a reason");
    assert!(begun.elapsed() < REPORT_DEADLINE / 2);
    for other in 0..MAX_SEEDS {
        let mut bytes = [8; 16];
        bytes[..8].copy_from_slice(&other.to_le_bytes());
        seeds.refuse(PrepareToken(bytes), fail(FailureKind::Limit, "another"));
    }
    assert_eq!(seeds.refused.lock().len(), MAX_SEEDS);
}

#[test]
fn a_drop_that_comes_early_is_not_lost() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    seeds.drop_after_children(record.id).unwrap();
    assert!(!has_ended(&seed), "its publication would fail for a reason that is none");
    seeds.publish(record.id, Ok(published()));
    assert!(has_ended(&seed));
    assert_eq!(seeds.fetch(record.id, &ForkKey([1; 32])).unwrap_err().kind, FailureKind::SeedGone);
    assert_eq!(seeds.wait_published(record.token).unwrap().id, record.id);
}

#[test]
fn drop_waits_for_the_last_holder() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    seeds.publish(record.id, Ok(published()));
    let (first, second) = (seeds.hold(record.id), seeds.hold(record.id));
    seeds.drop_after_children(record.id).unwrap();
    assert!(seeds.fetch(record.id, &ForkKey([1; 32])).is_err());
    drop(first);
    assert!(!has_ended(&seed));
    drop(second);
    assert!(has_ended(&seed));
}

#[test]
fn a_drop_gives_the_leases_that_are_left() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    seeds.publish(record.id, Ok(published()));
    let key = ForkKey([1; 32]);
    let hold = |name: &str| {
        let lease = Arc::new(Lease::new(name.to_owned()));
        seeds.fetch_and_hold(record.id, &key, Some(lease)).unwrap().1
    };
    let (first, second) = (hold("first"), hold("second"));
    drop(first);
    let left = seeds.drop_after_children(record.id).unwrap();
    assert!(left.len() == 1 && Arc::ptr_eq(&left[0], second.lease.as_ref().unwrap()));
    let late = seeds.fetch_and_hold(record.id, &key, None);
    assert_eq!(late.unwrap_err().kind, FailureKind::SeedGone);
    assert!(!has_ended(&seed));
    drop(second);
    assert!(has_ended(&seed));
}

#[test]
fn a_forked_seed_ends_with_its_last_child_and_not_before_the_first() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    seeds.publish(record.id, Ok(published()));
    seeds.end_with_children(record.id);
    assert!(!has_ended(&seed));
    drop(seeds.hold(record.id));
    assert!(has_ended(&seed));
}

#[test]
fn the_table_is_bounded() {
    let seeds = Arc::new(Seeds::default());
    let add = || {
        let (ours, _seed) = UnixStream::pair().unwrap();
        seeds.add(record(1), ours, 3)
    };
    (0..3).for_each(|_| add().unwrap());
    let refused = add().unwrap_err();
    assert_eq!(refused.kind, FailureKind::Limit);
    assert!(refused.message.contains("keeps 3 seeds (max_seeds)"), "{refused}");
}
