//! One-time tokens that open READ streams: handed out on control, and good once, for a while, from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::id::StreamToken;
use crate::wire::seal::TokenId;

/// Tokens that are handed out and not yet used; beyond it, the oldest of whoever has most gives way.
pub const MAX_TOKENS: usize = 1024;
/// Of these, those of one peer, whose oldest gives way to its next: a host opens 8 streams to another and keeps 4 tokens,
/// several may be behind an address, and a fetch brings one that may not be used.
pub const MAX_TOKENS_OF_PEER: usize = 128;
/// How long a token is good: a connection's set-up takes milliseconds.
pub const TOKEN_LIFE: Duration = Duration::from_secs(30);

/// Those that were not used yet, the oldest in front.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<Vec<Issued>>);

#[derive(Debug)]
struct Issued {
    token: StreamToken,
    id: TokenId,
    at: Instant,
    /// Who it was issued to, and may use it; `None`: whoever has it.
    to: Option<IpAddr>,
}

impl Tokens {
    /// A new one, for `to` or for whoever has it.
    pub(super) fn issue(&self, to: Option<IpAddr>) -> StreamToken {
        let token = StreamToken::random();
        let (id, now) = (TokenId::of(&token), Instant::now());
        let mut tokens = self.0.lock();
        tokens.retain(|issued| now.duration_since(issued.at) < TOKEN_LIFE);
        let own = || tokens.iter().filter(|issued| issued.to == to).count();
        let gives_way = match () {
            () if to.is_some() && own() >= MAX_TOKENS_OF_PEER => Some(to),
            () if tokens.len() >= MAX_TOKENS => richest(&tokens),
            () => None,
        };
        if let Some(whose) = gives_way
            && let Some(oldest) = tokens.iter().position(|issued| issued.to == whose)
        {
            tokens.remove(oldest);
        }
        tokens.push(Issued { token: token.clone(), id, at: now, to });
        token
    }

    /// Whether `token` is good and shown `from` where it may be; it is not good any more afterwards. Without an address (a
    /// connection of another kind, RDMA's) any will do.
    pub(super) fn redeem(
        &self,
        token: &StreamToken,
        from: Option<IpAddr>,
    ) -> Result<(), &'static str> {
        // Each is compared, in constant time: how long it takes tells nothing about the tokens.
        self.take(from, |issued| issued.token == *token).map(drop)
    }

    /// As [`Self::redeem`], of the token that has this id: it is given, for whoever has shown the id is still to prove that
    /// he knows it.
    pub(super) fn redeem_id(
        &self,
        id: TokenId,
        from: Option<IpAddr>,
    ) -> Result<StreamToken, &'static str> {
        self.take(from, |issued| issued.id == id)
    }

    fn take(
        &self,
        from: Option<IpAddr>,
        is_same: impl Fn(&Issued) -> bool,
    ) -> Result<StreamToken, &'static str> {
        let now = Instant::now();
        let mut found = None;
        self.0.lock().retain(|issued| {
            let same = is_same(issued);
            let good = now.duration_since(issued.at) < TOKEN_LIFE;
            if same && good {
                found = Some((issued.token.clone(), issued.to));
            }
            !same && good
        });
        match found {
            None => Err("its token is not known, was used, or is too old"),
            Some((_, Some(to))) if from.is_some_and(|from| from != to) => {
                Err("its token was issued to another peer")
            }
            Some((token, _)) => Ok(token),
        }
    }

    /// Makes all of them as old as a token may be.
    #[cfg(test)]
    pub(super) fn age(&self) {
        for issued in &mut *self.0.lock() {
            issued.at = Instant::now().checked_sub(TOKEN_LIFE).expect("the host is up for longer");
        }
    }
}

/// Who has most of them.
fn richest(tokens: &[Issued]) -> Option<Option<IpAddr>> {
    let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
    for issued in tokens {
        *counts.entry(issued.to).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(whose, _)| whose)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u16) -> Option<IpAddr> {
        let [high, low] = number.to_be_bytes();
        Some([10, 0, high, low].into())
    }

    #[test]
    fn they_are_bounded_and_the_oldest_gives_way() {
        let tokens = Tokens::default();
        let first = tokens.issue(None);
        let second = tokens.issue(None);
        for _ in 0..MAX_TOKENS - 1 {
            tokens.issue(None);
        }
        assert!(tokens.redeem(&first, None).is_err());
        assert!(tokens.redeem(&second, None).is_ok());
    }

    #[test]
    fn who_asks_for_many_loses_his_own_and_no_others() {
        let tokens = Tokens::default();
        let of_another = tokens.issue(peer(1));
        let own: Vec<_> = (0..=MAX_TOKENS_OF_PEER).map(|_| tokens.issue(peer(2))).collect();
        assert!(tokens.redeem(&own[0], peer(2)).is_err());
        assert!(tokens.redeem(&own[1], peer(2)).is_ok());
        assert!(tokens.redeem(&of_another, peer(1)).is_ok());
    }

    #[test]
    fn where_all_are_taken_who_has_most_gives_way() {
        let tokens = Tokens::default();
        let modest = tokens.issue(peer(1));
        let greedy: Vec<_> = (0..MAX_TOKENS_OF_PEER).map(|_| tokens.issue(peer(2))).collect();
        let taken = MAX_TOKENS_OF_PEER + 1;
        let others = (0..).take(MAX_TOKENS - taken).map(|number: u16| peer(3 + number));
        others.for_each(|other| drop(tokens.issue(other)));
        assert_eq!(tokens.0.lock().len(), MAX_TOKENS);
        drop(tokens.issue(peer(u16::MAX)));
        assert!(tokens.redeem(&greedy[0], peer(2)).is_err(), "the oldest of all is not his");
        assert!(tokens.redeem(&greedy[1], peer(2)).is_ok());
        assert!(tokens.redeem(&modest, peer(1)).is_ok());
    }

    #[test]
    fn one_that_is_too_old_is_refused() {
        let tokens = Tokens::default();
        let (token, other) = (tokens.issue(None), tokens.issue(None));
        tokens.age();
        assert!(tokens.redeem(&token, None).is_err());
        assert!(tokens.redeem_id(TokenId::of(&other), None).is_err());
    }

    #[test]
    fn an_id_is_good_once_from_one_address_and_spends_the_token() {
        let tokens = Tokens::default();
        let token = tokens.issue(peer(1));
        assert!(tokens.redeem_id(TokenId::of(&StreamToken::random()), peer(1)).is_err());
        assert_eq!(tokens.redeem_id(TokenId::of(&token), peer(1)), Ok(token.clone()));
        assert!(tokens.redeem(&token, peer(1)).is_err());
        let token = tokens.issue(peer(1));
        assert!(tokens.redeem_id(TokenId::of(&token), peer(2)).is_err());
        assert!(tokens.redeem(&token, peer(1)).is_err());
    }
}
