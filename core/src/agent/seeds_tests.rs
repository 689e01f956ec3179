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

/// A record as the agent before has left it, and another descriptor of it.
fn left_behind(record: &SeedRecord, life: Life) -> (Record, std::os::fd::OwnedFd) {
    let facts = super::super::kept::Facts {
        id: record.id,
        token: record.token,
        fork_key: record.fork_key.clone(),
        read_key: record.read_key.clone(),
        pid: record.pid,
        user: record.user,
        created_ns: 0,
        hot: Vec::new(),
        descriptor: Vec::new(),
    };
    let kept = Record::new(&facts, life).unwrap();
    let fd = kept.file().try_clone().unwrap().into();
    (kept, fd)
}

fn life_of(record: &std::os::fd::OwnedFd) -> Life {
    Record::open(record.try_clone().unwrap()).unwrap().2
}

#[test]
fn the_next_agent_is_told_how_a_seed_lives() {
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, _seed) = UnixStream::pair().unwrap();
    seeds.add(record.clone(), ours, MAX_SEEDS).unwrap();
    let (kept, fd) = left_behind(&record, Life::default());
    seeds.keep(record.id, kept);
    seeds.publish(record.id, Ok(published()));
    assert_eq!(life_of(&fd), Life::default());
    let lease = Arc::new(Lease::new("host-b".to_owned()));
    let key = ForkKey([1; 32]);
    let (_, hold) = seeds.fetch_and_hold(record.id, &key, Some(lease)).unwrap();
    assert_eq!(life_of(&fd).leases, 1);
    seeds.end_with_children(record.id);
    assert!(life_of(&fd).ends_with_children && !life_of(&fd).is_dropping);
    seeds.drop_after_children(record.id).unwrap();
    assert!(life_of(&fd).is_dropping);
    drop(hold);
    assert_eq!(life_of(&fd).leases, 0);
}

#[test]
fn an_adopted_seed_is_held_by_who_held_it_for_as_long_as_they_may_return() {
    let life = Life { is_dropping: true, ends_with_children: false, leases: 2 };
    let seeds = Arc::new(Seeds::default());
    let record = record(1);
    let (ours, seed) = UnixStream::pair().unwrap();
    let (kept, fd) = left_behind(&record, life);
    seeds.adopt(record.clone(), ours, published(), (kept, life));
    assert_eq!(seeds.fetch(record.id, &ForkKey([1; 32])).unwrap_err().kind, FailureKind::SeedGone);
    let lease = || Arc::new(Lease::new("host-b".to_owned()));
    let refused = seeds.rejoin(record.id, &ForkKey([9; 32]), lease()).unwrap_err();
    assert_eq!(refused.kind, FailureKind::KeyRefused);
    let hold = seeds.rejoin(record.id, &ForkKey([1; 32]), lease()).unwrap();
    assert_eq!(life_of(&fd), life, "one has returned, one is awaited");
    seeds.stop_waiting();
    assert!(!has_ended(&seed));
    assert_eq!(life_of(&fd).leases, 1);
    drop(hold);
    assert!(has_ended(&seed));
}

#[test]
fn an_adopted_seed_that_nobody_returns_to_ends_if_it_was_dropped() {
    let seeds = Arc::new(Seeds::default());
    for (is_dropping, ends_with_children) in [(true, false), (false, true), (false, false)] {
        let life = Life { is_dropping, ends_with_children, leases: 1 };
        let record = record(1);
        let (ours, seed) = UnixStream::pair().unwrap();
        let kept = left_behind(&record, life).0;
        seeds.adopt(record.clone(), ours, published(), (kept, life));
        assert!(!has_ended(&seed));
        seeds.stop_waiting();
        assert_eq!(has_ended(&seed), is_dropping || ends_with_children);
    }
}
