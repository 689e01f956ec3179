//! `struct sockaddr`, from a [`SocketAddr`].

use std::net::SocketAddr;

/// An IPv4 or IPv6 address, as C has it.
pub(super) union SocketAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl SocketAddress {
    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        std::ptr::from_mut(self).cast()
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: plain C data, for which zeros are a value.
        let mut raw: Self = unsafe { std::mem::zeroed() };
        let family = |family: i32| u16::try_from(family).expect("address families are small");
        match address {
            SocketAddr::V4(address) => {
                // SAFETY: writes to the member in use.
                let v4 = unsafe { &mut raw.v4 };
                v4.sin_family = family(libc::AF_INET);
                v4.sin_port = address.port().to_be();
                v4.sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            }
            SocketAddr::V6(address) => {
                // SAFETY: writes to the member in use.
                let v6 = unsafe { &mut raw.v6 };
                v6.sin6_family = family(libc::AF_INET6);
                v6.sin6_port = address.port().to_be();
                v6.sin6_addr.s6_addr = address.ip().octets();
                v6.sin6_scope_id = address.scope_id();
            }
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_network_order() {
        let v4 = SocketAddress::from("10.77.0.1:258".parse::<SocketAddr>().unwrap());
        // SAFETY: the member that was written; all its bytes are.
        let bytes: [u8; 8] = unsafe { std::ptr::from_ref(&v4.v4).cast::<[u8; 8]>().read() };
        assert_eq!(bytes[2..], [1, 2, 10, 77, 0, 1]);
    }
}
