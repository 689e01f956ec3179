//! Encrypted streams: golden bytes, who gets in, what damage does.

use proptest::prelude::*;

use super::*;

static TOKEN: StreamToken = StreamToken([0x11; 32]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Both sides of a stream.
fn pair() -> (Seal, Seal) {
    let (greeting, greeted) = greet(&TOKEN).unwrap();
    let greeting = Greeting::parse(&greeting).unwrap();
    assert_eq!(greeting.token_id(), TokenId::of(&TOKEN));
    let (server, message) = greeting.accept(&TOKEN).unwrap();
    (greeted.answered(&message).unwrap(), server)
}

fn sealed(seal: &mut Seal, plain: &[u8]) -> Vec<u8> {
    let mut record = vec![0; MAX_RECORD];
    let len = seal.seal(plain, &mut record).unwrap();
    record.truncate(len);
    record
}

fn opened(seal: &mut Seal, record: &[u8]) -> Result<Vec<u8>, SealError> {
    let ciphertext = ciphertext_of(record)?.expect("a whole record");
    let mut plain = vec![0; ciphertext.len()];
    let len = seal.open(ciphertext, &mut plain)?;
    plain.truncate(len);
    Ok(plain)
}

/// What of a greeting is the same each time. What is behind it is Noise's own, with a fresh key.
#[test]
fn golden_bytes() {
    let (greeting, _) = greet(&TOKEN).unwrap();
    let id = "ae2a0dbfd71b2793bce94f77a05bcc43";
    assert_eq!(hex(&greeting[..HELLO_LEN]), format!("4d49544f5345414c01000000{id}"));
    assert_eq!((GREETING_LEN, MAX_RECORD), (76, 16_402));
}

/// A stream whose keys are not drawn: what is on the wire is what was, to the byte.
#[test]
fn golden_records() {
    let hello = greet(&TOKEN).unwrap().0;
    let hello = &hello[..HELLO_LEN];
    let fixed =
        |key: &'static [u8; 32]| builder(&TOKEN, hello).fixed_ephemeral_key_for_testing_only(key);
    let mut client = fixed(&[1; 32]).build_initiator().unwrap();
    let mut server = fixed(&[2; 32]).build_responder().unwrap();
    let first = handshake_message(&mut client).unwrap();
    server.read_message(&first, &mut []).unwrap();
    let second = handshake_message(&mut server).unwrap();
    client.read_message(&second, &mut []).unwrap();
    let (mut client, mut server) = (Seal::new(client).unwrap(), Seal::new(server).unwrap());
    let asked = sealed(&mut client, b"a request");
    let answered = sealed(&mut server, b"an answer");
    let written = [hex(&first), hex(&second), hex(&asked), hex(&answered)];
    assert_eq!(
        written,
        [
            "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209\
             35707b7e10d8f74bfbac5c8ae778c88b",
            "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59\
             f597f6099ba182a53aeba57599f45d55",
            "1900a8776f5645e8b6c89792d82d180078eb3326dd3c083541807a",
            "190018a5c6a14951e09de8ede5b46d5309907861ed4e6afc14621c",
        ]
    );
}

#[test]
fn what_is_sealed_is_opened_both_ways_in_order() {
    let (mut client, mut server) = pair();
    for len in [1, 16, 4112, MAX_PLAIN] {
        let plain: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
        let record = sealed(&mut client, &plain);
        assert_eq!(record.len(), HEAD_LEN + len + TAG_LEN);
        assert_eq!(opened(&mut server, &record).unwrap(), plain);
        let record = sealed(&mut server, &plain);
        assert!(!record.windows(8).any(|window| plain.windows(8).any(|plain| plain == window)));
        assert_eq!(opened(&mut client, &record).unwrap(), plain);
    }
    let mut record = vec![0; 2 * MAX_RECORD];
    for len in [0, MAX_PLAIN + 1] {
        let refused = client.seal(&vec![0; len], &mut record);
        assert_eq!(refused, Err(SealError::Length(len + TAG_LEN)));
    }
    assert_eq!(client.seal(&[0; 8], &mut record[..25]), Err(SealError::Length(24)));
}

#[test]
fn keys_change_on_both_sides_at_once() {
    let (mut client, mut server) = pair();
    (client.rekey_records, server.rekey_records) = (3, 3);
    for number in 0..10u8 {
        let record = sealed(&mut client, &[number; 100]);
        assert_eq!(opened(&mut server, &record).unwrap(), [number; 100]);
    }
    // Who does not change keys cannot go on.
    (client.rekey_records, server.rekey_records) = (3, u64::MAX);
    let last = (0..3).map(|_| sealed(&mut client, &[1])).map(|record| opened(&mut server, &record));
    assert!(last.into_iter().any(|opened| opened == Err(SealError::Forged)));
}

#[test]
fn a_record_that_was_changed_repeated_or_left_out_is_noticed() {
    for at in [2, 20, 2 + 100 + TAG_LEN - 1] {
        let (mut client, mut server) = pair();
        let mut record = sealed(&mut client, &[7; 100]);
        record[at] ^= 1;
        assert_eq!(opened(&mut server, &record), Err(SealError::Forged), "byte {at}");
    }
    let (mut client, mut server) = pair();
    let (first, second) = (sealed(&mut client, b"1"), sealed(&mut client, b"2"));
    assert_eq!(opened(&mut server, &second), Err(SealError::Forged));
    assert_eq!(opened(&mut server, &first).unwrap(), b"1");
    assert_eq!(opened(&mut server, &first), Err(SealError::Forged));
    // A side's own record, sent back to it.
    let record = sealed(&mut server, b"3");
    assert_eq!(opened(&mut server, &record), Err(SealError::Forged));
}

#[test]
fn who_does_not_know_the_token_is_not_believed() {
    let (bytes, greeted) = greet(&TOKEN).unwrap();
    let greeting = Greeting::parse(&bytes).unwrap();
    assert!(greeting.accept(&StreamToken([0x12; 32])).is_err());
    let (_, message) = greeting.accept(&TOKEN).unwrap();
    let mut changed = message;
    changed[40] ^= 1;
    assert!(matches!(greeted.answered(&changed), Err(SealError::Token)));
    // Magic and version are what both must have seen alike; the id is the token's own.
    for at in [10, HELLO_LEN - 1, HELLO_LEN, GREETING_LEN - 1] {
        let mut changed = bytes;
        changed[at] ^= 1;
        let greeting = Greeting::parse(&changed).unwrap();
        assert!(matches!(greeting.accept(&TOKEN), Err(SealError::Token)), "byte {at}");
    }
    let mut other = bytes;
    other[8] = 2;
    assert_eq!(Greeting::parse(&other).err(), Some(SealError::Version(2, 0)));
    other[0] = b'X';
    assert_eq!(Greeting::parse(&other).err(), Some(SealError::Magic));
}

#[test]
fn lengths_that_no_record_has_are_refused_at_once() {
    for len in [0, TAG_LEN, MAX_PLAIN + TAG_LEN + 1, usize::from(u16::MAX)] {
        let head = u16::try_from(len).unwrap().to_le_bytes();
        assert_eq!(ciphertext_of(&head), Err(SealError::Length(len)));
    }
    let mut most = vec![0; MAX_RECORD + 1];
    most[..2].copy_from_slice(&u16::try_from(MAX_PLAIN + TAG_LEN).unwrap().to_le_bytes());
    assert_eq!(ciphertext_of(&most).unwrap().map(<[u8]>::len), Some(MAX_PLAIN + TAG_LEN));
    for cut in [0, 1, 2, MAX_RECORD - 1] {
        assert_eq!(ciphertext_of(&most[..cut]), Ok(None));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_no_record_of_a_stream(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_, mut server) = pair();
        if let Ok(Some(ciphertext)) = ciphertext_of(&bytes) {
            prop_assert_eq!(server.open(ciphertext, &mut [0; 200]), Err(SealError::Forged));
        }
    }
}
