//! Converters of addresses.

use std::net::IpAddr;

use super::{Args, Function, Prepared, Takes, converter, needs};
use crate::{error::EvalError, value::Value};

mod url;

pub(super) const ALL: &[Function] = &[
    #[cfg(feature = "hashes")]
    converter(
        "CommunityID",
        &[
            needs("source_ip", Takes::Text),
            needs("source_port", Takes::Int),
            needs("destination_ip", Takes::Text),
            needs("destination_port", Takes::Int),
            super::may("protocol", Takes::Text),
            super::may("seed", Takes::Int),
        ],
        "string",
        "The Community ID (version 1) of a flow; protocols are `TCP`, `UDP`, `ICMP`, `ICMP6`, `RSVP`, `SCTP`",
        community_id,
    ),
    converter(
        "IsInCIDR",
        &[needs("target", Takes::Text), needs("networks", Takes::Texts)],
        "bool",
        "Whether an address is in one of the networks; false for what is none",
        is_in_cidr,
    )
    .prepared(|literals| {
        let Some(list) = literals.list(1) else { return Ok(Prepared::Nothing) };
        let network = |value: &Value<'_>| match value {
            Value::Text(text) => Network::new(text).ok_or_else(|| (1, format!("{text:?} is no network"))),
            _ => Err((1, "a network is a string".to_owned())),
        };
        list.into_iter().map(network).collect::<Result<_, _>>().map(Prepared::Networks)
    }),
    converter(
        "URL",
        &[needs("uri", Takes::Text)],
        "map",
        "The parts of a URL, by the names of OpenTelemetry's conventions",
        |args| url::parts(&args.text(0)?).map(Value::map).map_err(EvalError::new),
    ),
];

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn new(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address = plain(address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = bits.parse().ok().filter(|bits| *bits <= most && digits)?;
        Some(Self { address, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        let cut = |bits: u128, width: u32| if self.bits == 0 { 0 } else { bits >> (width - self.bits) };
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                cut(u128::from(own.to_bits()), 32) == cut(u128::from(other.to_bits()), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => cut(own.to_bits(), 128) == cut(other.to_bits(), 128),
            _ => false,
        }
    }
}

/// An address without a zone; an IPv4 one within IPv6 is the one of IPv4.
fn plain(text: &str) -> Option<IpAddr> {
    Some(match text.parse().ok()? {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
        IpAddr::V4(address) => IpAddr::V4(address),
    })
}

fn is_in_cidr<'a>(args: &Args<'_, 'a>) -> Result<Value<'a>, EvalError> {
    let Some(address) = plain(&args.text(0)?) else { return Ok(Value::Bool(false)) };
    if let Prepared::Networks(networks) = args.prepared {
        return Ok(Value::Bool(networks.iter().any(|network| network.has(address))));
    }
    let mut failed = None;
    let found = args.find_item(1, |value| match value {
        Value::Text(text) => match Network::new(text) {
            Some(network) => network.has(address),
            None => {
                failed = Some(EvalError::new(format!("{text:?} is no network")));
                true
            }
        },
        other => {
            failed = Some(EvalError::new(format!("a network is a string, not {}", other.kind())));
            true
        }
    })?;
    failed.map_or(Ok(Value::Bool(found.is_some())), Err)
}

/// The bytes of an address in a flow.
#[cfg(feature = "hashes")]
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(feature = "hashes")]
fn community_id<'a>(args: &Args<'_, 'a>) -> Result<Value<'a>, EvalError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use sha1::Digest;

    let end = |at: usize| {
        let text = args.text(at)?;
        let port = args.int(at + 1)?;
        let port = u16::try_from(port).map_err(|_| EvalError::new(format!("{port} is no port")))?;
        let address = plain(&text).ok_or_else(|| EvalError::new(format!("{text:?} is no IP address")))?;
        Ok::<_, EvalError>((octets(address), port))
    };
    let (source, destination) = (end(0)?, end(2)?);
    let protocol: u8 = match &*args.text_or(4, "TCP")? {
        "ICMP" => 1,
        "TCP" => 6,
        "UDP" => 17,
        "RSVP" => 46,
        "ICMP6" => 58,
        "SCTP" => 132,
        other => return Err(EvalError::new(format!("{other:?} is no protocol of a flow"))),
    };
    let seed = if args.given(5) { args.int(5)? } else { 0 };
    let seed = u16::try_from(seed).map_err(|_| EvalError::new(format!("a seed is from 0 to 65535, not {seed}")))?;
    // Both directions of a flow have one id.
    let ordered = (source.0.len(), &source.0, source.1) <= (destination.0.len(), &destination.0, destination.1);
    let (first, second) = if ordered { (source, destination) } else { (destination, source) };
    let tuple =
        [&seed.to_be_bytes()[..], &first.0, &second.0, &[protocol, 0], &first.1.to_be_bytes(), &second.1.to_be_bytes()]
            .concat();
    Ok(Value::text(format!("1:{}", STANDARD.encode(sha1::Sha1::digest(tuple)))))
}
