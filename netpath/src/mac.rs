//! Ethernet addresses: pnet's type, and a strict parser.

pub use pnet::util::MacAddr;

/// Why a text is not the MAC address of a station.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six groups of two hexadecimal digits.
    #[error("'{0}' is not a MAC address: write six pairs of hex digits, as in 52:54:00:12:34:56")]
    Form(String),
    /// A group address, which no station may send from (IEEE 802.3 clause 3.2.3).
    #[error("{0} is a multicast MAC address: use a unicast address, whose first byte is even")]
    Multicast(MacAddr),
    /// All zeros, which stands for "none".
    #[error(
        "00:00:00:00:00:00 is not the MAC address of a station: use the interface's own address"
    )]
    Zero,
}

/// Parses the address of a station: six pairs of hexadecimal digits separated by colons or dashes.
/// Stricter than `MacAddr::from_str`, which accepts signs, single digits and group addresses.
///
/// # Errors
///
/// [`MacError`] if the text has another form, or is a group address or all zeros.
pub fn parse_station(text: &str) -> Result<MacAddr, MacError> {
    let form = || MacError::Form(text.to_string());
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut octets = [0u8; 6];
    let mut groups = text.split(separator);
    for octet in &mut octets {
        let group = groups.next().ok_or_else(form)?;
        if group.len() != 2 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(form());
        }
        *octet = u8::from_str_radix(group, 16).map_err(|_| form())?;
    }
    if groups.next().is_some() {
        return Err(form());
    }
    let mac = MacAddr::from(octets);
    if mac.is_zero() {
        Err(MacError::Zero)
    } else if mac.is_multicast() {
        Err(MacError::Multicast(mac))
    } else {
        Ok(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn station_address_round_trips() {
        let mac = parse_station("52:54:00:Ab:cd:0f").unwrap();
        assert_eq!(mac.octets(), [0x52, 0x54, 0x00, 0xab, 0xcd, 0x0f]);
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:0f");
        assert_eq!(parse_station("52-54-00-ab-cd-0f"), Ok(mac));
    }

    #[test]
    fn malformed_and_group_addresses_are_refused() {
        for text in
            ["", "52:54:00:ab:cd", "52:54:00:ab:cd:0f:11", "52:54:0:ab:cd:0f", "+2:54:00:ab:cd:0f"]
        {
            assert_eq!(parse_station(text), Err(MacError::Form(text.to_string())));
        }
        assert!(matches!(parse_station("01:00:5e:00:00:01"), Err(MacError::Multicast(_))));
        assert!(matches!(parse_station("ff:ff:ff:ff:ff:ff"), Err(MacError::Multicast(_))));
        assert_eq!(parse_station("00:00:00:00:00:00"), Err(MacError::Zero));
    }
}
